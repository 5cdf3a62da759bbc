"""Training of SQ-GAN from a YAML file: the map branch, the picture branch, then both together.

    for each stage:  crops ── reconstruction ── losses ── discriminator ── step ── moving average

Data stay on the device, every step draws from a generator of its own, and a checkpoint holds all
that a run is, so that one which was stopped goes on as if it had not been. `output/` receives
`checkpoint.safetensors`, `NAME.safetensors` (the moving average of the weights, ready to be used as
`--weights`), and what `sqlink.training.journal` writes.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.data import open_dataset
from sqlink.data.base import require_classes
from sqlink.data.classes import NO_LABEL, NUM_CLASSES, ClassSet, class_set_of_size
from sqlink.errors import ConfigError, DataError, SQLinkError, WeightsError
from sqlink.metrics.lpips import FOLDER_VARIABLE, LPIPS, load_lpips
from sqlink.model.config import ABLATIONS, ModelConfig, model_config
from sqlink.model.discriminator import (
    FeatureDiscriminator,
    PatchDiscriminator,
    blend_towards_real,
    is_one_of,
)
from sqlink.model.layout import channels_last
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN
from sqlink.settings import find_settings, settings_kind
from sqlink.training.augmentation import (
    CropSettings,
    ResidentPictures,
    draw_crops,
    draw_fractions,
    draw_window,
    step_generator,
)
from sqlink.training.checkpoint import State, follow, load_checkpoint, save_checkpoint
from sqlink.training.config import Source, StageName, TrainConfig, load_train_config
from sqlink.training.journal import Journal, sample_sheet
from sqlink.training.losses import (
    colour_loss,
    feature_matching,
    hinge_discriminator,
    image_loss,
    map_loss,
    spectrum_loss,
    unit_power,
)
from sqlink.training.packet_loss import PacketLoss, draw_packet_losses
from sqlink.training.pasting import ComponentBank, component_bank
from sqlink.training.perceptual import SegmenterFeatures, energy_score, features_loss
from sqlink.training.reconstruction import OnTheWay, ThroughTheLink, set_trained
from sqlink.training.task import load_task

NETWORKS = (
    "image_encoder",
    "map_encoder",
    "image_demasker",
    "map_demasker",
    "image_decoder",
    "map_decoder",
)
"""What `compile` compiles; the rest is small, or decides by its data."""

GRAIN = 0.02
"""Spread of the noise on what the patch discriminator sees, five grey levels: it is not to tell
pictures by what no eye sees, how their files were rounded or compressed.
"""


def load_pictures(
    source: Source, classes: ClassSet, segmenter: str | None, device: torch.device
) -> ResidentPictures:
    """A whole data set on the device. Raises DataError if a picture has no map or another size, or
    if the maps hold other classes.
    """
    data = open_dataset(source.name, **source.options)
    require_classes(source.name, data, classes)
    images: list[Tensor] = []
    maps: list[Tensor] = []
    for index in range(len(data)):
        sample = data[index]
        if sample.segmentation is None:
            raise DataError(f"data set '{source.name}': {sample.name} has no map to train on")
        if images and sample.image.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"data set '{source.name}': {sample.name} is {tuple(sample.image.shape[1:])}, the "
                f"others {tuple(images[0].shape[1:])}; training wants one size a source"
            )
        images.append((sample.image * 255).round().to(torch.uint8))
        maps.append(sample.segmentation.to(torch.uint8))
    if not images:
        raise DataError(f"data set '{source.name}' is empty: check its split and root")
    pictures, labels = torch.stack(images), torch.stack(maps)
    sent = labels
    if segmenter is not None:
        from sqlink.segmentation import load_segmenter

        network = load_segmenter(segmenter, device=str(device))
        parts = [network.segment(part.float() / 255) for part in pictures.split(8)]
        sent = torch.cat(parts).to(torch.uint8)
    return ResidentPictures(pictures, labels, sent).to(device)


@dataclass(frozen=True)
class Views:
    """What frozen networks see in pictures: LPIPS's `taps` and the features of `tx`, or none."""

    taps: list[Tensor]
    tx: tuple[Tensor, ...]

    @property
    def coarse(self) -> list[Tensor]:
        """Those that a discriminator looks at: LPIPS's at 1/4 and, twice, 1/16; `tx`'s."""
        return [*self.taps[1:6:2], *self.tx]


