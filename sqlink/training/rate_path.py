"""Find how a budget is best shared between map and image; the answer travels in the weights.

    pictures ─ keep (m_map, m_image), for each pair of a grid ─ bytes, and loss of what is rebuilt
        ─ the rising path through the grid along which the loss is least, over all budgets

The loss is LPIPS plus `weight` times (1 - mIoU), the mIoU of what the transmitter's segmenter sees
in the rebuilt pictures against what it saw in the true ones. The segmenter that only measures is
not asked.

    python -m sqlink.training.rate_path --weights FILE --camvid DIR -o FILE

writes the weights again with `rate_path`, pairs of fractions, and `rate_table`, what was measured:
(m_map, m_image, bytes, LPIPS, mIoU) of every pair. Pictures are training ones (CamVid `fit`); the
same command gives the same path.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlink.bitstream.packets import MODES, Packing, Tokens, packetise
from sqlink.bitstream.tables import Tables
from sqlink.bitstream.token_selection import keep, ranks
from sqlink.codecs.base import DEFAULT_PACKET_BYTES
from sqlink.errors import ConfigError, SQLinkError
from sqlink.metrics.semantic import confusion, miou
from sqlink.model.sqgan import SQGAN, Analysis

MAP_FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
IMAGE_FRACTIONS = (0.01, 0.04, 0.1, 0.2, 0.35, 0.6, 1.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Over the pairs of fractions, float64 [A, B] each: mean bytes, mean LPIPS, and mIoU."""

    bytes: Floats
    lpips: Floats
    miou: Floats


def best_path(cost: Floats, size: Floats) -> list[tuple[int, int]]:
    """The path of steps (one up in either axis or both) from the first to the last pair along which
    the integral of cost over the logarithm of size is least.

    cost, size: float64 [A, B]. That is the mean cost over budgets of all sizes, if a budget between
    two pairs buys what lies between them.

    >>> best_path(np.array([[9.0, 1.0], [9.0, 0.0]]), np.array([[1.0, 2.0], [2.0, 3.0]]))
    [(0, 0), (0, 1), (1, 1)]
    """
    rows, columns = cost.shape
    logs = np.log(size)
    best = np.full(cost.shape, np.inf)
    best[0, 0] = 0.0
    before: dict[tuple[int, int], tuple[int, int]] = {}
    for a in range(rows):
        for b in range(columns):
            for step in ((1, 0), (0, 1), (1, 1)):
                start = (a - step[0], b - step[1])
                if min(start) < 0:
                    continue
                span = max(logs[a, b] - logs[start], 0.0)
                total = best[start] + span * (cost[a, b] + cost[start]) / 2
                if total < best[a, b]:
                    best[a, b], before[a, b] = total, start
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        path.append(before[path[-1]])
    return path[::-1]


def measure(
    model: SQGAN,
    tables: Tables,
    images: Tensor,
    maps: Tensor,
    segment: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    packing: Packing,
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    report: Callable[[str], None] = print,
) -> Measured:
    """Every pair of fractions on pictures float32 [N, 3, H, W] with maps int64 [N, H, W].

    segment: pictures to maps; distance: two batches of pictures to [N].
    """
    height, width = maps.shape[1:]
    classes = model.config.num_classes
    found = _joined([model.analyse(x[None], s[None]) for x, s in zip(images, maps, strict=True)])
    indices = [found.map_indices.numpy(), found.image_indices.numpy()]
    rank = [ranks(s.float().numpy()) for s in (found.map_scores, found.image_scores)]
    places = indices[0][0].size
    shape = (len(MAP_FRACTIONS), len(IMAGE_FRACTIONS))
    result = Measured(np.zeros(shape), np.zeros(shape), np.zeros(shape))
    layers = np.zeros_like(indices[0][0])
    for a, of_map in enumerate(MAP_FRACTIONS):
        map_kept = keep(indices[0], rank[0], max(1, round(of_map * places)))
        for b, of_image in enumerate(IMAGE_FRACTIONS):
            image_kept = keep(indices[1], rank[1], max(1, round(of_image * places)))
            sizes = [
                sum(
                    len(p.data)
                    for p in packetise(Tokens(m, x, layers, layers), tables, packet_bytes, packing)
                )
                for m, x in zip(map_kept, image_kept, strict=True)
            ]
            matrix = torch.zeros(classes, classes, dtype=torch.int64)
            distances = []
            for n in range(len(images)):
                rebuilt, _ = model.synthesise(
                    torch.from_numpy(image_kept[n : n + 1]),
                    torch.from_numpy(map_kept[n : n + 1]),
                    height,
                    width,
                )
                distances.append(float(distance(rebuilt, images[n : n + 1])))
                matrix += confusion(segment(rebuilt), maps[n : n + 1], classes)[0]
            result.bytes[a, b] = np.mean(sizes)
            result.lpips[a, b] = np.mean(distances)
            result.miou[a, b] = float(miou(matrix))
            report(
                f"map {of_map:g}, image {of_image:g}: {result.bytes[a, b]:.0f} bytes, LPIPS "
                f"{result.lpips[a, b]:.3f}, mIoU {result.miou[a, b]:.3f}"
            )
    return result


