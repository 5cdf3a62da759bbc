"""What tokens cost: true bits against the paper's formula, by packing, packet size and fraction.

    python -m experiments.bit_costs --camvid DIR [--weights streets] [--pictures 47]

prints the table of docs/results/bit_costs.md for CamVid `dev`. The formula is `m N log2 J + N` bits
a stream, of N places and J codes: indices of equal length and one bit a place for the mask (arXiv
2502.09520).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.packets import MODES, Packing, Tokens, packetise
from sqlink.bitstream.tables import BASE, Tables
from sqlink.bitstream.token_selection import keep, ranks
from sqlink.errors import ConfigError, SQLinkError

FRACTIONS = (0.2, 0.4, 0.7, 1.0)
PACKET_BYTES = (64, 128, 256)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class BitCost:
    """Means over pictures, in bits: of the whole and, of map and image, what is masked and what
    indices cost. tokens: kept in each stream. formula: the paper's.
    """

    total: float
    masks: tuple[float, float]
    indices: tuple[float, float]
    header: float
    rest: float
    tokens: int
    places: int
    formula: float

    @property
    def share(self) -> float:
        """Cost as a share of the formula's."""
        return self.total / self.formula


def bit_cost(
    pictures: Sequence[tuple[Ints, Ints, Ints, Ints]],
    tables: Tables,
    packing: Packing,
    packet_bytes: int,
    fraction: float,
) -> BitCost:
    """Measure what pictures cost with `fraction` of both streams kept.

    pictures: map and image indices and their ranks, int64 [h, w] each.
    """
    places = pictures[0][0].size
    count = max(1, round(fraction * places))
    sums = np.zeros((2, 5))
    for map_indices, image_indices, map_ranks, image_ranks in pictures:
        of_map = keep(map_indices, map_ranks, count)
        zeros = np.zeros_like(of_map)
        for row, image in enumerate((np.full_like(of_map, -1), image_indices)):
            of_image = keep(image, image_ranks, count)
            packets = packetise(
                Tokens(of_map, of_image, zeros, zeros), tables, packet_bytes, packing
            )
            names = ("mask", "index", "header")
            parts = [sum(p.bits[name] for p in packets) for name in names]
            total = sum(8 * len(p.data) for p in packets)
            sums[row] += [total, *parts, total - sum(parts)]
    of_map_alone, both = sums / len(pictures)
    return BitCost(
        total=float(both[0]),
        masks=(float(of_map_alone[1]), float(both[1] - of_map_alone[1])),
        indices=(float(of_map_alone[2]), float(both[2] - of_map_alone[2])),
        header=float(both[3]),
        rest=float(both[4]),
        tokens=count,
        places=places,
        formula=sum(count * math.log2(tables.of(s).size) + places for s in range(len(BASE))),
    )


def table(pictures: Sequence[tuple[Ints, Ints, Ints, Ints]], tables: Tables) -> str:
    """Format the table in Markdown: a row for each packing, packet size and fraction."""
    lines = [
        "| packing | packet_bytes | m | bytes | map: bits per mask | per index "
        "| image: bits per mask | per index | header | coder, padding | ratio to the formula |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    packings = [Packing(mode) for mode in (*MODES[::-1],)] + [Packing("single", fixed=True)]
    for packing in packings:
        sizes: Sequence[int] = PACKET_BYTES[:1] if packing.mode == "single" else PACKET_BYTES
        for packet_bytes in sizes:
            for fraction in FRACTIONS:
                found = bit_cost(pictures, tables, packing, packet_bytes, fraction)
                streams = " | ".join(
                    f"{found.masks[s] / found.places:.2f} | {found.indices[s] / found.tokens:.2f}"
                    for s in range(len(BASE))
                )
                name = packing.mode + (", fixed length" if packing.fixed else "")
                size = "any" if packing.mode == "single" else str(packet_bytes)
                lines.append(
                    f"| {name} | {size} | {fraction:g} | {found.total / 8:.0f} | {streams} "
                    f"| {found.header:.0f} | {found.rest:.0f} | {found.share:.3f} |"
                )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bit_costs")
    parser.add_argument("--weights", default="streets", help="a shipped name or a file")
    parser.add_argument("--camvid", type=Path, required=True, help="folder of CamVid")
    parser.add_argument("--pictures", type=int, default=47, help="of dev, evenly spread")
    parser.add_argument("--segmenter", default="tx", help="what makes the maps")
    options = parser.parse_args(arguments)
    try:
        from sqlink.data import open_dataset
        from sqlink.model.sqgan import load_model
        from sqlink.segmentation import load_segmenter
        from sqlink.weights.manifest import load

        if options.pictures < 1:
            raise ConfigError(f"pictures={options.pictures} must be at least 1")
        loaded = load(options.weights, "sqgan")
        model, tables = load_model(loaded, options.weights), Tables.from_tensors(loaded.tensors)
        sees = load_segmenter(options.segmenter)
        data = open_dataset("camvid", root=str(options.camvid), split="dev")
        pictures = []
        for number in np.unique(np.linspace(0, len(data) - 1, options.pictures).astype(int)):
            picture = data[int(number)].image[None]
            found = model.analyse(picture, sees.segment(picture))
            pictures.append(
                (
                    found.map_indices[0].numpy(),
                    found.image_indices[0].numpy(),
                    ranks(found.map_scores[0].float().numpy()),
                    ranks(found.image_scores[0].float().numpy()),
                )
            )
        print(f"{len(pictures)} pictures, weights {loaded.sha256[:8]}\n")
        print(table(pictures, tables))
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
