"""Blocks of neighbouring frames: neighbours are alike, so a block is one sample of an interval."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

BLOCK = 5
"""Largest number of frames in a block."""


def blocks_of(names: Sequence[str]) -> list[str]:
    """Return the block of each frame; names: frame names in order.

    A run ends where the drive changes or frames are further apart than twice the drive's usual
    spacing, and is cut into the smallest number of equal parts of at most 5 frames.

    >>> blocks_of(["0006R0_f00930", "0006R0_f00960", "0006R0_f00990", "0016E5_00390"])
    ['0006R0_f00930', '0006R0_f00930', '0006R0_f00930', '0016E5_00390']
    """
    parsed = [re.fullmatch(r"(.*?)(\d{1,15})", name) for name in names]
    drive = [m.group(1) if m else name for m, name in zip(parsed, names, strict=True)]
    number = [int(m.group(2)) if m else 0 for m in parsed]
    gaps: dict[str, list[int]] = {}
    for a in range(len(names) - 1):
        if drive[a] == drive[a + 1]:
            gaps.setdefault(drive[a], []).append(number[a + 1] - number[a])
    usual = {key: sorted(values)[len(values) // 2] for key, values in gaps.items()}
    runs: list[list[str]] = []
    for a, name in enumerate(names):
        near = (
            a > 0
            and drive[a] == drive[a - 1]
            and number[a] - number[a - 1] <= 2 * max(1, usual[drive[a]])
        )
        if near:
            runs[-1].append(name)
        else:
            runs.append([name])
    return [block for run in runs for block in cut_into_blocks(run)]


def cut_into_blocks(run: Sequence[str]) -> list[str]:
    """Cut a run into the fewest equal parts of at most 5 frames; return the block of each frame.

    A block is named after its first frame.

    >>> cut_into_blocks(["a", "b", "c", "d", "e", "f"])
    ['a', 'a', 'a', 'd', 'd', 'd']
    """
    parts = -(-len(run) // BLOCK)
    edges = [part * len(run) // parts for part in range(parts + 1)]
    return [run[a] for a, b in itertools.pairwise(edges) for _ in range(b - a)]