def _joined(parts: Sequence[Analysis]) -> Analysis:
    return Analysis(
        torch.cat([p.image_indices for p in parts]),
        torch.cat([p.image_scores for p in parts]),
        torch.cat([p.map_indices for p in parts]),
        torch.cat([p.map_scores for p in parts]),
    )


def calibrate(
    weights: str,
    camvid: Path,
    output: Path,
    pictures: int = 8,
    weight: float = 0.5,
    packing: str = MODES[0],
    segmenter: str = "tx",
) -> list[tuple[float, float]]:
    """Write the weights with their path of fractions, and return it.

    Raises ConfigError for the measuring segmenter, WeightsError or DataError where files are amiss.
    """
    from sqlink.data import open_dataset
    from sqlink.metrics.lpips import load_lpips
    from sqlink.model.sqgan import load_model
    from sqlink.segmentation import load_segmenter
    from sqlink.weights.manifest import load, save

    if segmenter == "judge":
        raise ConfigError("segmenter: 'judge' only measures and may not be tuned to; use 'tx'")
    if pictures < 1:
        raise ConfigError(f"pictures={pictures} must be at least 1")
    loaded = load(weights, "sqgan")
    model, tables = load_model(loaded, weights), Tables.from_tensors(loaded.tensors)
    sees, lpips = load_segmenter(segmenter), load_lpips()
    data = open_dataset("camvid", root=str(camvid), split="fit")
    chosen = np.unique(np.linspace(0, len(data) - 1, pictures).astype(int))
    images = torch.stack([data[int(n)].image for n in chosen])
    with torch.inference_mode():
        maps = torch.cat([sees.segment(image[None]) for image in images])
        found = measure(model, tables, images, maps, sees.segment, lpips, Packing(packing))
    steps = best_path(found.lpips + weight * (1 - found.miou), found.bytes)
    path = [(MAP_FRACTIONS[a], IMAGE_FRACTIONS[b]) for a, b in steps]
    table = [
        [m, x, *(round(float(v[a, b]), 4) for v in (found.bytes, found.lpips, found.miou))]
        for a, m in enumerate(MAP_FRACTIONS)
        for b, x in enumerate(IMAGE_FRACTIONS)
    ]
    facts = {"rate_path": json.dumps(path), "rate_table": json.dumps(table)}
    save(output, loaded.tensors, {**loaded.metadata, **facts})
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.training.rate_path")
    parser.add_argument("--weights", default="streets", help="a shipped name or a file")
    parser.add_argument("--camvid", type=Path, required=True, help="folder of CamVid")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the weights to write")
    parser.add_argument("--pictures", type=int, default=8, help="of fit, evenly spread")
    parser.add_argument("--weight", type=float, default=0.5, help="of 1 - mIoU beside LPIPS")
    parser.add_argument("--packing", default=MODES[0], help="whose bytes are counted")
    parser.add_argument("--segmenter", default="tx", help="what makes and reads the maps")
    options = parser.parse_args(arguments)
    try:
        path = calibrate(
            options.weights,
            options.camvid,
            options.output,
            options.pictures,
            options.weight,
            options.packing,
            options.segmenter,
        )
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output}: rate_path {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
