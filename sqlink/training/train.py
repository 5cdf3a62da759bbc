"""Training of SQ-GAN from a YAML file: both branches together, within a budget of time or steps.

    crops (x, s) ── E, SAMM, VQ ── mask, losses of tokens ── ADM, D ── x̂, ŝ ── losses

Data stay on the device, every step draws from a generator of its own, and a checkpoint holds all
that a run is, so that one which was stopped goes on as if it had not been. `output/` receives
`checkpoint.safetensors`, `NAME.safetensors` (the moving average of the weights, ready to be used as
`--weights`), `log.csv` and `samples.png`.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.data.base import open_dataset
from sqlink.data.classes import NO_LABEL, PALETTE
from sqlink.errors import ConfigError, DataError, SQLinkError, WeightsError
from sqlink.model.config import ModelConfig, model_config
from sqlink.model.discriminator import PatchDiscriminator, blend_towards_real
from sqlink.model.memory import channels_last
from sqlink.model.samm import keep_most_relevant
from sqlink.model.spade import one_hot_map
from sqlink.model.sqgan import SQGAN
from sqlink.settings import settings_kind
from sqlink.training.augmentation import (
    PHASES,
    CropSettings,
    ResidentPictures,
    draw_crops,
    draw_fractions,
    draw_losses,
    draw_window,
    step_generator,
)
from sqlink.training.checkpoint import State, follow, load_checkpoint, save_checkpoint
from sqlink.training.config import Source, TrainConfig, load_train_config
from sqlink.training.losses import (
    BLENDED_CLASSES,
    IMAGE_RELEVANCE,
    MAP_RELEVANCE,
    class_weights,
    colour_loss,
    feature_matching,
    hinge_discriminator,
    image_loss,
    map_loss,
)


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms.values()]).sum()


def _laid_out(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@dataclass
class Rebuilt:
    """One pass through both halves of the codec."""

    images: Tensor
    logits: Tensor
    commitment: Tensor


class ThroughTheLink(nn.Module):
    """SQ-GAN's training pass: what is masked or lost on the way is masked here."""

    def __init__(self, network: SQGAN) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        images: Tensor,
        segmentation: Tensor,
        fractions: tuple[Tensor, Tensor],
        arrived: tuple[Tensor, Tensor],
        true_map: bool,
    ) -> Rebuilt:
        """images [N, 3, H, W]; segmentation [N, H, W]; (image, map) fractions [N] and arrivals
        [N, h, w].
        """
        net = self.network
        v_x, scores_x, v_s, scores_s = net.encode_vectors(images, segmentation)
        kept_x = keep_most_relevant(scores_x.detach(), fractions[0])
        kept_s = keep_most_relevant(scores_s.detach(), fractions[1])
        codes_x, _, commit_x = net.image_quantizer(v_x, kept_x)
        codes_s, _, commit_s = net.map_quantizer(v_s, kept_s)
        logits = net.decode_map(codes_s, kept_s & arrived[1])
        steering = segmentation if true_map else logits.argmax(1)
        labels = one_hot_map(steering, net.config.num_classes)
        rebuilt = net.decode_image(codes_x, kept_x & arrived[0], labels)
        return Rebuilt(rebuilt.float(), logits.float(), commit_x + commit_s)


def load_pictures(source: Source, segmenter: str | None, device: torch.device) -> ResidentPictures:
    """A whole data set on the device. Raises DataError if a picture has no map or another size."""
    data = open_dataset(source.name, **source.options)
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


