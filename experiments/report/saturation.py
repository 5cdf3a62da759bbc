"""Rates that a codec cannot spend: two that give the same streams are one row, the lower one.

A codec whose finest setting is reached makes of every higher rate the same bytes, and over the same
draws of the channel the same pictures. To show them as several points of a curve would count one
result often.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.estimates import Measured


def merged(cells: Sequence[Measured]) -> list[Measured]:
    """Return the cells in their order, without those that repeat the streams of a lower rate.

    What is left has in `also_asked` the rates that it stands for beside its own.
    """
    found: dict[object, Measured] = {}
    repeats: dict[int, list[str]] = {}
    left_out: set[int] = set()
    for cell in sorted(cells, key=lambda cell: cell.points[0].encoding.rate.value):
        point = cell.points[0]
        streams = tuple(cell.rows["stream"].to_pylist())
        if "" in streams:  # the codec could not go so low
            continue
        key = (
            cell.title,
            point.encoding.rate.kind,
            point.encoding.packet_bytes,
            point.channel,
            point.conditions,
            streams,
        )
        first = found.setdefault(key, cell)
        if first is not cell:
            repeats.setdefault(id(first), []).append(cell.rate)
            left_out.add(id(cell))
    for cell in cells:
        cell.also_asked = tuple(repeats.get(id(cell), ()))
    return [cell for cell in cells if id(cell) not in left_out]
