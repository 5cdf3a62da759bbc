"""Share of a budget that a codec's files fill: `python -m sqlink.codecs.budget_use CODEC FOLDER`.

    pictures x budgets ── encode ──> files ──┬─ bytes / budget        mean and lowest of each budget
                                             ├─ over the budget?      must be none
                                             └─ next finer setting    must not fit

FOLDER holds pictures; `--every` takes every n-th of them by name. Budgets are in bits per pixel.
JPEG2000 searches the library's rate and has no ladder of settings, so its last column is empty.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sqlink.codecs import codec_names, load_codec
from sqlink.codecs.base import Codec, Rate, Stream
from sqlink.codecs.file_codec import FileCodec
from sqlink.codecs.slices import to_pixels
from sqlink.errors import DataError, SQLinkError

BPP = (0.04, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class BudgetUse:
    """Results for one budget.

    bpp: the budget. shares: bytes divided by the budget, of each picture that can be coded within
    it. pictures: number of all pictures. exceeded: number of files above the budget. finer: number
    of pictures whose next finer setting fits, too; None for a codec without settings in steps.
    """

    bpp: float
    shares: tuple[float, ...]
    pictures: int
    exceeded: int
    finer: int | None


def budget_use(codec: Codec, images: Iterable[Tensor], budgets: Sequence[float]) -> list[BudgetUse]:
    """Encode each image, float32 [3, H, W], at each budget in bits per pixel. Raises as `encode`
    does.
    """
    shares: dict[float, list[float]] = {bpp: [] for bpp in budgets}
    exceeded, finer = dict.fromkeys(budgets, 0), dict.fromkeys(budgets, 0)
    count = 0
    for image in images:
        count += 1
        for bpp in budgets:
            budget = int(bpp * image.shape[1] * image.shape[2] / 8)
            (answer,) = codec.encode(image[None], Rate(bytes=budget))
            if not isinstance(answer, Stream):
                continue
            shares[bpp].append(answer.size / budget)
            exceeded[bpp] += answer.size > budget
            if isinstance(codec, FileCodec):
                finer[bpp] += _finer_fits(codec, image, answer, budget)
    steps = isinstance(codec, FileCodec)
    return [
        BudgetUse(bpp, tuple(shares[bpp]), count, exceeded[bpp], finer[bpp] if steps else None)
        for bpp in budgets
    ]


def _finer_fits(codec: FileCodec, image: Tensor, answer: Stream, budget: int) -> bool:
    """Say whether the setting after the chosen one fits the budget, too."""
    ladder = codec.ladder(to_pixels(image[None])[0])
    chosen = max(n for n in ladder.encoded if ladder.file(n) == answer.to_bytes())
    return chosen + 1 < codec.settings and ladder.size(chosen + 1) <= budget


def table(found: Sequence[BudgetUse]) -> str:
    """Write the results as Markdown, one line per budget."""
    lines = [
        "| bpp | reached | mean use | lowest | over the budget | next finer fits |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        mean = f"{statistics.mean(one.shares):.3f}" if one.shares else "-"
        lowest = f"{min(one.shares):.3f}" if one.shares else "-"
        finer = "-" if one.finer is None else str(one.finer)
        lines.append(
            f"| {one.bpp:g} | {len(one.shares)} of {one.pictures} | {mean} | {lowest} | "
            f"{one.exceeded} | {finer} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    from sqlink.data.pictures import load_picture, suffixes

    parser = argparse.ArgumentParser(prog="python -m sqlink.codecs.budget_use")
    parser.add_argument("codec", choices=codec_names())
    parser.add_argument("folder", type=Path, help="of pictures")
    parser.add_argument("--every", type=int, default=1, help="each n-th picture")
    parser.add_argument("--bpp", type=float, nargs="+", default=list(BPP))
    options = parser.parse_args(arguments)
    try:
        codec = load_codec(options.codec)
        if not options.folder.is_dir():
            raise DataError(f"{options.folder} is not a folder of pictures")
        named = (one for one in options.folder.iterdir() if one.suffix.lower() in suffixes())
        files = sorted(named)[:: max(options.every, 1)]
        if not files:
            raise DataError(f"{options.folder} holds no pictures")
        print(table(budget_use(codec, map(load_picture, files), options.bpp)))
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
