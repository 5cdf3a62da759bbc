"""Training of DeepJSCC: `kind: deepjscc`.

    crops ── encode(SNR, uses) ── s ── fade, noise ── equalise ── decode ──> RMSE to the crops

Each crop draws its mean SNR and its number of channel uses, and crosses AWGN or Rayleigh fading
whose gains the receiver knows: one gain a picture, or one in each of several packets, over which
the symbols are dealt in turn. The linear path starts at the Karhunen-Loève transform of the
training pictures and moves slowly.

The loss is the root of each crop's mean squared error, so that a good channel counts beside a bad
one. Runs are budgeted in time, the learning rate follows a cosine, and what a step draws depends on
the seed and the step's number alone. What ships is an exponential average of the weights.

    sqlink train sqlink/training/configs/deepjscc.yaml
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from channels.atomic_write import whole_file
from sqlink.data import open_dataset
from sqlink.errors import DataError
from sqlink.model.deepjscc import (
    PLACE,
    SCALE_SYMBOLS,
    DeepJSCC,
    DeepJSCCConfig,
    from_symbols,
    places,
)
from sqlink.settings import Pair, Section, load_settings
from sqlink.training.checkpoint import follow
from sqlink.training.config import Source
from sqlink.training.timed_run import TimedRun
from sqlink.weights.manifest import save

MOST_GAINS = 16
"""Packets of a crop, at most, that fade apart from one another."""


class Network(Section):
    """Sizes of the network; see `DeepJSCCConfig`."""

    latents: int = Field(default=64, ge=2, le=192)
    width: int = Field(default=64, ge=8)
    fine: int = Field(default=48, ge=8)
    sender_blocks: int = Field(default=2, ge=0)
    receiver_blocks: int = Field(default=3, ge=0)


class DeepJSCCPlan(Section):
    """The whole file.

    snr_db: range of the mean Es/N0. ratio: range of k / (3 H W), complex symbols to source values,
    drawn log-uniformly. fading: share of the crops that cross Rayleigh fading. average: decay of
    the average of the weights. linear_rate, gain_rate: learning rates of the linear path and of the
    gains as shares of `rate`.
    """

    kind: Literal["deepjscc"]
    output: str
    seed: int = 0
    sources: list[Source] = Field(min_length=1)
    validation: Source
    network: Network = Network()
    crop: int = Field(default=128, ge=PLACE, multiple_of=PLACE)
    batch: int = Field(default=4, ge=1)
    minutes: float = Field(gt=0)
    rate: float = Field(default=1e-3, gt=0)
    linear_rate: float = Field(default=0.03, ge=0)
    gain_rate: float = Field(default=0.3, ge=0)
    average: float = Field(default=0.998, ge=0, lt=1)
    snr_db: Pair[float] = (-2.0, 22.0)
    ratio: Pair[float] = (1 / 192, 1 / 6)
    fading: float = Field(default=0.4, ge=0, le=1)
    threads: int = Field(default=1, ge=1)
    validate_minutes: float = Field(default=5.0, gt=0)

    @field_validator("snr_db", "ratio")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the range {list(value)} should rise: write the lower end first")
        return value

    @field_validator("ratio")
    @classmethod
    def _above_nothing(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] <= 0:
            raise ValueError("the ratio should be above 0")
        return value


@dataclass(frozen=True)
class Drawn:
    """What a step meets.

    symbols: int64 [N], of the coefficients. gains: float32 [N, G], |h|² of each packet; count:
    int64 [N], packets of a crop.
    """

    images: Tensor
    snr_db: Tensor
    symbols: Tensor
    gains: Tensor
    count: Tensor


class Crops:
    """Pictures in memory as uint8, and the crops of each step."""

    def __init__(self, plan: DeepJSCCPlan) -> None:
        self.plan = plan
        self.pictures: list[list[Tensor]] = []
        for source in plan.sources:
            data = open_dataset(source.name, **source.options)
            pictures = [(sample.image * 255).round().to(torch.uint8) for sample in data]
            if not pictures:
                raise DataError(f"source {source.name} has no pictures")
            if small := sum(min(picture.shape[1:]) < plan.crop for picture in pictures):
                raise DataError(
                    f"source {source.name}: {small} pictures are smaller than crops of "
                    f"{plan.crop}: set a smaller crop"
                )
            self.pictures.append(pictures)
        self.shares = torch.tensor([source.share for source in plan.sources])

    def many(self, count: int) -> Tensor:
        """Draw float32 [count, 3, crop, crop]: crops for the KLT."""
        generator = torch.Generator().manual_seed(self.plan.seed)
        return torch.stack([self._crop(generator) for _ in range(count)])

    def draw(self, step: int) -> Drawn:
        """Draw the crops of a step and the channels that they cross."""
        plan, batch = self.plan, self.plan.batch
        generator = torch.Generator().manual_seed((plan.seed << 32) + step)
        images = torch.stack([self._crop(generator) for _ in range(batch)])
        u = torch.rand(batch, 4, generator=generator)
        snr_db = plan.snr_db[0] + u[:, 0] * (plan.snr_db[1] - plan.snr_db[0])
        low, high = math.log(plan.ratio[0]), math.log(plan.ratio[1])
        ratio = torch.exp(low + u[:, 1] * (high - low))
        most = plan.network.latents * plan.crop**2 // 128
        symbols = (ratio * 3 * plan.crop**2).long().clamp(1, most)
        fading = u[:, 3] < plan.fading
        packets = torch.where(u[:, 3] < plan.fading / 2, 1, MOST_GAINS)
        power = -torch.log(torch.rand(batch, MOST_GAINS, generator=generator).clamp(min=1e-7))
        gains = torch.where(fading[:, None], power, 1.0)
        return Drawn(images, snr_db, symbols, gains, packets)

    def _crop(self, generator: torch.Generator) -> Tensor:
        size = self.plan.crop
        source = self.pictures[int(torch.multinomial(self.shares, 1, generator=generator))]
        pick, top, left, turn = torch.rand(4, generator=generator).tolist()
        picture = source[int(pick * len(source))]
        y = int(top * (picture.shape[1] - size + 1))
        x = int(left * (picture.shape[2] - size + 1))
        crop = picture[:, y : y + size, x : x + size].float() / 255
        return crop.flip(2) if turn < 0.5 else crop


def noise_met(drawn: Drawn) -> Tensor:
    """Return float32 [N, most symbols]: N0 / |h|² of each, dealt in turn over the packets."""
    most = int(drawn.symbols.max())
    packet = torch.arange(most)[None] % drawn.count[:, None]
    n0 = torch.pow(10.0, -drawn.snr_db / 10)[:, None]
    return n0 / drawn.gains.clamp(min=1e-5).gather(1, packet)


def rebuild(network: DeepJSCC, drawn: Drawn, noise: torch.Generator) -> Tensor:
    """Send the crops over the channels drawn; returns them as received, equalised."""
    values, sent, scale = network.encode(drawn.images, drawn.snr_db, drawn.symbols)
    met = noise_met(drawn)
    halves = from_symbols(torch.complex(met, met) / 2, *values.shape[1:])
    variance = torch.where(sent, halves, math.inf)
    deviation = torch.where(sent, halves, 0.0).sqrt()
    received = values + deviation * torch.randn(values.shape, generator=noise)
    # The scale's symbols are dealt over the packets like the others, and combined by their noise.
    share = met[:, : min(SCALE_SYMBOLS, met.shape[1])]
    left = SCALE_SYMBOLS / share.shape[1] * (1 / share).sum(dim=1)
    errors = torch.randn(len(scale), 2, generator=noise) / (2 * left[:, None]).sqrt()
    heard = scale + torch.view_as_complex(errors)
    return network.decode(received, variance, drawn.snr_db, heard, 1 / left)


class Run(TimedRun):
    """DeepJSCC's network in training."""

    network: DeepJSCC
    average: DeepJSCC

    def __init__(self, plan: DeepJSCCPlan) -> None:
        self.plan = plan
        config = DeepJSCCConfig(**plan.network.model_dump())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            net, average = DeepJSCC(config), DeepJSCC(config).eval()
        average.load_state_dict(net.state_dict())
        linear: list[Tensor] = [net.transform.linear.weight, net.inverse.linear.weight]
        gains: list[Tensor] = [net.log_power, *net.gain_inner.parameters()]
        gains += net.gain_outer.parameters()
        slow = {id(parameter) for parameter in (*linear, *gains)}
        rest: list[Tensor] = [p for p in net.parameters() if id(p) not in slow]
        self.shares = (1.0, plan.linear_rate, plan.gain_rate)
        optimiser = torch.optim.Adam(
            [{"params": rest}, {"params": linear}, {"params": gains}], lr=plan.rate
        )
        super().__init__(net, average, optimiser)

    def start(self, crops: Crops) -> None:
        """Begin at the KLT of the training pictures."""
        self.network.start_from_klt(crops.many(200))
        self.average.load_state_dict(self.network.state_dict())

    def advance(self, drawn: Drawn) -> float:
        """Take one step and return its loss."""
        rate = self.plan.rate * self.learning_rate(60 * self.plan.minutes, 50, 0.01)
        for group, share in zip(self.optimiser.param_groups, self.shares, strict=True):
            group["lr"] = rate * share
        noise = torch.Generator().manual_seed((self.plan.seed << 32) + self.step + (1 << 31))
        pictures = rebuild(self.network, drawn, noise)
        error = (pictures - drawn.images).square().mean(dim=(1, 2, 3))
        loss = (error + 1e-6).sqrt().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.network, min(self.plan.average, self.step / (self.step + 10)))
        return float(loss.detach())


