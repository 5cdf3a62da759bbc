"""Saturated rates: rates that give the same streams are one row, that of the lowest rate.

A codec at its finest setting makes the same bytes for every higher rate, and the same pictures over
the same draws of the channel. Several points of a curve would count one result several times.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.estimates import Measured


def merged(cells: Sequence[Measured]) -> list[Measured]:
    """Return the cells in their order, without those that repeat the streams of a lower rate.

    The remaining cells list the rates removed in `also_asked`.
    """
    found: dict[object, Measured] = {}
    repeats: dict[int, list[str]] = {}
    left_out: set[int] = set()
    for cell in sorted(cells, key=lambda cell: cell.points[0].encoding.rate.value):
        point = cell.points[0]
        streams = tuple(cell.rows["stream"].to_pylist())
        if "" in streams:  # the rate is unreachable
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
