"""Train the refinement layers on top of a trained base: `kind: refinement`.

    pictures ── base codec, tokens kept and lost at random ── features, kept in a bank
    crops of the bank ── encoder ── keep, lose ── decoder at realism 0 | 1 ── losses ── step

The base stays as it is, so it decodes each picture once and redraws it now and then with other
tokens missing: a step costs the refinement alone. Some steps train the decoder of realism 0, for
squared error, the others that of 1, for LPIPS, the segmenter `tx` and a discriminator on the
features of both.
The gain of each token (`GainEstimator`) is learned from the errors of places that were kept or
masked at random. `output/` receives what `sqlink.training.trainer` leaves:
`checkpoint.safetensors`, `refinement.safetensors` (the moving average), `log.csv`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sqlink.data.base import open_dataset
from sqlink.data.classes import NO_LABEL
from sqlink.errors import ConfigError, SQLinkError
from sqlink.metrics.lpips import LPIPS, load_lpips
from sqlink.model.discriminator import FeatureDiscriminator, PatchDiscriminator, is_one_of
from sqlink.model.layout import channels_last
from sqlink.model.refinement import (
    CONCEALMENT,
    Coefficients,
    Digits,
    Refinement,
    RefinementConfig,
    errors_at,
)
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN
from sqlink.settings import Section, load_settings
from sqlink.training.adversaries import GRAIN
from sqlink.training.augmentation import step_generator
from sqlink.training.checkpoint import follow, load_checkpoint, save_checkpoint
from sqlink.training.config import Pixels, Share, Source, Weight
from sqlink.training.interruption import Interruption
from sqlink.training.journal import Journal
from sqlink.training.losses import (
    colour_loss,
    hinge_discriminator,
    image_loss,
    spectrum_loss,
    unit_power,
)
from sqlink.training.perceptual import energy_score, features_loss
from sqlink.training.precision import Precision, autocast, fastest_precision
from sqlink.training.refinement_bank import Bank, Base, Entry
from sqlink.training.refinement_weights import FEW_OF_MAP, export, load_refinement
from sqlink.training.task import load_task

_STEPS_FROM_TO = ((0.0, 0.85), (0.1, 0.9))
"""Range of the quantiser's steps that are trained on, at realism 0 and 1: 0 the coarsest, 1 the
finest."""
_HELD_OUT = 6
_POINTS = (
    ((0.0, 0.0, 1.0), (1.0, 0.0, 1.7), (1.0, 0.0, 1.2), (0.7, 0.12, 0.7), (1.0, 0.4, 0.5)),
    ((0.0, 0.0, 1.0), (1.0, 0.0, 2.5), (0.6, 0.0, 1.25), (0.2, 1.0, 0.7), (1.0, 1.0, 0.4)),
)
"""Shares of both layers and steps at which held-out pictures are measured, at realism 0 and 1."""
_HELD_OUT_LOSS = 0.2
"""Share of the tokens of held-out pictures that is lost where a concealment is trained."""
_FITTED_AT = (0.7, 1.0, 1.4)
"""Steps at which the prediction of lost units is fitted."""
_FLOORS = (1e-3, 1e-3)
"""Added to errors before their logarithm is taken."""


class RefinementLosses(Section):
    """Weight of each loss. squared: root of each crop's mean squared error, at realism 0; the
    others at realism 1. With a `gain` of 0 the transmitter's half stays as it is: a step is then a
    fifth shorter.

    adversarial: of the discriminator of patches. In the task's blended classes (`driving`: sky and
    trees), whose exact texture matters to no one, LPIPS weighs `blended_weight`; in all others the
    discriminator of patches weighs `adversarial_elsewhere`.
    """

    squared: Weight = 10.0
    l1: Weight = 1.0
    colour: Weight = 1.0
    perceptual: Weight = 3.0
    semantic: Weight = 0.3
    projected: Weight = 0.3
    adversarial: Weight = 0.0
    spectrum: Weight = 0.0
    features: Weight = 0.0
    gain: Weight = 0.2
    blended_weight: Share = 1.0
    adversarial_elsewhere: Share = 1.0


class RefinementTraining(Section):
    """Settings of one run. Times are minutes of training."""

    kind: Literal["refinement"] = "refinement"
    base: str = "streets"
    start: str | None = None
    """A file to start from: what a run leaves, or weights with a refinement."""
    output: str
    seed: int = 1
    sources: Annotated[list[Source], Field(min_length=1)]
    validation: Source
    task: str = "driving"
    crop: Pixels = 192
    batch_size: Annotated[int, Field(gt=0, multiple_of=2)] = 2
    learning_rate: Annotated[float, Field(gt=0)] = 6e-4
    discriminator_rate: Annotated[float, Field(gt=0)] = 4e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Share = 0.998
    adversarial_start: Share = 0.5
    realisms: Annotated[list[Literal[0, 1]], Field(min_length=1, default_factory=lambda: [0, 1])]
    """The decoders that steps train, in turn. With one of them alone the other stays as it is."""
    realisations: Literal[1, 2] = 1
    """With 2, a step draws each crop twice at realism 1, from two noises of the base:
    `energy_score` then rewards that the two differ."""
    redraw: Share = 0.15
    """Probability of a step to draw a picture of the bank anew."""
    bank: Annotated[int, Field(gt=0)] = 500
    """Pictures that the bank grows to; sources are sampled by their shares."""
    restrained: Annotated[list[str], Field(default_factory=list)]
    """Classes in which the decoder's networks correct nothing at realism 1; see
    `RefinementConfig`."""
    concealment: bool = False
    """Train the concealment of losses alone (`sqlink.model.concealment`), at realism 1, on pictures
    that all have losses."""
    predicted: Annotated[int, Field(ge=0)] = 24
    lossy_rank: Annotated[int, Field(ge=0)] = 16
    losses: RefinementLosses = RefinementLosses()
    max_minutes: Annotated[float, Field(gt=0)]
    lpips_weights: str | None = None
    threads: Annotated[int, Field(gt=0)] | None = None
    precision: Literal["32-true", "bf16-mixed", "auto"] = "32-true"
    """`auto` times some steps in float32 and with bfloat16, and takes the faster."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    validate_minutes: Annotated[float, Field(gt=0)] = 10.0