class Trainer:
    """The state of one run: networks, optimisers, data, and how far it has come."""

    def __init__(self, config: TrainConfig, report: Callable[[str], None]) -> None:
        from lightning_fabric import Fabric

        if config.segmenter == "judge":
            raise ConfigError(
                "segmenter: 'judge' only measures and may not be trained against; use 'tx'"
            )
        if not any(source.share for source in config.sources):
            raise ConfigError("sources: every share is 0; give one above 0")
        self.model_config: ModelConfig = model_config(config.model)
        if any(side % self.model_config.downsampling for side in config.crop):
            raise ConfigError(
                f"crop: {list(config.crop)} must be multiples of {self.model_config.downsampling}, "
                f"the pixels a side of a token of '{config.model}'"
            )
        if config.device == "cuda" and torch.cuda.device_count() < config.devices:
            raise ConfigError(
                f"device: {config.devices} CUDA devices are asked for, "
                f"{torch.cuda.device_count()} are here: set `device: cpu` or fewer `devices`"
            )
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.report = report
        self.output = Path(config.output)
        self.fabric = Fabric(
            accelerator=config.device, devices=config.devices, precision=config.precision
        )
        self.fabric.launch()
        self.device = self.fabric.device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = channels_last(SQGAN(self.model_config))
            self.average = SQGAN(self.model_config).requires_grad_(False).eval()
            labels = self.model_config.num_classes + 1
            self.critic = channels_last(PatchDiscriminator(3 + labels))
        if config.start is not None:
            _load_weights(self.network, config.start)
        self.average.load_state_dict(self.network.state_dict())
        channels_last(self.average.to(self.device))
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            betas=(0.8, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(),
            lr=config.discriminator_rate,
            betas=(0.5, 0.99),
            weight_decay=0.0,
            fused=True,
        )
        self.generator, self.optimizer = self.fabric.setup(
            ThroughTheLink(self.network), self.optimizer
        )
        self.judge_of_patches, self.critic_optimizer = self.fabric.setup(
            self.critic, self.critic_optimizer
        )
        self.step = 0
        self.seconds = 0.0
        self.lpips: nn.Module | None = None
        if config.losses.lpips:
            from sqlink.metrics.perceptual import load_lpips

            self.lpips = channels_last(load_lpips(config.lpips_weights).to(self.device))
        self.segmenter: Any = None
        if config.losses.semantic:
            if config.segmenter is None:
                raise ConfigError("losses.semantic needs a segmenter: set `segmenter: tx`")
            from sqlink.segmentation import load_segmenter

            self.segmenter = load_segmenter(config.segmenter, device=str(self.device))
        classes = self.model_config.num_classes
        self.map_weights = class_weights(MAP_RELEVANCE, classes).to(self.device)
        self.image_weights = class_weights(IMAGE_RELEVANCE, classes).to(self.device)
        from sqlink.data.classes import NAMES

        self.blended = [NAMES.index(n) for n in BLENDED_CLASSES] if classes == len(NAMES) else []
        self.sources = [load_pictures(s, config.segmenter, self.device) for s in config.sources]
        self.shares = torch.tensor([s.share for s in config.sources], device=self.device)
        self.held_out: ResidentPictures | None = None
        if config.validation is not None:
            self.held_out = load_pictures(config.validation, config.segmenter, self.device)

    @property
    def progress(self) -> float:
        """0 to 1: the further of the two budgets."""
        steps, minutes = self.config.max_steps, self.config.max_minutes
        parts = [self.step / steps] if steps else []
        parts += [self.seconds / 60 / minutes] if minutes else []
        return min(1.0, max(parts))

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.safetensors"

    def save(self) -> None:
        """Write the checkpoint and, from the moving average, the weights that can be used."""
        if not self.fabric.is_global_zero:
            return
        state: State = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }
        save_checkpoint(
            self.checkpoint_path,
            state,
            step=self.step,
            seconds=self.seconds,
            model=self.model_config.to_json(),
        )

    def resume(self) -> bool:
        """Go on from the checkpoint where there is one. Raises ConfigError if it is another
        model's.
        """
        if not self.checkpoint_path.exists():
            return False
        state, facts = load_checkpoint(self.checkpoint_path)
        if facts.get("model") != self.model_config.to_json():
            raise ConfigError(
                f"{self.checkpoint_path} is of another model than '{self.config.model}': "
                "name another `output`, or remove it"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        for optimizer in (self.optimizer, self.critic_optimizer):
            _lay_out_as_parameters(optimizer)
        self.step, self.seconds = facts["step"], facts["seconds"]
        return True

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crops from the sources by their shares; see `draw_crops`."""
        count = self.config.batch_size
        owner = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        settings = CropSettings(self.config.crop, sent_share=0.5 if self.config.segmenter else 0.0)
        parts = []
        for number, pictures in enumerate(self.sources):
            chosen = torch.randint(
                len(pictures), (count,), generator=generator, device=self.device
            )[owner == number]
            if len(chosen):
                parts.append(draw_crops(pictures, chosen, settings, generator))
        images, maps, inputs = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return images.contiguous(memory_format=torch.channels_last), maps, inputs

    def advance(self) -> dict[str, float]:
        """One step of both players. Raises SQLinkError if a loss is not finite."""
        config, weights = self.config, self.config.losses
        generator = step_generator(config.seed, self.step, self.fabric.global_rank, self.device)
        images, maps, inputs = self.batch(generator)
        count = len(images)
        grid = (count, *self.model_config.grid(*config.crop))

        def uniform(low: float, high: float, size: int = count) -> Tensor:
            draw = torch.rand(size, generator=generator, device=self.device)
            return low + (high - low) * draw

        fractions = (
            draw_fractions(count, config.image_fraction, generator),
            draw_fractions(count, config.map_fraction, generator),
        )
        arrived = [draw_losses(grid, config.token_loss, generator) for _ in range(2)]
        silent = uniform(0, 1)
        arrived[0] &= (silent >= config.stream_loss / 2).view(-1, 1, 1)
        arrived[1] &= (silent < 1 - config.stream_loss / 2).view(-1, 1, 1)
        true_map = bool(uniform(0, 1, 1) < config.true_map_share)
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * rate
        for group in self.critic_optimizer.param_groups:
            group["lr"] = config.discriminator_rate * rate

        out = self.generator(images, inputs, fractions, (arrived[0], arrived[1]), true_map)
        rest = {
            "map": weights.map * map_loss(out.logits, inputs, self.map_weights),
            "commitment": weights.commitment * out.commitment,
        }
        rebuilt = out.images.detach().requires_grad_()
        terms = self._picture_losses(rebuilt, images, maps, generator)
        slope = torch.autograd.grad(_sum(terms), rebuilt)[0]
        adversarial = self.progress >= config.adversarial_start and (
            weights.adversarial > 0 or weights.feature_matching > 0
        )
        if adversarial:
            slope = slope + self._play(out.images, rebuilt, images, inputs, slope, terms, generator)
        total = _sum(rest)
        if not (torch.isfinite(total) and torch.isfinite(slope).all()):
            raise SQLinkError(
                f"training stopped at step {self.step}: a loss is not finite; the last checkpoint "
                f"is kept in {self.checkpoint_path}; lower learning_rate and run again"
            )
        self.optimizer.zero_grad()
        self.fabric.backward(total + (out.images * slope).sum())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimizer.step()
        terms |= rest
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        follow(self.average, self.network, decay)
        self.step += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def _picture_losses(
        self, rebuilt: Tensor, images: Tensor, maps: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What the rebuilt picture is held against the original for, weighted."""
        weights = self.config.losses
        terms = {
            "l1": weights.l1 * image_loss(rebuilt, images, maps, self.image_weights),
            "colour": weights.colour * colour_loss(rebuilt, images),
        }
        clamped = rebuilt + (rebuilt.clamp(0, 1) - rebuilt).detach()
        window = draw_window(images.shape[-2:], generator)
        if self.lpips is not None:
            shown = _laid_out(clamped[window]), _laid_out(images[window])
            terms["lpips"] = weights.lpips * self.lpips(*shown).mean()
        if self.segmenter is not None:
            predicted = self.segmenter.logits(_laid_out(clamped[window]))
            terms["semantic"] = weights.semantic * F.cross_entropy(
                predicted.float(), maps[window[0], *window[2:]], ignore_index=NO_LABEL
            )
        return terms

    def _play(
        self,
        output: Tensor,
        rebuilt: Tensor,
        images: Tensor,
        inputs: Tensor,
        slope: Tensor,
        terms: dict[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """One round against the discriminator: it learns, and then judges the rebuilt picture.

        output: what the decoder gave, with its graph; rebuilt: the same as a leaf; slope: the
        gradient of the other losses at it, that the adversarial one is measured against. Adds its
        terms to `terms` and returns their gradient at the rebuilt picture.
        """
        config, weights = self.config, self.config.losses
        height, width = images.shape[-2:]
        window = draw_window((height, width), generator, (height - PHASES, width // 2))
        labels = one_hot_map(inputs[window[0], *window[2:]], self.model_config.num_classes)
        shown = blend_towards_real(
            rebuilt[window],
            images[window],
            inputs[window[0], *window[2:]],
            self.blended,
            config.blend_share,
        )
        fake = _laid_out(torch.cat((2 * shown - 1, labels), 1))
        real = _laid_out(torch.cat((2 * images[window] - 1, labels), 1))
        verdicts, features = self.judge_of_patches(torch.cat((real, fake.detach())))
        loss = hinge_discriminator(*verdicts.chunk(2))
        self.critic_optimizer.zero_grad()
        self.fabric.backward(loss)
        self.critic_optimizer.step()
        self.critic.requires_grad_(False)
        verdict, found = self.judge_of_patches(fake)
        self.critic.requires_grad_(True)
        ramp = min(1.0, (self.progress - config.adversarial_start) / 0.05 + 0.1)
        wanted = [feature.chunk(2)[0] for feature in features]
        matching = ramp * weights.feature_matching * feature_matching(found, wanted)
        adversarial = -verdict.mean()
        slope_of_matching = torch.autograd.grad(matching, rebuilt, retain_graph=True)[0]
        slope_of_verdict = torch.autograd.grad(adversarial, rebuilt)[0]
        last = self.network.image_decoder.conv_out.weight
        norms = [
            torch.autograd.grad(output, last, part, retain_graph=True)[0].norm()
            for part in (slope, slope_of_verdict)
        ]
        share = (weights.adversarial * norms[0] / (norms[1] + 1e-6)).clamp(
            max=weights.adversarial_most
        )
        terms["critic"] = loss.detach()
        terms["adversarial"] = adversarial.detach()
        terms["adversarial_weight"] = share.detach()
        terms["feature_matching"] = matching.detach()
        return slope_of_matching + ramp * share * slope_of_verdict

    def _rate(self) -> float:
        """Linear warm-up, then a cosine down to 2 % of the learning rate."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_steps))
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
            "val_codes_image": float(len(found.image_indices.unique())),
            "val_codes_map": float(len(found.map_indices.unique())),
        }
        if self.lpips is not None:
            figures["val_lpips"] = float(self.lpips(rebuilt, images).mean())
        if self.fabric.is_global_zero:
            self._draw(images, rebuilt, sent, maps, found.image_scores)
        return figures

    def _draw(
        self, images: Tensor, rebuilt: Tensor, sent: Tensor, maps: Tensor, scores: Tensor
    ) -> None:
        """`samples.png`: a column a picture; original, rebuilt, map sent, map decoded,
        relevance.
        """
        from PIL import Image

        palette = torch.tensor([*PALETTE] + [(0, 0, 0)] * (256 - len(PALETTE)), dtype=torch.uint8)
        relevance = F.interpolate(
            scores.unsqueeze(1).float(), scale_factor=self.model_config.downsampling
        )[..., : images.shape[-2], : images.shape[-1]]
        low, high = relevance.amin((1, 2, 3), True), relevance.amax((1, 2, 3), True)
        relevance = ((relevance - low) / (high - low + 1e-9)).expand(-1, 3, -1, -1)
        rows = [
            images,
            rebuilt,
            *(palette[m.cpu()].permute(0, 3, 1, 2) / 255 for m in (sent, maps)),
        ]
        rows.append(relevance)
        sheet = torch.cat([torch.cat(list(row.cpu()[:4]), dim=-1) for row in rows], dim=-2)
        pixels = (sheet.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        aside = self.output / "samples.part.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(aside)
        os.replace(aside, self.output / "samples.png")

    @torch.inference_mode()
    def export(self, pictures_a_source: int | None = None) -> Path:
        """Write `NAME.safetensors`: the moving average, the codes' counts, the record of the run.

        The counts are of every training picture, or of that many spread over each source.
        """
        from sqlink.bitstream.relevance import fit_table
        from sqlink.bitstream.tables import Tables
        from sqlink.weights.manifest import save

        found = []
        for source in self.sources:
            count = min(pictures_a_source or len(source), len(source))
            chosen = torch.linspace(0, len(source) - 1, count).long().to(self.device)
            for part in chosen.split(8):
                images = source.images[part].float() / 255
                found.append(self.average.analyse(images, source.sent_maps[part].long()))
        tables = []
        for indices, scores, quantizer in (
            ("map_indices", "map_scores", self.average.map_quantizer),
            ("image_indices", "image_scores", self.average.image_quantizer),
        ):
            tables.append(
                fit_table(
                    [getattr(part, indices).cpu().numpy() for part in found],
                    [getattr(part, scores).float().cpu().numpy() for part in found],
                    quantizer.codes,
                    quantizer.codebook.float().cpu().numpy(),
                )
            )
        tensors = self.average.state_dict() | Tables(*tables).to_tensors()
        path = self.output / f"{self.config.model}.safetensors"
        save(
            path,
            tensors,
            {
                "kind": "sqgan",
                "model": self.model_config.to_json(),
                "steps": str(self.step),
                "minutes": f"{self.seconds / 60:.1f}",
                "batch_size": str(self.config.batch_size * self.fabric.world_size),
                "data": ", ".join(s.name for s in self.config.sources),
                "trained_on": "lpips" if self.config.losses.lpips else "",
            },
        )
        return path

    def run(self) -> Path:
        """Train until the budget is spent. Ctrl-C saves a checkpoint first. Returns the weights'
        path.
        """
        config = self.config
        self.output.mkdir(parents=True, exist_ok=True)
        last = time.monotonic()
        saved = checked = self.seconds
        sums: dict[str, float] = {}
        since = 0
        try:
            while self.progress < 1:
                for name, value in self.advance().items():
                    sums[name] = sums.get(name, 0.0) + value
                since += 1
                now = time.monotonic()
                self.seconds, last = self.seconds + now - last, now
                if self.seconds - checked >= 60 * config.validate_minutes or self.progress >= 1:
                    figures = {name: value / since for name, value in sums.items()}
                    self._log(figures | self.validate(), since, self.seconds - checked)
                    self.export(pictures_a_source=32)
                    sums, since, checked, last = {}, 0, self.seconds, time.monotonic()
                if self.seconds - saved >= 60 * config.checkpoint_minutes:
                    self.save()
                    saved, last = self.seconds, time.monotonic()
        except KeyboardInterrupt:
            self.save()
            self.report(f"stopped at step {self.step}; the same command goes on from there")
            raise
        self.save()
        return self.export()

    def _log(self, figures: dict[str, float], steps: int, seconds: float) -> None:
        if not self.fabric.is_global_zero:
            return
        rate = steps * self.config.batch_size * self.fabric.world_size / max(seconds, 1e-9)
        row = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "crops_per_s": round(rate, 2),
        } | {name: round(value, 5) for name, value in figures.items()}
        self.report("  ".join(f"{name}={value}" for name, value in row.items()))
        path = self.output / "log.csv"
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        rows.append(row)
        names = list(dict.fromkeys(name for r in rows for name in r))
        aside = path.with_suffix(".part")
        with aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(aside, path)


def _load_weights(network: SQGAN, name: str) -> None:
    """Put shipped or own weights into a network. Raises WeightsError if of another model."""
    from sqlink.weights.manifest import load

    loaded = load(name, "sqgan")
    if loaded.metadata.get("model") != network.config.to_json():
        raise WeightsError(
            f"start: weights '{name}' are of another model than the one to be trained"
        )
    own = {k: v for k, v in loaded.tensors.items() if not k.startswith("tables.")}
    network.load_state_dict(own)


def _lay_out_as_parameters(optimizer: Any) -> None:
    """Lay moments out in memory as their parameters are: the fused kernel takes it for granted."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in {"exp_avg", "exp_avg_sq"} & state.keys():
                state[name] = torch.empty_like(parameter).copy_(state[name])


def train_from_config(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train as the file says, going on from its output's checkpoint. Returns the weights' path.

    A file of `kind: segmenters` trains the built-in segmenters instead, and gives their folder.
    Raises ConfigError, DataError or WeightsError in one line where the run cannot begin.
    """
    if settings_kind(path) == "segmenters":
        from sqlink.training.segmenters import train_segmenters

        return train_segmenters(path, report)
    trainer = Trainer(load_train_config(Path(path)), report)
    if trainer.resume():
        report(f"going on from step {trainer.step} ({trainer.seconds / 60:.1f} minutes done)")
    return trainer.run()
