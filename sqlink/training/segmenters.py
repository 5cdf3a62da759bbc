"""Training of the two built-in segmenters, `tx` and `judge`, each on its own.

    frames, maps (uint8, resident) ─ crop, warp, jitter, degrade ─> network ─> logits
          weighted cross-entropy + Lovász-Softmax <────────────────────────────┘
    the shipped weights are an exponential average of those of the last steps, folded

A network begins at a trunk pretrained on ImageNet (`sqlink.training.backbones`), whose statistics,
and first blocks, stay as they are. Photographs with the 11 classes of CamVid may be joined by
rendered streets and by IDD, whose coarse classes are sets of CamVid's: there the loss is that of
the summed probabilities of a set.

Runs are budgeted in time: the learning rate follows a cosine over the seconds given. What a step
draws depends on the seed and the step's number alone, so a run that was interrupted meets the same
crops. Checkpoints are safetensors and appear whole or not at all.

    python -m sqlink.training.segmenters sqlink/training/configs/segmenters.yaml --network tx

Sources: Berman, Triki, Blaschko, "The Lovász-Softmax loss", CVPR 2018; median-frequency weights of
Eigen and Fergus, ICCV 2015, here their square root.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from channels.atomic_write import whole_file
from channels.random import Randomness
from sqlink.data import open_dataset
from sqlink.data.base import DataSet, Sample
from sqlink.data.classes import CAMVID, IDD, NAMES, NO_LABEL, NUM_CLASSES
from sqlink.data.idd import camvid_sets
from sqlink.errors import ConfigError, DataError, SQLinkError
from sqlink.metrics.jackknife import interval, mean_iou
from sqlink.metrics.semantic import confusion, iou, miou
from sqlink.model.layout import channels_last
from sqlink.segmentation.blocks import fold
from sqlink.segmentation.builtin import NETWORKS, BuiltIn
from sqlink.settings import Pair, Section, load_settings
from sqlink.training.backbones import load_backbone
from sqlink.training.checkpoint import load_checkpoint, save_checkpoint
from sqlink.training.data import read_labelled
from sqlink.training.timed_run import TimedRun
from sqlink.weights.manifest import save


class StreetsPlan(Section):
    """Rendered scenes beside the photographs. share: part of the crops that come from them."""

    pictures: int = Field(ge=0)
    seed: int
    share: float = Field(ge=0, le=1)


class CoarsePlan(Section):
    """IDD beside the photographs. root: its folder. share: part of the crops that come from it."""

    root: str
    split: str = "train"
    share: float = Field(ge=0, le=1)


class NetworkPlan(Section):
    """How one network is trained.

    backbone: converted weights of its trunk, or None to begin from chance; the trunk learns at
    `trunk_rate` times the rate, but for its first `frozen_blocks` blocks, which stay as they are.
    emphasis: factors of the weights of classes in the cross-entropy, 1 where a class is not named.
    scale: of a crop, drawn log-uniformly. focus: part of the crops that are centred on a class,
    drawn uniformly, so that rare ones are seen. blur, noise, shrink: probabilities of a Gaussian
    blur (up to `blur_pixels`), of white noise (up to `noise_level`), of a loss of resolution (up to
    4x).
    """

    seed: int
    backbone: str | None = None
    trunk_rate: float = Field(default=1.0, ge=0)
    frozen_blocks: int = Field(default=0, ge=0)
    emphasis: dict[str, float] = Field(default_factory=dict)
    minutes: float = Field(gt=0)
    batch: int = Field(ge=1)
    crop: Pair[int]
    rate: float = Field(gt=0)
    decay: float = Field(ge=0)
    average: float = Field(ge=0, lt=1)
    lovasz: float = Field(ge=0)
    scale: Pair[float]
    turn_degrees: float = Field(ge=0)
    colour: float = Field(ge=0, le=1)
    focus: float = Field(ge=0, le=1)
    blur: float = Field(ge=0, le=1)
    blur_pixels: float = Field(gt=0)
    noise: float = Field(ge=0, le=1)
    noise_level: float = Field(ge=0)
    shrink: float = Field(ge=0, le=1)


class Plan(Section):
    """The whole file. camvid: folder in the SegNet tutorial's layout; fit, dev: its splits."""

    kind: Literal["segmenters"]
    output: str
    camvid: str
    fit: str
    dev: str
    streets: StreetsPlan
    idd: CoarsePlan | None = None
    networks: dict[str, NetworkPlan]