class Trainer:
    """The state of one run: networks, optimisers, data, and how far it has come."""

    def __init__(self, config: TrainConfig, report: Callable[[str], None]) -> None:
        from lightning_fabric import Fabric

        self.config = config
        self.report = report
        self.plan = config.plan()
        self.model_config = _model_of(config)
        self._check(config)
        self.classes = class_set_of_size(self.model_config.num_classes)
        self.task = load_task(config.task, self.classes)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.output = Path(config.output)
        self.journal = Journal(self.output, report)
        self.fabric = Fabric(
            accelerator=config.device, devices=config.devices, precision=config.precision
        )
        self.fabric.launch()
        self.device = self.fabric.device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = channels_last(SQGAN(self.model_config))
            self.average = SQGAN(self.model_config).requires_grad_(False).eval()
            self.critic = channels_last(PatchDiscriminator(self.model_config.num_classes))
        if config.start is not None:
            _load_weights(self.network, config.start)
        self.average.load_state_dict(self.network.state_dict())
        self.network.to(self.device)
        self.critic.to(self.device)
        channels_last(self.average.to(self.device))
        if config.compile == "yes" or (config.compile == "auto" and self.device.type == "cuda"):
            for name in NETWORKS:
                getattr(self.network, name).compile()
        self.step = self.stage_step = 0
        self.seconds = self.stage_seconds = 0.0
        self._load_losses()
        self.feature_critic = self._feature_critic()
        self.map_weights, self.image_weights = self.task.tensors(self.device)
        self.blend_share = self.task.blend_share
        if "semantic-discriminator" in config.without:
            self.blend_share = 0.0
        self._load_data()
        self.stopping = False
        self.begin(next(iter(self.plan)))

    def _check(self, config: TrainConfig) -> None:
        if config.segmenter == "judge":
            raise ConfigError(
                "segmenter: 'judge' only measures and may not be trained against; use 'tx'"
            )
        if not any(source.share for source in config.sources):
            raise ConfigError("sources: every share is 0; give one above 0")
        for name, stage in self.plan.items():
            if any(side % self.model_config.downsampling for side in stage.crop):
                raise ConfigError(
                    f"stages.{name}.crop: {list(stage.crop)} must be multiples of "
                    f"{self.model_config.downsampling}, the pixels a side of a token of "
                    f"'{config.model}'"
                )
            if stage.realisations > 1 and not self.model_config.noise:
                raise ConfigError(
                    f"stages.{name}.realisations: '{config.model}' draws no noise, so that two "
                    "would be alike: set it to 1"
                )
            if stage.losses.energy and stage.realisations == 1:
                raise ConfigError(
                    f"stages.{name}.losses.energy: it compares two realisations of a crop: set "
                    "realisations to 2, or energy to 0"
                )
            for loss in ("semantic", "features"):
                if getattr(stage.losses, loss) and self.model_config.num_classes != NUM_CLASSES:
                    raise ConfigError(
                        f"stages.{name}.losses.{loss}: the segmenter `tx` knows CamVid's "
                        f"{NUM_CLASSES} classes, '{config.model}' has "
                        f"{self.model_config.num_classes}: set it to 0"
                    )
        if config.device == "cuda" and torch.cuda.device_count() < config.devices:
            raise ConfigError(
                f"device: {config.devices} CUDA devices are asked for, "
                f"{torch.cuda.device_count()} are here: set `device: cpu` or fewer `devices`"
            )

    def _load_losses(self) -> None:
        """The frozen networks that losses look through."""
        losses = [stage.losses for stage in self.plan.values()]
        self.perceptual: LPIPS | SegmenterFeatures | None = None
        if any(each.perceptual or each.energy for each in losses):
            self.perceptual = _perceptual_loss(self.config.lpips_weights, self.report)
            channels_last(self.perceptual.to(self.device))
        self.segmenter: Any = None
        if any(each.semantic or each.features or each.projected for each in losses):
            from sqlink.segmentation import load_segmenter

            self.segmenter = load_segmenter("tx", device=str(self.device))

    def _feature_critic(self) -> FeatureDiscriminator | None:
        """A discriminator on what the frozen networks see, where a stage wants one."""
        if not any(stage.losses.projected for stage in self.plan.values()):
            return None
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            views = self._views(torch.zeros(1, 3, 64, 64, device=self.device), True, True)
            critic = FeatureDiscriminator([view.shape[1] for view in views.coarse])
        return channels_last(critic.to(self.device))

    def _views(self, images: Tensor, taps: bool, tx: bool) -> Views:
        """What the frozen networks, as asked for, make of float32 [N, 3, H, W]; differentiable."""
        lpips = self.perceptual if taps and isinstance(self.perceptual, LPIPS) else None
        return Views(
            [] if lpips is None else lpips.taps(images),
            self.segmenter.network.features(images) if tx else (),
        )

    def _load_data(self) -> None:
        config = self.config
        self.sources = [
            load_pictures(s, self.classes, config.segmenter, self.device) for s in config.sources
        ]
        self.shares = torch.tensor([s.share for s in config.sources], device=self.device)
        self._whiten_critic()
        self.banks: list[ComponentBank | None] = [None for _ in self.sources]
        if any(stage.paste for stage in self.plan.values()):
            self.banks = [component_bank(s.images, s.maps, self.task.pasted) for s in self.sources]
        self.held_out: ResidentPictures | None = None
        if config.validation is not None:
            self.held_out = load_pictures(
                config.validation, self.classes, config.segmenter, self.device
            )

    def _whiten_critic(self) -> None:
        """Show the patch discriminator the spread of its bands in real pictures."""
        source = self.sources[int(self.shares.argmax())]
        chosen = torch.linspace(0, len(source) - 1, min(16, len(source))).long()
        self.critic.whiten_by(source.images[chosen.to(self.device)].float() / 255, GRAIN)

    def begin(self, name: StageName) -> None:
        """Enter a stage: what it trains, with optimisers of its own."""
        self.name, self.stage = name, self.plan[name]
        self.stage_step, self.stage_seconds = 0, 0.0
        set_trained(self.network, name, self.stage.freeze_map)
        self.network.zero_grad()  # else the last stage's gradients count in this one's norm
        optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=self.stage.learning_rate,
            betas=(0.8, 0.99),
            weight_decay=self.stage.weight_decay,
            fused=True,
        )
        critic_optimizer = self._optimizer_of(self.critic)
        self.link = ThroughTheLink(self.network)
        self.generator, self.optimizer = self.fabric.setup(self.link, optimizer)
        self.judge_of_patches, self.critic_optimizer = self.fabric.setup(
            self.critic, critic_optimizer
        )
        if self.feature_critic is not None:
            self.judge_of_features, self.feature_optimizer = self.fabric.setup(
                self.feature_critic, self._optimizer_of(self.feature_critic)
            )

    def _optimizer_of(self, critic: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            critic.parameters(),
            lr=self.stage.discriminator_rate,
            betas=(0.5, 0.99),
            weight_decay=0.0,
            fused=True,
        )

    def _optimizers(self) -> list[Any]:
        """The network's, then the discriminators'."""
        those = [self.optimizer, self.critic_optimizer]
        return those if self.feature_critic is None else [*those, self.feature_optimizer]

    @property
    def progress(self) -> float:
        """0 to 1: the further of the stage's two budgets."""
        steps, minutes = self.stage.max_steps, self.stage.max_minutes
        parts = [self.stage_step / steps] if steps else []
        parts += [self.stage_seconds / 60 / minutes] if minutes else []
        return min(1.0, max(parts))

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.safetensors"

    def save(self) -> None:
        """Write the checkpoint."""
        if not self.fabric.is_global_zero:
            return
        state: State = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }
        if self.feature_critic is not None:
            state["feature_critic"] = self.feature_critic.state_dict()
            state["feature_optimizer"] = self.feature_optimizer.state_dict()
        save_checkpoint(
            self.checkpoint_path,
            state,
            step=self.step,
            seconds=self.seconds,
            stage=self.name,
            stage_step=self.stage_step,
            stage_seconds=self.stage_seconds,
            model=self.model_config.to_json(),
        )

    def resume(self) -> bool:
        """Go on from the checkpoint where there is one. Raises ConfigError if it is another
        model's, or stands in a stage that the file no longer names.
        """
        if not self.checkpoint_path.exists():
            return False
        state, facts = load_checkpoint(self.checkpoint_path)
        if _model_in(facts.get("model")) != self.model_config:
            raise ConfigError(
                f"{self.checkpoint_path} is of another model than '{self.config.model}': "
                "name another `output`, or remove it"
            )
        if facts.get("stage") not in self.plan:
            raise ConfigError(
                f"{self.checkpoint_path} stands in stage '{facts.get('stage')}', which `stages` "
                "does not name: name it, or another `output`"
            )
        self.begin(facts["stage"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        try:
            self.critic.load_state_dict(state["critic"])
        except RuntimeError:
            raise ConfigError(
                f"{self.checkpoint_path}: its discriminator is of an earlier version: name another "
                "`output`, and the weights beside it as `start`"
            ) from None
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError:
            raise ConfigError(
                f"{self.checkpoint_path}: stage '{self.name}' trained other parts when it was "
                "written: set freeze_map as it was, or name another `output`"
            ) from None
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        if self.feature_critic is not None and "feature_critic" in state:  # else it is new
            try:
                self.feature_critic.load_state_dict(state["feature_critic"])
            except RuntimeError:
                raise ConfigError(
                    f"{self.checkpoint_path}: its discriminator looked through other networks: "
                    "give the LPIPS files and losses as they were, or name another `output`"
                ) from None
            self.feature_optimizer.load_state_dict(state["feature_optimizer"])
        for optimizer in self._optimizers():
            _lay_out_as_parameters(optimizer)
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.stage_step, self.stage_seconds = facts["stage_step"], facts["stage_seconds"]
        return True

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crops from the sources by their shares; see `draw_crops`."""
        count = self.stage.batch_size
        owner = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        settings = CropSettings(
            self.stage.crop,
            sent_share=0.5 if self.config.segmenter else 0.0,
            paste_share=self.stage.paste,
        )
        parts = []
        for number, pictures in enumerate(self.sources):
            chosen = torch.randint(
                len(pictures), (count,), generator=generator, device=self.device
            )[owner == number]
            if len(chosen):
                bank = self.banks[number] if self.stage.paste else None
                parts.append(draw_crops(pictures, chosen, settings, generator, bank))
        images, maps, inputs = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return images.contiguous(memory_format=torch.channels_last), maps, inputs

    def on_the_way(self, generator: torch.Generator) -> OnTheWay:
        """What each crop of a batch keeps, and what the channel takes from it."""
        stage, count = self.stage, self.stage.batch_size
        grid = (count, *self.model_config.grid(*stage.crop))
        fractions = (
            draw_fractions(count, stage.image_fraction, generator),
            draw_fractions(count, stage.map_fraction, generator),
        )
        losing = stage.losing
        settings = PacketLoss(clean=1 - losing.pictures, rate=losing.rate, stream=losing.stream)
        if "losing" in self.config.without:
            settings = PacketLoss(clean=1.0, stream=0.0)
        arrived = draw_packet_losses(grid, fractions, settings, generator)
        ranking = None
        if "relevance" in self.model_config.without:
            image, of_map = torch.rand(2, *grid, generator=generator, device=self.device).unbind()
            ranking = (image, of_map)
        seeds = (count * stage.realisations,)
        noise = torch.randint(2**31, seeds, generator=generator, device=self.device)
        return OnTheWay(fractions, arrived, ranking, noise)

    def advance(self) -> dict[str, float]:
        """One step of both players. Raises SQLinkError if a loss or a gradient is not finite."""
        stage, weights = self.stage, self.stage.losses
        generator = step_generator(
            self.config.seed, self.step, self.fabric.global_rank, self.device
        )
        images, maps, inputs = self.batch(generator)
        way = self.on_the_way(generator)
        draw = torch.rand(1, generator=generator, device=self.device)
        true_map = self.name == "image" or bool(draw < stage.true_map_share)
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * rate
        for optimizer in self._optimizers()[1:]:
            for group in optimizer.param_groups:
                group["lr"] = stage.discriminator_rate * rate

        out = self.generator(images, inputs, way, self.name, true_map)
        terms = {"commitment": weights.commitment * out.commitment}
        if out.logits is not None and self.network.map_decoder.conv_out.weight.requires_grad:
            terms["map"] = weights.map * map_loss(out.logits, inputs, self.map_weights)
        total = _sum(terms)
        if out.images is not None:
            rebuilt = out.images.detach().requires_grad_()
            images, maps, inputs = (
                tensor.repeat_interleave(stage.realisations, 0) for tensor in (images, maps, inputs)
            )
            seen = self._picture_losses(rebuilt, images, maps, generator)
            self._must_be_finite(seen)
            slope = torch.autograd.grad(_sum(seen), rebuilt)[0]
            if self.progress >= stage.adversarial_start and (
                weights.adversarial > 0 or weights.feature_matching > 0
            ):
                slope = slope + self._play(rebuilt, images, inputs, slope, seen, generator)
            total = total + (out.images * slope).sum()
            terms |= seen
        self._must_be_finite(terms)
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), stage.gradient_clip)
        self._must_be_finite({"the norm of the gradient": norm})
        self.optimizer.step()
        decay = min(stage.ema_decay, (1 + self.step) / (10 + self.step))
        follow(self.average, self.network, decay)
        self.step += 1
        self.stage_step += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def _must_be_finite(self, terms: dict[str, Tensor]) -> None:
        stacked = torch.stack([term.detach().float() for term in terms.values()])
        if torch.isfinite(stacked).all():
            return
        wrong = [name for name, term in terms.items() if not torch.isfinite(term.detach())]
        kept = (
            f"the last checkpoint is kept in {self.checkpoint_path}"
            if self.checkpoint_path.exists()
            else "there was no checkpoint yet"
        )
        raise SQLinkError(
            f"training stopped at step {self.step}, stage {self.name}: {', '.join(wrong)} is not "
            f"finite; {kept}; lower learning_rate and run again"
        )

    def _picture_losses(
        self, rebuilt: Tensor, images: Tensor, maps: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What the rebuilt picture is held against the original for, weighted."""
        weights = self.stage.losses
        terms = {
            "l1": weights.l1 * image_loss(rebuilt, images, maps, self.image_weights),
            "colour": weights.colour * colour_loss(rebuilt, images),
        }
        clamped = rebuilt + (rebuilt.clamp(0, 1) - rebuilt).detach()
        window = draw_window(self.stage.crop, generator)
        shown, true = _laid_out(clamped[window]), _laid_out(images[window])
        projected = weights.projected > 0 and self.progress >= self.stage.adversarial_start
        taps = projected or weights.perceptual > 0 or weights.energy > 0
        lpips = self.perceptual if isinstance(self.perceptual, LPIPS) else None
        tx = projected or weights.features > 0 or weights.semantic > 0
        found = self._views(shown, taps, tx)
        with torch.no_grad():
            wanted = self._views(true, taps, tx)
        labels, exact = maps[window[0], *window[2:]], None
        if weights.blended_weight < 1:
            blended = is_one_of(labels, self.task.blended).float()
            exact = 1 - (1 - weights.blended_weight) * blended
        times = self.stage.realisations
        if weights.perceptual and lpips is None and self.perceptual is not None:
            terms["perceptual"] = weights.perceptual * self.perceptual(shown, true, exact, times)
        if weights.perceptual and lpips is not None:
            score = energy_score(lpips, found.taps, wanted.taps, exact, times)
            terms["perceptual"] = weights.perceptual * score
        if weights.energy and lpips is not None:
            score = energy_score(lpips, found.taps, wanted.taps, exact, times, root=True)
            terms["energy"] = weights.energy * score
        if weights.spectrum:
            terms["spectrum"] = weights.spectrum * spectrum_loss(shown, true)
        if weights.features:
            distance = features_loss(found.tx, wanted.tx, weight=exact, realisations=times)
            terms["features"] = weights.features * distance
        if weights.semantic:
            logits = F.interpolate(
                self.segmenter.network.classes(*found.tx),
                labels.shape[1:],
                mode="bilinear",
                align_corners=False,
            )
            terms["semantic"] = weights.semantic * F.cross_entropy(
                logits.float(), labels, ignore_index=NO_LABEL
            )
        if projected:
            terms["projected"] = weights.projected * self._project(found, wanted)
        return terms

    def _project(self, found: Views, wanted: Views) -> Tensor:
        """One round against the discriminator of features, which learns first. Returns what it
        thinks of the rebuilt picture, lower for a better one.
        """
        real = [unit_power(true, true) for true in wanted.coarse]
        fake = [unit_power(f, true) for f, true in zip(found.coarse, wanted.coarse, strict=True)]
        pairs = [torch.cat((r, f.detach())) for r, f in zip(real, fake, strict=True)]
        verdicts = [hinge_discriminator(*v.chunk(2)) for v in self.judge_of_features(pairs)]
        self.feature_optimizer.zero_grad()
        self.fabric.backward(torch.stack(verdicts).mean())
        self.feature_optimizer.step()
        assert self.feature_critic is not None
        self.feature_critic.requires_grad_(False)
        with self.fabric.autocast():
            opinion = torch.stack([-v.mean() for v in self.feature_critic(fake)]).mean()
        self.feature_critic.requires_grad_(True)
        return opinion

    def _play(
        self,
        rebuilt: Tensor,
        images: Tensor,
        inputs: Tensor,
        slope: Tensor,
        terms: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """One round against the discriminator: it learns, and then judges the rebuilt picture.

        rebuilt: what the decoder gave, as a leaf; slope: the gradient of the other losses at it,
        that the adversarial one is measured against. Adds its terms to `terms` and returns their
        gradient at the rebuilt picture.
        """
        weights = self.stage.losses
        window = draw_window(self.stage.crop, generator, halved=True)
        labels, real = inputs[window[0], *window[2:]], images[window]
        shown = blend_towards_real(
            rebuilt[window], real, labels, self.task.blended, self.blend_share
        )
        size = (2, *real.shape)
        grain = torch.randn(size, generator=generator, device=self.device) * GRAIN
        real, fake = _laid_out(real + grain[0]), _laid_out(shown + grain[1])
        verdicts, features = self.judge_of_patches(
            torch.cat((real, fake.detach())), labels.repeat(2, 1, 1)
        )
        loss = hinge_discriminator(*verdicts.chunk(2))
        self.critic_optimizer.zero_grad()
        self.fabric.backward(loss)
        self.critic_optimizer.step()
        self.critic.requires_grad_(False)
        with self.fabric.autocast():
            verdict, found = self.critic(fake, labels)
        self.critic.requires_grad_(True)
        ramp = min(1.0, (self.progress - self.stage.adversarial_start) / 0.05 + 0.1)
        slope_of_matching = torch.zeros_like(rebuilt)
        if weights.feature_matching:
            wanted = [feature.chunk(2)[0] for feature in features]
            matching = ramp * weights.feature_matching * feature_matching(found, wanted)
            slope_of_matching = torch.autograd.grad(matching, rebuilt, retain_graph=True)[0]
            terms["feature_matching"] = matching.detach()
        adversarial = -verdict.mean()
        slope_of_verdict: Tensor = torch.autograd.grad(adversarial, rebuilt)[0]
        last = self.network.image_decoder.conv_out.weight
        drawn = self.link.drawn
        assert drawn is not None
        norms = [
            torch.autograd.grad(drawn, last, part, retain_graph=True)[0].norm()
            for part in (slope, slope_of_verdict)
        ]
        share = (weights.adversarial * norms[0] / (norms[1] + 1e-6)).clamp(
            max=weights.adversarial_most
        )
        terms["critic"] = loss.detach()
        terms["adversarial"] = adversarial.detach()
        terms["adversarial_weight"] = share.detach()
        slopes: Tensor = slope_of_matching + ramp * share * slope_of_verdict
        return slopes

    def _rate(self) -> float:
        """Linear warm-up, then a cosine down to 2 % of the learning rate."""
        warm = min(1.0, (self.stage_step + 1) / max(1, self.stage.warmup_steps))
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    @torch.inference_mode()
    def validate(self, fraction: float = 0.4, limit: int = 8) -> dict[str, float]:
        """PSNR, LPIPS and map fidelity of the moving average on pictures spread over the held-out
        set.
        """
        if self.held_out is None:
            return {}
        chosen = torch.linspace(0, len(self.held_out) - 1, limit).long().to(self.device)
        images = self.held_out.images[chosen].float() / 255
        sent = self.held_out.sent_maps[chosen].long()
        height, width = sent.shape[-2:]
        found = self.average.analyse(images, sent)
        share = torch.full((len(chosen),), fraction, device=self.device)
        masked = [
            torch.where(keep_most_relevant(scores, share), indices, -1)
            for indices, scores in (
                (found.image_indices, found.image_scores),
                (found.map_indices, found.map_scores),
            )
        ]
        rebuilt, maps = self.average.synthesise(masked[0], masked[1], height, width)
        known = sent != NO_LABEL
        error = (rebuilt - images).square().mean((1, 2, 3))
        figures = {
            "val_psnr_db": float((-10 * error.log10()).mean()),
            "val_map_accuracy": float((maps == sent)[known].float().mean()),
        }
        if self.perceptual is not None:
            distance = float(self.perceptual(rebuilt, images).mean())
            lpips = isinstance(self.perceptual, LPIPS)
            figures["val_lpips" if lpips else "val_perceptual"] = distance
        for name in ("image", "map"):
            quantizer = getattr(self.network, f"{name}_quantizer")
            indices = getattr(found, f"{name}_indices")
            figures[f"val_codes_{name}"] = float(len(indices.unique()))
            figures[f"perplexity_{name}"] = float(quantizer.perplexity())
        if self.fabric.is_global_zero:
            scores = (found.image_scores, found.map_scores)
            sheet = sample_sheet(images, rebuilt, sent, maps, scores, self.classes)
            self.journal.draw(self.step, sheet)
        return figures

    @torch.inference_mode()
    def export(self, pictures_a_source: int | None = None) -> Path:
        """Write `NAME.safetensors`: the moving average, the coder's tables, the record of the run.

        The tables are fitted to every training picture, or quickly to that many spread over each
        source.
        """
        from sqlink.training.context_tables import STEPS_OF_FIT, fit_tables
        from sqlink.weights.manifest import save

        found = []
        for source in self.sources:
            count = min(pictures_a_source or len(source), len(source))
            chosen = torch.linspace(0, len(source) - 1, count).long().to(self.device)
            for part in chosen.split(8):
                images = source.images[part].float() / 255
                found.append(self.average.analyse(images, source.sent_maps[part].long()))
        codebooks = (self.average.map_quantizer.codebook, self.average.image_quantizer.codebook)
        pictures = sum(len(part.map_indices) for part in found)
        steps = min(2 * pictures, 50 if pictures_a_source else STEPS_OF_FIT)
        tensors = self.average.weights() | fit_tables(found, codebooks, steps).to_tensors()
        path = self.output / f"{self.config.model}.safetensors"
        save(
            path,
            tensors,
            {
                "kind": "sqgan",
                "model": self.model_config.to_json(),
                "task": self.task.to_json(),
                "steps": str(self.step),
                "minutes": f"{self.seconds / 60:.1f}",
                "batch_size": str(self.stage.batch_size * self.fabric.world_size),
                "data": ", ".join(s.name for s in self.config.sources),
                "trained_on": "lpips" if isinstance(self.perceptual, LPIPS) else "",
            },
        )
        return path

    def run(self) -> Path:
        """Train until every stage's budget is spent. Returns the weights' path.

        Ctrl-C ends the step that runs and saves a checkpoint; then KeyboardInterrupt is raised.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        names = list(self.plan)
        with self._stops_after_a_step():
            for name in names[names.index(self.name) :]:
                if name != self.name:
                    self.begin(name)
                self._run_stage()
        self.save()
        return self.export()

    def _run_stage(self) -> None:
        """Steps until the stage's budget is spent, with figures and checkpoints on their way."""
        last = time.monotonic()
        saved = checked = self.seconds
        sums: dict[str, float] = {}
        since = 0
        while self.progress < 1:
            for name, value in self.advance().items():
                sums[name] = sums.get(name, 0.0) + value
            since += 1
            now = time.monotonic()
            self.seconds += now - last
            self.stage_seconds += now - last
            last = now
            if self.stopping:
                self.save()
                self.report(f"stopped at step {self.step}; the same command goes on from there")
                raise KeyboardInterrupt
            if self.seconds - checked >= 60 * self.config.validate_minutes or self.progress >= 1:
                self._look({k: v / since for k, v in sums.items()}, since, self.seconds - checked)
                sums, since, checked, last = {}, 0, self.seconds, time.monotonic()
            if self.seconds - saved >= 60 * self.config.checkpoint_minutes:
                self.save()
                saved, last = self.seconds, time.monotonic()

    def _look(self, losses: dict[str, float], steps: int, seconds: float) -> None:
        """Hold the run against the held-out pictures, and note it."""
        crops = steps * self.stage.batch_size * self.fabric.world_size
        row: dict[str, float | str] = {
            "step": self.step,
            "stage": self.name,
            "minutes": round(self.seconds / 60, 2),
            "crops_per_s": round(crops / max(seconds, 1e-9), 2),
        }
        row |= losses | self.validate()
        if self.fabric.is_global_zero:
            self.journal.write(self.step, row)
            self.export(pictures_a_source=32)

    @contextmanager
    def _stops_after_a_step(self) -> Iterator[None]:
        """The first Ctrl-C lets the step end, so that no step is ever half counted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _model_of(config: TrainConfig) -> ModelConfig:
    """The model's configuration, less what `without` leaves out of it."""
    missing = tuple(part for part in config.without if part in ABLATIONS)
    return replace(model_config(config.model), without=missing)


def _model_in(record: str | None) -> ModelConfig | None:
    """The model that a record names; None where it names none that is known."""
    try:
        return None if record is None else ModelConfig.from_json(record)
    except ConfigError:
        return None


def _perceptual_loss(
    lpips_weights: str | None, report: Callable[[str], None]
) -> LPIPS | SegmenterFeatures:
    """LPIPS where its files are named, else the features of `tx`."""
    if lpips_weights is not None or os.environ.get(FOLDER_VARIABLE):
        return load_lpips(lpips_weights)
    from sqlink.segmentation.builtin import built_in
    from sqlink.segmentation.pyramid import Pyramid

    report(
        f"no LPIPS files ({FOLDER_VARIABLE} or lpips_weights): the perceptual loss looks through "
        "the segmenter `tx`"
    )
    network = built_in("tx").network
    assert isinstance(network, Pyramid)
    return SegmenterFeatures(network)


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms.values()]).sum()


def _laid_out(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _load_weights(network: SQGAN, name: str) -> None:
    """Put shipped or own weights into a network. Raises WeightsError if of another model."""
    from sqlink.weights.manifest import load

    loaded = load(name, "sqgan")
    model = _model_in(loaded.metadata.get("model"))
    # An ablation leaves the layers as they are, and may start from weights that had all parts.
    if model not in (network.config, replace(network.config, without=())):
        raise WeightsError(
            f"start: weights '{name}' are of another model than the one to be trained"
        )
    own = {k: v for k, v in loaded.tensors.items() if not k.startswith("tables.")}
    network.load_weights(own)


def _lay_out_as_parameters(optimizer: Any) -> None:
    """Lay moments out in memory as their parameters are: the fused kernel takes it for granted."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in {"exp_avg", "exp_avg_sq"} & state.keys():
                state[name] = torch.empty_like(parameter).copy_(state[name])


def train_from_config(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train as the file says, going on from its output's checkpoint. Returns the weights' path.

    A file of `kind: segmenters` trains the built-in segmenters instead, and gives their folder; one
    of `kind: refinement` the refinement layers of weights that stand, one of `kind: deepjscc` the
    analogue baseline.
    Raises ConfigError, DataError or WeightsError in one line where the run cannot begin.
    """
    path = find_settings(path, "sqlink.training.configs")
    kind = settings_kind(path)
    if kind == "deepjscc":
        from sqlink.training.deepjscc import train_deepjscc

        return train_deepjscc(path, report)
    if kind == "segmenters":
        from sqlink.training.segmenters import train_segmenters

        return train_segmenters(path, report)
    if kind == "refinement":
        from sqlink.training.refinement import train_refinement

        return train_refinement(path, report)
    trainer = Trainer(load_train_config(Path(path)), report)
    if trainer.resume():
        report(
            f"going on from step {trainer.step}, stage {trainer.name} "
            f"({trainer.seconds / 60:.1f} minutes done)"
        )
    return trainer.run()
