"""The two discriminators of SQ-GAN's training, and their rounds against the network.

    original, rebuilt, map ── patch discriminator ── hinge loss, feature matching
    what frozen networks see in both ── feature discriminator ── hinge loss

In a round a discriminator first takes a step of its own; its opinion then is a loss of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sqlink.errors import ConfigError
from sqlink.model.discriminator import (
    FeatureDiscriminator,
    PatchDiscriminator,
    blend_towards_real,
)
from sqlink.training.augmentation import draw_window
from sqlink.training.checkpoint import State
from sqlink.training.config import Losses, Stage
from sqlink.training.losses import feature_matching, hinge_discriminator, unit_power
from sqlink.training.objective import Views, laid_out
from sqlink.training.task import Task

GRAIN = 0.02
"""Spread of the noise on the patch discriminator's input, five grey levels: it must not use what no
eye sees, such as the rounding or compression of files.
"""


@dataclass(frozen=True)
class Played:
    """The decoder's side of a round.

    drawn: its pictures as they left the last layer, with their graph. last: that layer's weight.
    slope: the gradient of the other losses at the pictures, which the adversarial one is measured
    against. ramp: how much of the adversarial losses counts yet.
    """

    drawn: Tensor
    last: Tensor
    slope: Tensor
    ramp: float


class Adversaries:
    """The patch discriminator, and the feature discriminator where a stage asks for one.

    fabric: of the run. blend_share: how much of the original is mixed into the task's blended
    classes before the patch discriminator sees them.
    """

    def __init__(
        self,
        fabric: Any,
        patch: PatchDiscriminator,
        features: FeatureDiscriminator | None,
        task: Task,
        blend_share: float,
    ) -> None:
        self.fabric = fabric
        self.patch, self.features = patch, features
        self.task, self.blend_share = task, blend_share

    def whiten(self, images: Tensor) -> None:
        """Fit the patch discriminator's bands to real pictures, float32 [N, 3, H, W]."""
        self.patch.whiten_by(images, GRAIN)

    def begin(self, stage: Stage) -> None:
        """Enter a stage, with new optimisers."""
        self.stage = stage
        self.patch_set_up, self.patch_optimizer = self.fabric.setup(
            self.patch, self._optimizer_of(self.patch)
        )
        if self.features is not None:
            self.features_set_up, self.features_optimizer = self.fabric.setup(
                self.features, self._optimizer_of(self.features)
            )

    def _optimizer_of(self, discriminator: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            discriminator.parameters(),
            lr=self.stage.discriminator_rate,
            betas=(0.5, 0.99),
            weight_decay=0.0,
            fused=True,
        )

    @property
    def optimizers(self) -> list[Any]:
        """The patch discriminator's, then that of features."""
        if self.features is None:
            return [self.patch_optimizer]
        return [self.patch_optimizer, self.features_optimizer]

    def oppose(self, found: Views, wanted: Views) -> Tensor:
        """Play a round of the feature discriminator. Returns its opinion of the rebuilt picture.

        found, wanted: views of the rebuilt picture and of the original. Lower is better.
        """
        assert self.features is not None
        real = [unit_power(true, true) for true in wanted.coarse]
        fake = [unit_power(f, true) for f, true in zip(found.coarse, wanted.coarse, strict=True)]
        pairs = [torch.cat((r, f.detach())) for r, f in zip(real, fake, strict=True)]
        verdicts = [hinge_discriminator(*v.chunk(2)) for v in self.features_set_up(pairs)]
        self.features_optimizer.zero_grad()
        self.fabric.backward(torch.stack(verdicts).mean())
        self.features_optimizer.step()
        self.features.requires_grad_(False)
        with self.fabric.autocast():
            opinion = torch.stack([-v.mean() for v in self.features(fake)]).mean()
        self.features.requires_grad_(True)
        return opinion

    def play(
        self,
        rebuilt: Tensor,
        images: Tensor,
        inputs: Tensor,
        played: Played,
        terms: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Play a round of the patch discriminator. Returns its gradient at the rebuilt picture.

        rebuilt: the decoder's pictures as a leaf, images: the originals, float32 [N, 3, H, W];
        inputs: int64 [N, H, W], the maps sent. Adds the round's losses to `terms`.
        """
        weights: Losses = self.stage.losses
        window = draw_window(self.stage.crop, generator, halved=True)
        labels, real = inputs[window[0], *window[2:]], images[window]
        shown = blend_towards_real(
            rebuilt[window], real, labels, self.task.blended, self.blend_share
        )
        size = (2, *real.shape)
        grain = torch.randn(size, generator=generator, device=real.device) * GRAIN
        real, fake = laid_out(real + grain[0]), laid_out(shown + grain[1])
        verdicts, features = self.patch_set_up(
            torch.cat((real, fake.detach())), labels.repeat(2, 1, 1)
        )
        loss = hinge_discriminator(*verdicts.chunk(2))
        self.patch_optimizer.zero_grad()
        self.fabric.backward(loss)
        self.patch_optimizer.step()
        self.patch.requires_grad_(False)
        with self.fabric.autocast():
            verdict, found = self.patch(fake, labels)
        self.patch.requires_grad_(True)
        slope_of_matching = torch.zeros_like(rebuilt)
        if weights.feature_matching:
            wanted = [feature.chunk(2)[0] for feature in features]
            matching = played.ramp * weights.feature_matching * feature_matching(found, wanted)
            slope_of_matching = torch.autograd.grad(matching, rebuilt, retain_graph=True)[0]
            terms["feature_matching"] = matching.detach()
        adversarial = -verdict.mean()
        slope_of_verdict: Tensor = torch.autograd.grad(adversarial, rebuilt)[0]
        norms = [
            torch.autograd.grad(played.drawn, played.last, part, retain_graph=True)[0].norm()
            for part in (played.slope, slope_of_verdict)
        ]
        share = (weights.adversarial * norms[0] / (norms[1] + 1e-6)).clamp(
            max=weights.adversarial_most
        )
        terms["discriminator"] = loss.detach()
        terms["adversarial"] = adversarial.detach()
        terms["adversarial_weight"] = share.detach()
        slopes: Tensor = slope_of_matching + played.ramp * share * slope_of_verdict
        return slopes

    def state(self) -> State:
        """Return what a checkpoint holds of both."""
        state: State = {
            "critic": self.patch.state_dict(),
            "critic_optimizer": self.patch_optimizer.state_dict(),
        }
        if self.features is not None:
            state["feature_critic"] = self.features.state_dict()
            state["feature_optimizer"] = self.features_optimizer.state_dict()
        return state

    def load_state(self, state: State, where: str) -> None:
        """Load what `state` returned; a feature discriminator that it lacks stays new.

        where: the checkpoint's name in errors. Raises ConfigError for other discriminators.
        """
        try:
            self.patch.load_state_dict(state["critic"])
        except RuntimeError:
            raise ConfigError(
                f"{where}: its discriminator is of an earlier version: name another "
                "`output`, and the weights beside it as `start`"
            ) from None
        self.patch_optimizer.load_state_dict(state["critic_optimizer"])
        if self.features is not None and "feature_critic" in state:
            try:
                self.features.load_state_dict(state["feature_critic"])
            except RuntimeError:
                raise ConfigError(
                    f"{where}: its discriminator used other networks: "
                    "give the LPIPS files and losses as they were, or name another `output`"
                ) from None
            self.features_optimizer.load_state_dict(state["feature_optimizer"])