def read_plan(path: Path) -> Plan:
    """Read and check a training configuration. Raises ConfigError in one line."""
    return load_settings(path, Plan)


@dataclass(frozen=True)
class Frames:
    """Pictures and maps of one size. images: uint8 [N, 3, H, W]. labels: uint8 [N, H, W]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.images.shape[0]

    def __add__(self, other: Frames) -> Frames:
        return Frames(
            torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels])
        )


def read_frames(samples: DataSet, title: str) -> Frames:
    """Read every sample of a data set. Raises DataError if one has no map or sizes differ."""
    return Frames(*read_labelled(samples, title))


def rendered_frames(plan: StreetsPlan, size: tuple[int, int], cache: Path) -> Frames:
    """Render `plan.pictures` scenes of `size` (height, width), cached in the file `cache`."""
    wanted = {"seed": plan.seed, "shape": [plan.pictures, *size]}
    if cache.exists():
        state, facts = load_checkpoint(cache)
        if facts == wanted:
            return Frames(state["images"], state["labels"])
    height, width = size
    scenes = open_dataset(
        "streets", seed=plan.seed, count=plan.pictures, height=height, width=width
    )
    frames = read_frames(scenes, "streets")
    save_checkpoint(cache, {"images": frames.images, "labels": frames.labels}, **wanted)
    return frames


def coarse_frames(samples: Iterable[Sample], size: tuple[int, int]) -> Frames:
    """Scale pictures of IDD to `size` (height, width), their labels raised by 11: see
    `NUM_SETS`.
    """
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for sample in samples:
        if sample.segmentation is None:
            raise DataError(f"{sample.name} has no map: segmenters learn from labelled pictures")
        scaled = F.interpolate(sample.image[None], size, mode="bilinear", antialias=True)
        images.append((scaled[0].clamp(0, 1) * 255).round().to(torch.uint8))
        ids = F.interpolate(sample.segmentation[None, None].float(), size, mode="nearest-exact")
        raised = torch.where(ids == NO_LABEL, ids, ids + NUM_CLASSES)
        labels.append(raised[0, 0].to(torch.uint8))
    return Frames(torch.stack(images), torch.stack(labels))


NUM_SETS = NUM_CLASSES + len(IDD)
"""Ids of labels in training: 0 to 10 a class of CamVid, 11 to 17 a coarse class of IDD."""


class Sampler:
    """Draws batches of warped crops; what step k gives depends on the seed and k alone.

    sources: frames of one size and the share of the crops that come from each; the first source
    takes what the others leave.
    """

    def __init__(self, sources: Sequence[tuple[Frames, float]], plan: NetworkPlan) -> None:
        self.plan = plan
        used = [(frames, share) for frames, share in sources if len(frames)]
        self.frames = Frames(
            torch.cat([frames.images for frames, _ in used]),
            torch.cat([frames.labels for frames, _ in used]),
        )
        counts = torch.tensor([len(frames) for frames, _ in used])
        self.counts, self.starts = counts, counts.cumsum(0) - counts
        shares = torch.tensor([share for _, share in used[1:]])
        self.edges = 1 - shares.flip(0).cumsum(0).flip(0)  # draws above edge k are of source k + 1
        labels = self.frames.labels
        total, self.height, self.width = labels.shape
        points = 32
        draws = Randomness.derive(plan.seed, [("points", n) for n in range(total)])
        uniform = draws.uniform(NUM_SETS * points, dtype=torch.float32)
        uniform = uniform.reshape(total, NUM_SETS, points)
        self.points = torch.zeros(total, NUM_SETS, points, dtype=torch.int64)
        self.present = torch.zeros(total, NUM_SETS, dtype=torch.bool)
        for n in range(total):
            flat = labels[n].flatten()
            order = torch.argsort(flat, stable=True)
            found = torch.bincount(flat.long(), minlength=256)[:NUM_SETS]
            starts = found.cumsum(0) - found
            self.present[n] = found >= 40
            self.points[n] = order[
                (starts[:, None] + (uniform[n] * found[:, None]).long()).clamp(max=len(order) - 1)
            ]
        of_source = [self.present[a : a + n] for a, n in zip(self.starts, self.counts, strict=True)]
        # The ids that a source holds, to draw the class of a crop's centre from.
        held = [one.any(0).nonzero()[:, 0] for one in of_source]
        self.held = torch.zeros(len(used), NUM_SETS, dtype=torch.int64)
        for k, ids in enumerate(held):
            self.held[k, : len(ids)] = ids
        self.kinds = torch.tensor([max(1, len(ids)) for ids in held])

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw the batch of a step: images float32 [B, 3, h, w] in [0, 1], labels int64 [B, h/2,
        w/2].
        """
        plan, batch = self.plan, self.plan.batch
        streams = Randomness.derive(plan.seed, [("crop", step, n) for n in range(batch)])
        u = streams.uniform(40, dtype=torch.float32)  # [B, 40]
        noise = torch.Generator().manual_seed(int(streams.child("noise").integers(1)[0, 0]))

        source = (u[:, :1] >= self.edges).sum(1)
        low, span = self.starts[source], self.counts[source]
        frame = low + (u[:, 1] * span).long()
        chosen = self.held[source, (u[:, 2] * self.kinds[source]).long()]
        # The next frame of its kind, from the one drawn, that shows the class.
        reach = torch.arange(int(span.max()))
        ring = low[:, None] + (frame[:, None] - low[:, None] + reach) % span[:, None]
        shows = self.present[ring, chosen[:, None]] & (reach < span[:, None])
        focused = (u[:, 3] < plan.focus) & shows.any(1)
        frame = torch.where(
            focused, ring.gather(1, shows.int().argmax(1, keepdim=True))[:, 0], frame
        )
        point = self.points[frame, chosen].gather(1, (u[:, 4:5] * self.points.shape[2]).long())[
            :, 0
        ]

        h, w = plan.crop
        scale = torch.exp(
            math.log(plan.scale[0]) + u[:, 5] * math.log(plan.scale[1] / plan.scale[0])
        )
        stretch = torch.exp((u[:, 6] - 0.5) * 0.3)
        size_y, size_x = h / (scale * stretch), w / scale * stretch  # source pixels across
        jitter_y, jitter_x = (u[:, 7] - 0.5) * 0.7 * size_y, (u[:, 8] - 0.5) * 0.7 * size_x
        y = torch.where(focused, point // self.width + jitter_y, u[:, 7] * self.height)
        x = torch.where(focused, point % self.width + jitter_x, u[:, 8] * self.width)
        y = torch.minimum(torch.maximum(y, size_y / 2), self.height - size_y / 2)
        x = torch.minimum(torch.maximum(x, size_x / 2), self.width - size_x / 2)
        y = torch.where(size_y > self.height, self.height / 2, y)
        x = torch.where(size_x > self.width, self.width / 2, x)
        flip = torch.where(u[:, 9] < 0.5, -1.0, 1.0)
        angle = (u[:, 10] * 2 - 1) * math.radians(plan.turn_degrees)
        sin, cos = torch.sin(angle), torch.cos(angle)
        theta = torch.stack(
            [
                torch.stack([flip * cos * size_x, -sin * size_y, 2 * x - self.width], 1)
                / self.width,
                torch.stack([flip * sin * size_x, cos * size_y, 2 * y - self.height], 1)
                / self.height,
            ],
            1,
        )  # [B, 2, 3]
        grid = F.affine_grid(theta, [batch, 3, h, w], align_corners=False)
        images = F.grid_sample(
            self.frames.images[frame].float() / 255,
            grid,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        coarse = F.affine_grid(theta, [batch, 1, h // 2, w // 2], align_corners=False)
        raised = self.frames.labels[frame].float()
        raised = torch.where(raised == NO_LABEL, 0.0, raised + 1)
        labels = F.grid_sample(raised[:, None], coarse, mode="nearest", align_corners=False)
        labels = labels[:, 0].round().long() - 1
        labels = torch.where(labels < 0, NO_LABEL, labels)
        return degrade(recolour(images, u[:, 11:18], plan.colour), u[:, 18:30], plan, noise), labels


def recolour(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """Apply random gain, contrast, saturation, white balance and gamma. u: [B, 7], uniform
    draws.
    """
    signed = ((u * 2 - 1) * strength)[:, :, None, None, None].unbind(1)  # [B, 1, 1, 1] each
    gain, contrast, saturation, red, blue, gamma, offset = signed
    x = images.clamp(1e-3, 1) ** torch.exp(0.6 * gamma)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * torch.exp(0.8 * saturation)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    x = mean + (x - mean) * torch.exp(0.6 * contrast)
    tint = torch.cat([torch.exp(0.25 * red), torch.ones_like(red), torch.exp(0.25 * blue)], 1)
    return (x * tint * torch.exp(0.5 * gain) + 0.15 * offset).clamp(0, 1)


def degrade(images: Tensor, u: Tensor, plan: NetworkPlan, noise: torch.Generator) -> Tensor:
    """Lose resolution, blur, add noise, each to some pictures. u: [B, 12], uniform draws.

    All of it generic: no codec's own artefacts are seen in training.
    """
    batch, _, h, w = images.shape
    factor = 1.5 + 2.5 * float(u[0, 0])
    some = u[:, 1] < plan.shrink
    if bool(some.any()):
        small = F.interpolate(
            images[some],
            size=(round(h / factor), round(w / factor)),
            mode="bilinear",
            antialias=True,
        )
        rough = F.interpolate(small, size=(h, w), mode="bilinear" if u[0, 2] < 0.7 else "nearest")
        images = images.index_copy(0, some.nonzero()[:, 0], rough)
    sigma = torch.where(u[:, 3] < plan.blur, 0.3 + u[:, 4] * (plan.blur_pixels - 0.3), 1e-3)
    if bool((u[:, 3] < plan.blur).any()):
        reach = torch.arange(-4, 5, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (reach / sigma[:, None]) ** 2)  # [B, 9]
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)  # [3B, 9]
        flat = F.pad(images.reshape(1, 3 * batch, h, w), (4, 4, 4, 4), mode="replicate")
        flat = F.conv2d(flat, kernel[:, None, None, :], groups=3 * batch)
        flat = F.conv2d(flat, kernel[:, None, :, None], groups=3 * batch)
        images = flat.reshape(batch, 3, h, w)
    level = torch.where(u[:, 5] < plan.noise, u[:, 6] * plan.noise_level, 0.0)
    if bool((level > 0).any()):
        images = images + level[:, None, None, None] * torch.randn(images.shape, generator=noise)
    return images.clamp(0, 1)


def class_weights(labels: Tensor, classes: int = NUM_CLASSES) -> Tensor:
    """Return square roots of median-frequency weights within [0.3, 4], float32 [classes], of uint8
    maps.

    Ids from `classes` on are left out; a class that no map shows weighs 4.
    """
    counts = torch.stack(
        [torch.bincount(m.flatten().long(), minlength=256)[:classes] for m in labels]
    ).double()
    pixels = (counts > 0).sum(0) * labels[0].numel()  # of the pictures that show the class
    frequency = counts.sum(0) / pixels.clamp(min=1)
    weights = (frequency[frequency > 0].median() / frequency.clamp(min=1e-9)).sqrt()
    return weights.clamp(0.3, 4).float()


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the Lovász extension of the Jaccard loss, a mean over the classes in the batch.

    logits: [M, C]; labels: int64 [M], all of them in [0, C).
    """
    truth = F.one_hot(labels, logits.shape[1]).float().T  # C×M
    present = truth.any(1)
    truth = truth[present]
    errors = (truth - logits.softmax(1).T[present]).abs()
    errors, order = errors.sort(dim=1, descending=True)
    truth = truth.gather(1, order)
    total = truth.sum(1, keepdim=True)
    jaccard = 1 - (total - truth.cumsum(1)) / (total + (1 - truth).cumsum(1))
    gradient = torch.cat([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], dim=1)
    return (errors * gradient).sum(1).mean()


def set_weights(sources: Sequence[Frames], emphasis: Mapping[str, float]) -> Tensor:
    """Return the weights of all ids of labels, float32 [18]: those of classes from the first
    source, those of coarse classes from the source that holds them. Raises ConfigError for an
    unknown class.
    """
    weights = torch.ones(NUM_SETS)
    weights[:NUM_CLASSES] = class_weights(sources[0].labels)
    for source in sources[1:]:
        labels = source.labels
        if bool(((labels >= NUM_CLASSES) & (labels < NUM_SETS)).any()):
            lowered = torch.where(labels == NO_LABEL, labels, labels - NUM_CLASSES)
            weights[NUM_CLASSES:] = class_weights(lowered, len(IDD))
    for name, factor in emphasis.items():
        weights[CAMVID.index(name)] *= factor
    return weights


def loss_of(logits: Tensor, labels: Tensor, weights: Tensor, lovasz: float, step: int) -> Tensor:
    """Compute the weighted cross-entropy at the labels' size, and Lovász-Softmax on every fourth
    pixel.

    labels: int64 [B, h, w], a crop's either all classes or all coarse ones, which say of a set of
    classes that it is one of them. weights: float32 [18].
    """
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    logits = logits.contiguous()
    coarse = ((labels >= NUM_CLASSES) & (labels != NO_LABEL)).flatten(1).any(1)
    table = torch.cat([weights, weights.new_zeros(NO_LABEL + 1 - len(weights))])
    total = table[labels].sum().clamp(min=1e-6)
    loss = logits.new_zeros(())
    if bool(coarse.any()):
        each = logits[coarse].log_softmax(1)
        sets = camvid_sets().to(logits)
        summed = torch.einsum("kc,bchw->bkhw", sets, each.exp()).clamp(min=1e-6).log()
        summed = summed.contiguous()
        found = labels[coarse]
        found = torch.where(found == NO_LABEL, found, found - NUM_CLASSES)
        loss = loss + F.nll_loss(
            summed, found, weights[NUM_CLASSES:], ignore_index=NO_LABEL, reduction="sum"
        )
    logits, labels = logits[~coarse], labels[~coarse]
    fine = weights[:NUM_CLASSES]
    loss = loss + F.cross_entropy(logits, labels, fine, ignore_index=NO_LABEL, reduction="sum")
    loss = loss / total
    if lovasz > 0:
        row, column = (step // 2) % 2, step % 2
        part = labels[:, row::2, column::2]
        kept = part != NO_LABEL
        chosen = logits[:, :, row::2, column::2].permute(0, 2, 3, 1)[kept]
        if len(chosen):
            loss = loss + lovasz * lovasz_softmax(chosen, part[kept])
    return loss


def confusion_of(network: nn.Module, frames: Frames) -> Tensor:
    """Count a confusion matrix a frame, rows the truth, unlabelled pixels left out: int64 [N, 11,
    11].
    """
    segmenter = BuiltIn("in training", network)
    return torch.cat(
        [
            confusion(segmenter.segment(images.float() / 255), labels.long())
            for images, labels in zip(frames.images.split(8), frames.labels.split(8), strict=True)
        ]
    )


class Run(TimedRun):
    """One segmenter in training."""

    def __init__(self, name: str, plan: NetworkPlan) -> None:
        self.plan = plan
        # Initial weights are drawn in a fork of the generator, so that nothing outside it moves.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            network, average = NETWORKS[name](), NETWORKS[name]().eval()
        trunk = network.trunk
        if plan.backbone is not None:
            load_backbone(trunk, plan.backbone, network.variant)
        for layer in (trunk.stem, *trunk.blocks)[: plan.frozen_blocks + (plan.frozen_blocks > 0)]:
            layer.requires_grad_(False)
        channels_last(network)
        channels_last(average)
        average.load_state_dict(network.state_dict())
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                kind = (name.startswith("trunk."), parameter.ndim > 1)
                groups.setdefault(kind, []).append(parameter)
        optimiser = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": plan.decay if decayed else 0.0,
                    "share": plan.trunk_rate if of_trunk else 1.0,
                }
                for (of_trunk, decayed), parameters in groups.items()
            ],
            lr=plan.rate,
        )
        super().__init__(network, average, optimiser)

    def advance(self, images: Tensor, labels: Tensor, weights: Tensor, budget: float) -> float:
        """Take one step and return its loss. budget: seconds of the run."""
        rate = self.plan.rate * self.learning_rate(budget, 100, 0.005)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * rate
        self.network.train()
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, labels, weights, self.plan.lovasz, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        keep = min(self.plan.average, self.step / (self.step + 10))
        with torch.no_grad():
            ours = self.average.state_dict()
            for key, value in self.network.state_dict().items():
                if value.is_floating_point():
                    ours[key].lerp_(value, 1 - keep)
        return float(loss.detach())


def train(
    name: str,
    plan: Plan,
    folder: Path | None = None,
    minutes: float | None = None,
    report: Callable[[str], None] = print,
    evaluate_seconds: float = 400.0,
) -> Path:
    """Train one network within its budget, or go on with it. Returns the weights' path.

    folder: of checkpoint (`NAME.safetensors`), folded weights (`segmenter-NAME.safetensors`, half
    precision) and record (`NAME.json`: what was measured), the plan's `output` by default. minutes:
    instead of the plan's budget. Raises ConfigError, DataError or WeightsError if it cannot begin.
    """
    if name not in plan.networks or name not in NETWORKS:
        known = ", ".join(sorted(set(plan.networks) & set(NETWORKS)))
        raise ConfigError(f"no network '{name}' to train: known: {known}")
    recipe = plan.networks[name]
    budget = 60 * (minutes if minutes is not None else recipe.minutes)
    dev = open_dataset("camvid", root=plan.camvid, split=plan.dev)
    photographs = read_frames(open_dataset("camvid", root=plan.camvid, split=plan.fit), "camvid")
    unseen = read_frames(dev, "camvid")
    folder = Path(plan.output) if folder is None else folder
    size = (photographs.labels.shape[1], photographs.labels.shape[2])
    sources = [(photographs, 1.0)]
    if plan.streets.pictures and plan.streets.share > 0:
        rendered = rendered_frames(plan.streets, size, folder / "streets.safetensors")
        sources.append((rendered, plan.streets.share))
    if plan.idd is not None and plan.idd.share > 0:
        indian = open_dataset("idd", root=plan.idd.root, split=plan.idd.split)
        sources.append((coarse_frames(indian, size), plan.idd.share))
    sampler = Sampler(sources, recipe)
    weights = set_weights([frames for frames, _ in sources], recipe.emphasis)
    run = Run(name, recipe)
    checkpoint, weights_file = (
        folder / f"{name}.safetensors",
        folder / f"segmenter-{name}.safetensors",
    )
    if checkpoint.exists():
        run.resume(checkpoint)
        report(f"{name}: going on from step {run.step}, {run.seconds / 60:.1f} min")

    def measure() -> Tensor:
        matrices = confusion_of(run.average, unseen)
        score = 100 * float(miou(matrices.sum(0)))
        run.history.append({"step": run.step, "seconds": run.seconds, "dev_miou": score})
        run.save(checkpoint)
        exported = NETWORKS[name]()
        exported.load_state_dict(run.average.state_dict())
        save(weights_file, fold(exported).state_dict(), {"kind": "segmenter", "network": name})
        return matrices

    def told() -> str:
        return (
            f"{name}: {run.seconds / 60:5.1f} min, step {run.step}, "
            f"{run.step * recipe.batch / max(run.seconds, 1e-9):.1f} crops/s, "
            f"dev mIoU {run.history[-1]['dev_miou']:.2f}"
        )

    def advance() -> float:
        return run.advance(*sampler.draw(run.step), weights, budget)

    for loss in run.losses(budget, evaluate_seconds, advance):
        matrices = measure()
        report(f"{told()}, loss {loss:.3f}")
    names = list(dict.fromkeys(dev.blocks))
    spread = interval(
        matrices[:, None].numpy(),
        mean_iou,
        blocks=[names.index(block) for block in dev.blocks],
    )
    record = {
        "network": name,
        "steps": run.step,
        "minutes": run.seconds / 60,
        "crops_per_second": run.step * recipe.batch / max(run.seconds, 1e-9),
        "threads": torch.get_num_threads(),
        "dev_frames": len(unseen),
        "dev_blocks": len(names),
        "dev_miou": 100 * spread.estimate,
        "dev_miou_interval_95": [100 * spread.low, 100 * spread.high],
        "dev_iou": dict(zip(NAMES, (100 * iou(matrices.sum(0))).tolist(), strict=True)),
        "history": run.history,
        "plan": plan.model_dump(),
    }
    with whole_file(folder / f"{name}.json") as aside:
        aside.write_text(json.dumps(record, indent=2))
    return weights_file


def train_segmenters(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train every network of a configuration, one after another. Returns the folder of results."""
    plan = read_plan(Path(path))
    for name in plan.networks:
        train(name, plan, report=report)
    return Path(plan.output)


def main(arguments: list[str] | None = None) -> int:
    """Run the command: train one network of a configuration."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.training.segmenters")
    parser.add_argument("config", type=Path)
    parser.add_argument("--network", required=True, choices=sorted(NETWORKS))
    parser.add_argument("--folder", type=Path, help="instead of the output named there")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        train(
            options.network,
            read_plan(options.config),
            options.folder,
            options.minutes,
            report=lambda line: print(line, flush=True),
        )
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