class RefinementTrainer:
    """The state of one run."""

    def __init__(self, config: RefinementTraining, report: Callable[[str], None]) -> None:
        self.config, self.report = config, report
        if config.crop % 16:
            raise ConfigError(f"crop: {config.crop} must be a multiple of 16, the side of a token")
        if config.threads:
            torch.set_num_threads(config.threads)
        self.precision: Precision = (
            fastest_precision(torch.device("cpu"), report)
            if config.precision == "auto"
            else config.precision
        )
        self.output = Path(config.output)
        self.journal = Journal(self.output, report)
        self.base = Base(config.base)
        self.task = load_task(config.task, _classes_of(self.base.model))
        self.lpips: LPIPS = load_lpips(config.lpips_weights)
        self.tx = self.base.tx
        restrained = tuple(self.task.classes.index(name) for name in config.restrained)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            sizes = (config.predicted, config.lossy_rank) if config.concealment else (0, 0)
            self.network = refinement_for(self.base, restrained, *sizes)
            channels_last(self.network)  # bfloat16 is fast so
            probe = torch.zeros(1, 3, 64, 64)
            with torch.no_grad():
                seen = [*self.lpips.taps(probe)[1:6:2], *self.tx.network.features(probe)]
            self.critic = FeatureDiscriminator([view.shape[1] for view in seen])
            self.patch = PatchDiscriminator(self.base.labels - 1)
        alone = config.realisms == [1] and not config.losses.gain
        if config.concealment and (config.start is None or not alone):
            raise ConfigError(
                "concealment: it needs a `start` whose losses it conceals, `realisms: [1]` and "
                "`losses: {gain: 0}`"
            )
        if config.start is not None:
            self._start(load_refinement(Path(config.start)))
        named = list(self.network.named_parameters())
        self.gain_parameters = [p for name, p in named if name.startswith("encoder.")]
        self.pixel_parameters = [p for name, p in named if not name.startswith("encoder.")]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=1e-4,
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=config.discriminator_rate, betas=(0.5, 0.99)
        )
        self.patch_optimizer = torch.optim.AdamW(
            self.patch.parameters(),
            lr=config.discriminator_rate,
            betas=(0.5, 0.99),
            weight_decay=0.0,
        )
        self.weights = self.task.tensors()[1]
        self.relevance = torch.cat((self.weights, self.weights.min().view(1)))
        self.step, self.seconds = 0, 0.0
        self.interruption = Interruption()
        self.bank = Bank(
            self.base,
            config.sources,
            config.crop,
            config.bank,
            config.realisms,
            config.realisations,
            lossy=config.concealment,
        )
        self.held_out: list[Entry] = []

    def _start(self, state: dict[str, Tensor]) -> None:
        """Load what a run starts from. A concealment may be new; without one to be trained, that of
        the start is left out, as it is of the decoder before.
        """
        if not self.config.concealment:
            state = {k: v for k, v in state.items() if not k.startswith(CONCEALMENT)}
        try:
            missing, unknown = self.network.load_state_dict(state, strict=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"start: {self.config.start} does not fit: {reason}") from None
        wrong = [name for name in missing if not name.startswith(CONCEALMENT)] + unknown
        if wrong:
            raise ConfigError(f"start: tensors are missing or unknown, {wrong[0]} among them")
        if self.config.concealment:
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(name.startswith(CONCEALMENT))

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / 60 / self.config.max_minutes)

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.safetensors"

    def save(self) -> None:
        """Write the checkpoint, and the moving average beside it."""
        save_checkpoint(
            self.checkpoint_path,
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "critic": self.critic.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "critic_optimizer": self.critic_optimizer.state_dict(),
                "patch": self.patch.state_dict(),
                "patch_optimizer": self.patch_optimizer.state_dict(),
            },
            step=self.step,
            seconds=self.seconds,
            model=self.network.config.to_json(),
            base=self.base.sha256,
        )
        export(self.average, self.output / "refinement.safetensors")

    def resume(self) -> bool:
        """Resume from the checkpoint if there is one. Raises ConfigError if it is of another
        model or base.
        """
        if not self.checkpoint_path.exists():
            return False
        state, facts = load_checkpoint(self.checkpoint_path)
        if (facts["model"], facts["base"]) != (self.network.config.to_json(), self.base.sha256):
            raise ConfigError(
                f"{self.checkpoint_path} is of another model or base: name another `output`"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.patch.load_state_dict(state["patch"])
        self.patch_optimizer.load_state_dict(state["patch_optimizer"])
        self.step, self.seconds = facts["step"], facts["seconds"]
        return True

    def advance(self) -> dict[str, float]:
        """Take one step of the refinement and of its discriminator."""
        config, weights = self.config, self.config.losses
        generator = step_generator(config.seed, self.step, 0, torch.device("cpu"))
        bank = self.bank.entries
        if not bank or torch.rand(1, generator=generator) < config.redraw:
            self.bank.grow(generator)
        count, side = config.batch_size, config.crop // 16
        realism = config.realisms[self.step % len(config.realisms)]
        times = config.realisations if realism == 1 else 1
        chosen = [
            bank[int(n)] for n in torch.randint(len(bank), (count // times,), generator=generator)
        ]
        where = [
            (
                int(torch.randint(e.tokens.shape[1] - side + 1, (1,), generator=generator)),
                int(torch.randint(e.tokens.shape[2] - side + 1, (1,), generator=generator)),
            )
            for e in chosen
        ]
        images = _cut([e.image for e in chosen], where, 16, side).float() / 255
        sent = _cut([e.sent for e in chosen], where, 16, side).long()
        labels = _cut([e.labels for e in chosen], where, 16, side).long()
        views = [e.drawn[realism].base[k] for e in chosen for k in range(times)]
        places = [place for place in where for _ in range(times)]
        coarse, fine, picture = (
            _cut([view[part] for view in views], places, scale, side).float()
            for part, scale in enumerate((2, 4, 16))
        )
        base = coarse, fine, picture
        rate = self._rate()
        for optimizer, most in (
            (self.optimizer, config.learning_rate),
            (self.critic_optimizer, config.discriminator_rate),
            (self.patch_optimizer, config.discriminator_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = most * rate

        shares = class_shares(sent, self.base.labels - 1)
        known8, _, known = (
            _cut([e.drawn[realism].known[part] for e in chosen], where, scale, side).float()
            for part, scale in enumerate((2, 4, 16))
        )
        encoder = self.network.encoder
        steps = self.network.config.steps
        lowest, highest = _STEPS_FROM_TO[realism]
        place = lowest + (highest - lowest) * torch.rand(len(chosen), generator=generator)
        step = steps[0] * (steps[-1] / steps[0]) ** place
        with autocast(images.device, self.precision):
            with torch.set_grad_enabled(weights.gain > 0):
                if realism == 0:
                    found = encoder.without_errors(images, known)
                else:
                    found = encoder(images, shares, known, known8)
            sent_ = encoder.digits(_as_float32(found), step)
            came8, came4 = self._came(sent_, shares, realism, place, generator)
            if config.concealment:
                lost = torch.tensor([e.drawn[realism].loss for e in chosen])
                came8, came4 = (_left_of(came, lost, generator) for came in (came8, came4))
            images, labels, sent = (
                part.repeat_interleave(times, 0) for part in (images, labels, sent)
            )
            tokens = (
                part.repeat_interleave(times, 0)
                for part in (sent_.digits8, came8, sent_.digits4, came4, step)
            )
            digits8, there8, digits4, there4, size = tokens
            rebuilt = self.network.decoded(
                realism, base, (digits8, there8, digits4, there4), size, sent, config.concealment
            )
        terms, errors = self._losses(
            rebuilt.float(), images, labels, sent, realism, times, generator
        )
        if weights.gain > 0 and errors:
            terms["gain"] = weights.gain * self._gain_loss(found, step, came8, came4, errors)
        total = torch.stack([t.float() for t in terms.values()]).sum()
        if not torch.isfinite(total):
            raise SQLinkError(
                f"training stopped at step {self.step}: a loss is not finite; the last checkpoint "
                f"is kept in {self.checkpoint_path}; lower learning_rate and run again"
            )
        self.optimizer.zero_grad()
        total.backward()
        for parameters in (self.pixel_parameters, self.gain_parameters):
            nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        self.optimizer.step()
        follow(
            self.average, self.network, min(config.ema_decay, (1 + self.step) / (10 + self.step))
        )
        self.step += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def _came(
        self,
        found: Digits,
        shares: Tensor,
        realism: int,
        place: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Draw which units of tokens of both layers arrive, bool [N, h, w] of tokens each.

        The shares are about those of the paths of rates (`sqlink.codecs.sqgan.rate_path`), or
        any; the choice is by estimated gain, weighted by relevance, with enough chance that every
        place occurs both kept and masked.

        place: [N], of the quantiser's step, 0 the coarsest, 1 the finest.
        """
        n = len(shares)

        def uniform() -> Tensor:
            return torch.rand(n, generator=generator)

        draw, amount = uniform(), uniform()
        any8 = torch.where(draw < 0.15, 0.0, torch.where(draw < 0.65, 1.0, amount))
        draw, amount = uniform(), uniform()
        some4 = torch.where(draw < 0.15, 0.0, torch.where(draw < 0.65, 1.0, amount))
        few4 = torch.where(draw < 0.7, 0.0, 0.3 * amount)
        any4 = torch.where(any8 >= 0.5, some4, few4)
        draw, amount, other, way = uniform(), uniform(), uniform(), uniform()
        # 1/8 first, then 1/4, at the finer steps
        own8 = torch.where(draw < 0.6, 1.0, 0.25 + 0.75 * amount)
        fine = torch.where(other < 0.3, 1.0, 0.6 * other)
        coarse = 0.15 * (other - 0.5).clamp(min=0)
        own4 = torch.where((place > 0.4) & (draw < 0.8), fine, coarse)
        if realism == 1:  # or 1/4 first
            few = torch.where(place < 0.62, 0.6 * amount, 0.3 + 0.7 * amount)
            few = torch.where(place < 0.45, 0.25 * amount, few)
            few = torch.where(draw < 0.12, 0.0, few)
            most = torch.where(draw < 0.12, 0.0, torch.where(draw < 0.75, 1.0, other))
            quarter_first = uniform() < 0.5
            own8 = torch.where(quarter_first, few, own8)
            own4 = torch.where(quarter_first, most, own4)
        fraction8, fraction4 = (
            torch.where(way < 0.65, own, any_) for own, any_ in ((own8, any8), (own4, any4))
        )
        masks = []
        for gains, scale, fraction in (
            (found.gains8, 2, fraction8),
            (found.gains4, 1, fraction4),
        ):
            kind = int(torch.randint(gains.shape[1], (1,), generator=generator)) * realism
            score = _of_units(gains.detach()[:, kind])
            relevance = (F.avg_pool2d(shares, 2 * scale) * self.relevance.view(1, -1, 1, 1)).sum(1)
            if torch.rand(1, generator=generator) < (0.15, 0.5)[realism]:
                score = score * relevance
            spread = 2 * float(torch.rand(1, generator=generator)) ** 2
            noise = torch.rand(score.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
            ranking = score.clamp(min=1e-8).log() + spread * (noise / (1 - noise)).log()
            kept = keep_most_relevant(ranking, fraction)
            lossy = ((way > 0.8) & (uniform() < 0.3)).float() * 0.5 * uniform()
            kept &= torch.rand(kept.shape, generator=generator) >= lossy.view(-1, 1, 1)
            masks.append(_tokens_of(kept))
        return masks[0], masks[1]

    @torch.no_grad()
    def _whole_tokens(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield values and places of the tokens at 1/8 of the bank's pictures, without losses."""
        encoder = self.network.encoder
        for entry in self.bank.entries:
            drawn = entry.drawn[1]
            known = drawn.known[2][None].float()
            found = encoder.without_errors(entry.image[None].float() / 255, known)
            for size in _FITTED_AT:
                step = torch.tensor([size])
                digits = encoder.digits(found, step).digits8
                yield digits * size, torch.ones_like(digits[:, 0], dtype=torch.bool)

    def _losses(
        self,
        rebuilt: Tensor,
        images: Tensor,
        labels: Tensor,
        sent: Tensor,
        realism: int,
        times: int,
        generator: torch.Generator,
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return the weighted losses, and at realism 1 errors by 4x4 pixels, [n, H/4, W/4].

        times: realisations of each of the n crops.
        """
        weights = self.config.losses
        if realism == 0:
            error = (rebuilt - images).square().mean((1, 2, 3)).sqrt().mean()
            return {"squared": weights.squared * error}, ()
        ours, theirs = rebuilt, images
        terms = {}
        terms["l1"] = weights.l1 * image_loss(ours, theirs, labels, self.weights)
        terms["colour"] = weights.colour * colour_loss(ours, theirs)
        clamped = ours + (ours.clamp(0, 1) - ours).detach()
        found = self.lpips.taps(clamped)
        seen = self.tx.network.features(clamped)
        with torch.no_grad():
            wanted = self.lpips.taps(theirs)
            true = self.tx.network.features(theirs)
        distance = lpips_map(self.lpips, found, wanted, ours.shape[-1] // 4)
        exact: Tensor | None = None
        if weights.blended_weight < 1:
            blended = is_one_of(sent, self.task.blended).float()
            exact = 1 - (1 - weights.blended_weight) * blended
        terms["perceptual"] = weights.perceptual * energy_score(
            self.lpips, found, wanted, exact, times
        )
        if weights.spectrum:
            terms["spectrum"] = weights.spectrum * spectrum_loss(clamped, theirs)
        if weights.features:
            terms["features"] = weights.features * features_loss(
                seen, true, weight=exact, realisations=times
            )
        logits = self.tx.network.classes(*seen)
        step = images.shape[-1] // logits.shape[-1]  # pixels for a place of the logits
        sampled = sent[:, step // 2 :: step, step // 2 :: step]
        crossed = F.cross_entropy(logits, sampled, reduction="none", ignore_index=NO_LABEL)
        relevance = self.relevance[sampled.clamp(max=len(self.relevance) - 1)]
        crossed = crossed * relevance
        terms["semantic"] = weights.semantic * crossed.sum() / relevance.sum()
        if weights.projected and self.progress >= self.config.adversarial_start:
            terms["projected"] = weights.projected * self._play(
                [*found[1:6:2], *seen], [*wanted[1:6:2], *true]
            )
        if weights.adversarial and self.progress >= self.config.adversarial_start:
            terms["adversarial"] = weights.adversarial * self._play_patches(
                clamped, theirs, sent, generator
            )
        errors = (
            distance.detach().unflatten(0, (-1, times)).mean(1),
            F.avg_pool2d(crossed.detach(), 4 // step).unflatten(0, (-1, times)).mean(1),
        )
        return terms, errors

    def _play(self, found: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Play one round against the discriminator of features, which learns first."""
        real = [unit_power(w, w) for w in wanted]
        fake = [unit_power(f, w) for f, w in zip(found, wanted, strict=True)]
        pairs = [torch.cat((r, f.detach())) for r, f in zip(real, fake, strict=True)]
        verdicts = [hinge_discriminator(*v.chunk(2)) for v in self.critic(pairs)]
        self.critic_optimizer.zero_grad()
        torch.stack(verdicts).mean().backward()
        self.critic_optimizer.step()
        self.critic.requires_grad_(False)
        opinion = torch.stack([-v.mean() for v in self.critic(fake)]).mean()
        self.critic.requires_grad_(True)
        return opinion

    def _play_patches(
        self, ours: Tensor, theirs: Tensor, sent: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Play one round against the discriminator of patches, which learns first."""
        real, fake = (
            part + GRAIN * torch.randn(part.shape, generator=generator) for part in (theirs, ours)
        )
        verdicts, _ = self.patch(torch.cat((real, fake.detach())), sent.repeat(2, 1, 1))
        self.patch_optimizer.zero_grad()
        hinge_discriminator(*verdicts.chunk(2)).backward()
        self.patch_optimizer.step()
        self.patch.requires_grad_(False)
        verdict = self.patch(fake, sent)[0]
        self.patch.requires_grad_(True)
        blended = is_one_of(sent, self.task.blended).float().unsqueeze(1)
        least = self.config.losses.adversarial_elsewhere
        weight = least + (1 - least) * F.adaptive_avg_pool2d(blended, verdict.shape[2:])
        opinion: Tensor = -(weight * verdict).mean()
        return opinion

    def _gain_loss(
        self,
        found: Coefficients,
        step: Tensor,
        came8: Tensor,
        came4: Tensor,
        errors: tuple[Tensor, ...],
    ) -> Tensor:
        """Return the error of the predicted logarithms of errors, in the state of each place."""
        total = found.errors8.new_zeros(())
        for estimates, came, pool in ((found.errors8, came8, 2), (found.errors4, came4, 1)):
            estimated = errors_at(estimates.float(), step)
            for kind, error in enumerate(errors):
                said = estimated[:, :, kind]  # N×2×h×w
                said = torch.where(came, said[:, 1], said[:, 0])
                truth = (F.avg_pool2d(error.unsqueeze(1), pool).squeeze(1) + _FLOORS[kind]).log()
                total = total + F.smooth_l1_loss(said, truth)
        return total

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure PSNR at realism 0, with hardly any of the base's map, LPIPS at realism 1, with
        all of the base, and about the bpp of held-out pictures, with shares of both layers.
        """
        if not self.held_out:
            data = open_dataset(self.config.validation.name, **self.config.validation.options)
            for number in torch.linspace(0, len(data) - 1, _HELD_OUT).long().tolist():
                sample = data[number]
                entry = self.base.analysed(sample.image, sample.segmentation)
                few = keep_most_relevant(entry.scores, torch.tensor([1.0, FEW_OF_MAP]))
                lost = _HELD_OUT_LOSS if self.config.concealment else 0.0
                for realism, sent in enumerate((few, torch.ones_like(few))):
                    if realism in self.config.realisms:
                        came = sent & (torch.rand(sent.shape, generator=_fixed()) >= lost)
                        self.base.draw(entry, realism, sent, came, loss=lost)
                self.held_out.append(entry)
        figures: dict[str, float] = {}
        for realism, point in (
            (realism, point) for realism, some in enumerate(_POINTS) for point in some
        ):
            if realism not in self.config.realisms:
                continue
            found = np.mean([self._measured(entry, realism, point) for entry in self.held_out], 0)
            name = f"{realism}_" + "_".join(f"{part:g}" for part in point)
            figures[f"{('psnr', 'lpips')[realism]}_{name}"] = float(found[0])
            figures[f"bpp_{name}"] = float(found[1])
        return figures

    def _measured(
        self, entry: Entry, realism: int, point: tuple[float, float, float]
    ) -> tuple[float, float]:
        """Return PSNR or LPIPS, and about the bpp of the refinement, of a held-out picture.

        point: the shares of both layers and the quantiser's step.
        """
        encoder, drawn = self.average.encoder, entry.drawn[realism]
        image, sent = entry.image[None].float() / 255, entry.sent[None].long()
        known8, _, known = (part[None].float() for part in drawn.known)
        coarse, fine, picture = (part[None].float() for part in drawn.base[0])
        found = encoder(image, class_shares(sent, self.base.labels - 1), known, known8)
        step = torch.tensor(point[2:])
        digits = encoder.digits(found, step)
        came8, came4 = (
            _tokens_of(keep_most_relevant(_of_units(gains[:, realism]), torch.tensor([share])))
            for gains, share in zip((digits.gains8, digits.gains4), point[:2], strict=True)
        )
        lossy = self.config.concealment
        if lossy:
            lost = torch.tensor([drawn.loss])
            came8, came4 = (_left_of(came, lost, _fixed()) for came in (came8, came4))
        tokens = digits.digits8, came8, digits.digits4, came4
        out = self.average.decoded(realism, (coarse, fine, picture), tokens, step, sent, lossy)
        out = out.clamp(0, 1)
        if realism == 0:
            quality = -10 * float((out - image).square().mean().log10())
        else:
            quality = float(self.lpips(out, image))
        bits = _bits(digits.digits8, came8) + _bits(digits.digits4, came4)
        return quality, bits / image[0, 0].numel()

    def run(self) -> Path:
        """Train until the minutes are spent; Ctrl-C ends the step and saves."""
        self.output.mkdir(parents=True, exist_ok=True)
        with self.interruption.deferred():
            self._run()
        return self.output / "refinement.safetensors"

    def _run(self) -> None:
        generator = torch.Generator().manual_seed(self.config.seed + self.step)
        first = 24 if self.network.prediction is None else 72
        while len(self.bank.entries) < min(first, self.bank.size):
            self.bank.grow(generator)
        if self.step == 0 and self.network.prediction is not None:
            self.network.prediction.fit(self._whole_tokens())
            follow(self.average, self.network, 0.0)
        if self.step == 0:
            side = self.config.crop
            crops = torch.stack([e.image[:, :side, :side] for e in self.bank.entries])
            self.patch.whiten_by(crops.float() / 255, GRAIN)
        last = time.monotonic()
        saved = checked = self.seconds
        seen: dict[str, list[float]] = {}
        since = 0
        while self.progress < 1:
            for name, value in self.advance().items():
                seen.setdefault(name, []).append(value)
            since += 1
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if self.interruption.asked:
                self.save()
                self.report(f"stopped at step {self.step}; the same command goes on from there")
                raise KeyboardInterrupt
            if (
                self.seconds - checked >= 60 * self.config.validate_minutes
                or self.progress >= 1
                or self.step == 40
            ):
                row: dict[str, float | str] = {
                    "step": self.step,
                    "minutes": round(self.seconds / 60, 2),
                    "bank": len(self.bank.entries),
                    "crops_per_s": since * self.config.batch_size / (self.seconds - checked + 1e-9),
                }
                row |= {name: float(np.mean(values)) for name, values in seen.items()}
                row |= self.validate()
                self.journal.write(self.step, row)
                seen, since, checked, last = {}, 0, self.seconds, time.monotonic()
            if self.seconds - saved >= 60 * self.config.checkpoint_minutes:
                self.save()
                saved, last = self.seconds, time.monotonic()
        self.save()


def refinement_for(
    base: Base, restrained: tuple[int, ...] = (), predicted: int = 0, lossy_rank: int = 0
) -> Refinement:
    """Make an untrained refinement of the base's sizes; see `RefinementConfig`."""
    config = RefinementConfig(restrained=restrained, predicted=predicted, lossy_rank=lossy_rank)
    return Refinement(config, base.labels, *base.widths)


def class_shares(segmentation: Tensor, classes: int) -> Tensor:
    """Return shares of classes in 4x4 pixels: int64 [N, H, W] to [N, classes + 1, H/4, W/4]."""
    from sqlink.model.spade import Cells

    return Cells.of(segmentation, classes, 4).shares(1)


def lpips_map(lpips: LPIPS, ours: list[Tensor], theirs: list[Tensor], side: int) -> Tensor:
    """Return LPIPS place by place, [N, side, side]; its mean is LPIPS except at borders."""
    total: Tensor | None = None
    for head, a, b in zip(lpips.heads, ours, theirs, strict=True):
        distance = ((a - b).square() * head).sum(1, keepdim=True)
        part = F.interpolate(distance, (side, side), mode="bilinear", align_corners=False)
        total = part if total is None else total + part
    assert total is not None
    return total.squeeze(1)


def train_refinement(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train as a YAML file says, from the checkpoint in its output if there is one."""
    trainer = RefinementTrainer(load_settings(path, RefinementTraining), report)
    if trainer.resume():
        report(f"going on from step {trainer.step} ({trainer.seconds / 60:.1f} minutes done)")
    return trainer.run()


def _classes_of(model: SQGAN) -> Any:
    from sqlink.data.classes import class_set_of_size

    return class_set_of_size(model.config.num_classes)


def _of_units(scores: Tensor) -> Tensor:
    """Return the mean scores of units of 2x2 tokens: [N, 2 h, 2 w] to [N, h, w]."""
    return F.avg_pool2d(scores.unsqueeze(1), 2).squeeze(1)


def _tokens_of(units: Tensor) -> Tensor:
    """Return for the tokens what holds of their units: [N, h, w] to [N, 2 h, 2 w]."""
    return units.repeat_interleave(2, 1).repeat_interleave(2, 2)


def _left_of(came: Tensor, lost: Tensor, generator: torch.Generator) -> Tensor:
    """Return which tokens, bool [N, 2 h, 2 w], are left if a share of their units is lost, [N]."""
    units = torch.rand((len(came), *(side // 2 for side in came.shape[1:])), generator=generator)
    return came & _tokens_of(units >= lost.view(-1, 1, 1))


def _fixed() -> torch.Generator:
    """Return a generator of the losses of held-out pictures."""
    return torch.Generator().manual_seed(11)


def _as_float32(found: Coefficients) -> Coefficients:
    """Convert to float32, whatever precision the networks ran at."""
    return Coefficients(*(getattr(found, field.name).float() for field in fields(found)))


def _cut(parts: list[Tensor], where: list[tuple[int, int]], scale: int, side: int) -> Tensor:
    """Cut crops of side x side base tokens from tensors of `scale` places a token."""
    return torch.stack(
        [
            p[..., top * scale : (top + side) * scale, left * scale : (left + side) * scale]
            for p, (top, left) in zip(parts, where, strict=True)
        ]
    )


def _bits(values: Tensor, kept: Tensor) -> float:
    """Return the zeroth-order entropy of kept values, each of a token alone, and of the mask."""
    chosen = values.permute(0, 2, 3, 1)[kept]
    total = 0.0
    for column in chosen.unbind(1):
        if len(column):
            counts = column.unique(return_counts=True)[1].float()
            total += float(-(counts * (counts / counts.sum()).log2()).sum())
    share = kept.float().mean()
    total += (
        float(-(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)))
        / math.log(2)
        * kept.numel()
    )
    return total
