"""A small world for sweeps: a data set, a codec that counts its calls, and two segmenters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from experiments.sweep.store import read_results
from sqlink.codecs.base import (
    CODECS,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
)
from sqlink.data.base import DATASETS, Sample
from sqlink.data.classes import NO_LABEL
from sqlink.receiver import outage
from sqlink.segmentation.base import SEGMENTERS

CELL = 4
"""Bytes of one cell of the mosaic: its colour and its class."""


class Patterns:
    """Smooth coloured patterns with a map of 11 classes, one block for every two pictures."""

    def __init__(self, count: int = 3, height: int = 32, width: int = 48) -> None:
        self.names = [f"pattern-{n}" for n in range(count)]
        self.blocks = [f"block-{n // 2}" for n in range(count)]
        self.size = height, width

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self):
            raise IndexError(index)
        height, width = self.size
        y = torch.linspace(0, 1, height)[:, None]
        x = torch.linspace(0, 1, width)[None, :]
        waves = [torch.sin(7 * (x + k * y) + index + k) / 2 + 0.5 for k in range(3)]
        image = torch.stack([wave.expand(height, width) for wave in waves])
        labels = (image.mean(0) * 10.99).long()
        labels[:2] = NO_LABEL
        return Sample(self.names[index], image, labels, self.blocks[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))


class Levels:
    """Brightness in 11 steps: the labels of `Patterns` for the picture itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def segment(self, images: Tensor) -> Tensor:
        return (images.mean(1).clamp(0, 1) * 10.99).long()


class Mosaic:
    """A codec that sends the mean colour and class of the cells of a g x g grid."""

    name = "mosaic"
    suffix = ".mos"
    carries_map = True
    trained_on = ("psnr_db",)
    encoded = 0
    decoded = 0
    stop_after: int | None = None
    """Encodings after which a KeyboardInterrupt is raised, as Ctrl-C would."""

    def __init__(self, packet_bytes: int = 96) -> None:
        self.packet_bytes = packet_bytes

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        assert segmentation is not None
        if Mosaic.stop_after is not None and Mosaic.encoded >= Mosaic.stop_after:
            raise KeyboardInterrupt
        Mosaic.encoded += len(images)
        height, width = images.shape[2:]
        budget = rate.budget_bytes(height, width) or 0
        if budget < CELL + 1:
            return [Unreachable(self.name, height, width, budget, CELL + 1) for _ in images]
        side = int(((budget - 1) / CELL) ** 0.5)
        colours = (adaptive_avg_pool2d(images, side) * 255).round()  # [N, 3, g, g]
        classes = interpolate(segmentation[:, None].float(), (side, side), mode="nearest-exact")
        cells = torch.cat([colours, classes], 1).permute(0, 2, 3, 1).to(torch.uint8)
        per_packet = self.packet_bytes // CELL * CELL
        streams: list[Stream | Unreachable] = []
        for one in cells:
            data = one.numpy().tobytes()
            pieces = [data[i : i + per_packet] for i in range(0, len(data), per_packet)]
            packets = tuple(Packet(p, n, {"payload": 8 * len(p)}) for n, p in enumerate(pieces))
            streams.append(Stream(Session(self.name, height, width, bytes([side])), packets))
        return streams

    def decode(self, received: Sequence[Received]) -> Decoded:
        Mosaic.decoded += len(received)
        images, maps, lost = [], [], []
        per_packet = self.packet_bytes // CELL * CELL
        for one in received:
            height, width, side = one.session.height, one.session.width, one.session.header[0]
            if not any(one.packets):
                images.append(outage(1, height, width).images)
                maps.append(torch.full((1, height, width), NO_LABEL))
                lost.append(True)
                continue
            data = b"".join(piece or bytes([127] * per_packet) for piece in one.packets)
            cells = torch.tensor(list(data[: CELL * side * side])).reshape(1, side, side, CELL)
            grid = interpolate(cells.permute(0, 3, 1, 2).float(), (height, width))
            images.append(grid[:, :3] / 255)
            maps.append(grid[:, 3].long().clamp(0, 10))
            lost.append(False)
        return Decoded(torch.cat(images), torch.cat(maps), torch.tensor(lost))

    def parse(self, data: bytes) -> Stream:
        raise NotImplementedError


DATASETS.register("patterns")(Patterns)
CODECS.register("mosaic")(Mosaic)
SEGMENTERS.register("levels-tx")(lambda device="cpu": Levels("levels-tx"))
SEGMENTERS.register("levels")(lambda device="cpu": Levels("levels"))

SWEEP = """
data: {name: patterns, options: {count: 3}}
codecs: [mosaic]
rates: {bytes: [2, 120, 400]}
channel: iid
conditions: {loss: [0.0, 0.3, 0.9]}
realisations: 4
packet_bytes: 32
segmenter: levels-tx
judge: levels
metrics: [psnr, miou, miou_map, map_fidelity]
batch_size: 2
"""


@pytest.fixture(autouse=True)
def _fresh_counts() -> None:
    Mosaic.encoded, Mosaic.decoded, Mosaic.stop_after = 0, 0, None


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sweep's YAML, SWEEP by default, and returns its path."""

    def sweep(text: str = SWEEP, name: str = "sweep.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return sweep


@pytest.fixture
def mosaic() -> type[Mosaic]:
    """The counting codec."""
    return Mosaic


@pytest.fixture
def same() -> Callable[[Path, Path], None]:
    """Asserts that two results folders hold the same table: integers equal, floats to 1e-5."""

    def check(left: Path, right: Path) -> None:
        ours, theirs = read_results(left), read_results(right)
        assert ours.column_names == theirs.column_names
        assert ours.num_rows == theirs.num_rows > 0
        for name in ours.column_names:
            a, b = ours[name].to_pylist(), theirs[name].to_pylist()
            if pa.types.is_floating(ours.schema.field(name).type):
                assert a == pytest.approx(b, abs=1e-5, nan_ok=True), name
            else:
                assert a == b, name

    return check
