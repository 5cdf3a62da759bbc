"""How much of a budget a codec's files fill: `python -m sqlink.codecs.budget_use CODEC FOLDER`.

    pictures x budgets ── encode ──> files ──┬─ bytes / budget        mean and lowest of each budget
                                             ├─ over the budget?      must be none
                                             └─ next finer setting    must not fit

FOLDER holds pictures; `--every` takes each n-th of them by name. Budgets are in bits a pixel.
JPEG2000 searches the library's rate and has no ladder of settings: there the last column is empty.
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
    """What files of one budget came to.

    bpp: the budget. shares: bytes over budget of each picture that reached it. pictures: all that
    were coded. exceeded: files over the budget. finer: pictures whose next finer setting fits,
    too; None for a codec without settings in steps.
    """

    bpp: float
    shares: tuple[float, ...]
    pictures: int
    exceeded: int
    finer: int | None


def budget_use(codec: Codec, images: Iterable[Tensor], budgets: Sequence[float]) -> list[BudgetUse]:
    """Encode each image, float32 [3, H, W], at each budget in bits a pixel. Raises as encoding
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
    """Whether the setting after the one that was chosen fits the budget as well."""
    ladder = codec.ladder(to_pixels(image[None])[0])
    chosen = max(n for n in ladder.encoded if ladder.file(n) == answer.to_bytes())
    return chosen + 1 < codec.settings and ladder.size(chosen + 1) <= budget


def table(found: Sequence[BudgetUse]) -> str:
    """The figures as Markdown, a line a budget."""
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
    """The command."""
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