@torch.no_grad()
def psnr_table(
    network: DeepJSCC, images: Tensor, parts: tuple[int, ...], snrs_db: tuple[float, ...]
) -> dict[str, float]:
    """Measure mean PSNR in dB over AWGN of pictures [N, 3, H, W], by `1/48@10` (CBR and SNR)."""
    table = {}
    ones = torch.ones(len(images), MOST_GAINS)
    most = places(images.shape[2], images.shape[3]) * network.config.coefficients // 2
    for part in parts:
        for snr in snrs_db:
            symbols = torch.full((len(images),), min(images[0].numel() // part, most))
            level = torch.full((len(images),), snr)
            drawn = Drawn(images, level, symbols, ones, torch.ones_like(symbols))
            noise = torch.Generator().manual_seed(7)
            pictures = rebuild(network, drawn, noise).clamp(0, 1)
            error = (pictures - images).square().mean(dim=(1, 2, 3))
            table[f"1/{part}@{snr:g}"] = float((-10 * torch.log10(error)).mean())
    return table


def train_deepjscc(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train as a file says, or go on from its output's checkpoint. Returns the weights' path.

    Writes `checkpoint.safetensors`, `deepjscc.safetensors` (half precision) and `record.json` into
    the plan's output. Raises ConfigError, DataError or WeightsError if it cannot begin.
    """
    plan = load_settings(path, DeepJSCCPlan)
    torch.set_num_threads(plan.threads)
    folder = Path(plan.output)
    held = open_dataset(plan.validation.name, **plan.validation.options)
    size = 2 * plan.crop
    unseen = torch.stack(
        [held[n].image[:, -size:, -size:] for n in range(0, len(held), max(1, len(held) // 4))]
    )
    crops = Crops(plan)
    run = Run(plan)
    checkpoint, weights = folder / "checkpoint.safetensors", folder / "deepjscc.safetensors"
    if checkpoint.exists():
        run.resume(checkpoint)
        report(f"going on from step {run.step}, {run.seconds / 60:.1f} min")
    else:
        run.start(crops)

    def measure(loss: float) -> None:
        table = psnr_table(run.average, unseen, (192, 48, 12), (0.0, 10.0, 20.0))
        run.history.append({"step": run.step, "seconds": run.seconds, "loss": loss, **table})
        run.save(checkpoint)
        metadata = {"kind": "deepjscc", "config": run.average.config.to_json()}
        save(weights, run.average.state_dict(), metadata)
        record = {"steps": run.step, "minutes": run.seconds / 60, "history": run.history}
        with whole_file(folder / "record.json") as aside:
            aside.write_text(json.dumps({**record, "plan": plan.model_dump()}, indent=2))
        shown = "  ".join(f"{name} {value:.2f}" for name, value in table.items())
        report(f"{run.seconds / 60:5.1f} min, step {run.step}, loss {loss:.4f}: {shown}")

    for loss in run.losses(
        60 * plan.minutes,
        60 * plan.validate_minutes,
        lambda: run.advance(crops.draw(run.step)),
    ):
        measure(loss)
    return weights
