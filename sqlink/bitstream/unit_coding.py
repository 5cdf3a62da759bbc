"""Coding of refinement units through a port: classes and digits, in writing and in reading alike.

    for each of a unit's four tokens:  class ── digits up to the class's sum ── rest of large ones

`refinement_table` says how likely each is; see docs/reference/bitstream.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.range_coder import Port
from sqlink.bitstream.refinement_table import (
    ESCAPE,
    ESCAPES,
    SIZES,
    TOKENS,
    ZERO,
    ExpectedToken,
    RefinementTable,
    Units,
    classes_of,
    most_of,
    states_of,
)
from sqlink.errors import DataError

Ints = NDArray[np.int64]


def write_units(
    port: Port, table: RefinementTable, hidden: NDArray[np.float32], units: Units, fixed: bool
) -> None:
    """Write n units int16 [n, S], none of them masked, whose hidden values are [n, H]."""
    if fixed:
        code_fixed(port, units.astype(np.int64) - ZERO)
    else:
        write_tokens(port, table.expected(hidden, units), 0, len(units))


def write_tokens(port: Port, tokens: Sequence[ExpectedToken], start: int, stop: int) -> None:
    """Write the units start..stop - 1 of those whose expectations are given."""
    for token in tokens:
        units = slice(start, stop)
        port.indices(
            "index", token.classes[units], token.class_weights[units], token.class_bits[units]
        )
        part = slice(*np.searchsorted(token.which, [start, stop]).tolist())
        live = token.live[part].T
        if not live.size:
            continue
        symbols, bits = token.symbols[part].T[live], token.bits[part].T[live]
        port.indices("index", symbols, token.weights[part].swapaxes(0, 1)[live], bits)
        rest = token.rest[part]
        rest = rest[rest >= 0]
        if rest.size:
            port.numbers("index", rest, ESCAPES)


def read_units(
    port: Port, table: RefinementTable, hidden: NDArray[np.float32], fixed: bool
) -> Units:
    """Read n units, int16 [n, S], whose hidden values are [n, H].

    Raises DataError for a token that is not of the class that was read.
    """
    count, values = len(hidden), table.values
    digits = np.zeros((count, table.digits), dtype=np.int64)
    if fixed:
        return _stored(code_fixed(port, digits))
    classes = np.zeros((count, TOKENS), dtype=np.int64)
    known = np.zeros((count, 2, table.digits), dtype=np.float32)
    class_scores = table.class_scores(hidden)
    for token in range(TOKENS):
        weights = table.class_weights_of(class_scores, token, classes)
        classes[:, token] = port.indices("index", classes[:, token], weights)
        which = np.flatnonzero(classes[:, token])
        if not which.size:
            continue
        kind = classes[which, token]
        scores = table.token_scores(hidden[which], token, known[which])
        first = _read_token(port, table, token, kind, scores)
        own = slice(token * values, (token + 1) * values)
        known[which, 0, own], known[which, 1, own] = first, np.abs(first)
        _code_rest(port, first, first)
        if (classes_of(first) != kind).any():
            raise DataError("a packet is damaged: digits are not of their token's class")
        digits[which, own] = first
    return _stored(digits)


def _read_token(
    port: Port, table: RefinementTable, token: int, classes: Ints, scores: NDArray[np.float32]
) -> Ints:
    """Read the first parts of the digits, int64 [m, D], of one of the four tokens of m units.

    scores: `token_scores`, given the tokens before.
    """
    found = np.zeros(scores.shape[:2], dtype=np.int64)
    known = np.zeros((len(found), 2, table.values), dtype=np.float32)
    used, most = np.zeros(len(found), dtype=np.int64), most_of(classes)
    for value in range(table.values):
        coded = used < most
        live = slice(None) if coded.all() else np.flatnonzero(coded)
        states = states_of(classes[live], used[live])
        if not states.size:
            break
        seen = known[live].reshape(states.size, -1)
        digit = token * table.values + value
        weights = table.digit_weights_of(scores[live, value], digit, states, seen)
        own = port.indices("index", found[live, value], weights) - ESCAPE
        sizes = np.abs(own)
        found[live, value] = own
        known[live, 0, value], known[live, 1, value] = own, sizes
        used[live] += sizes
    return found


def code_fixed(port: Port, digits: Ints) -> Ints:
    """Code digits int64 [n, S] with codes of equal length."""
    first = np.clip(digits, -ESCAPE, ESCAPE)
    found = port.numbers("index", first.reshape(-1) + ESCAPE, SIZES).reshape(first.shape) - ESCAPE
    _code_rest(port, digits, found)
    return found


def _code_rest(port: Port, digits: Ints, first: Ints) -> None:
    """Code the rest of the sizes of digits int64 [n, D], and add it to the first parts in place."""
    large = np.abs(first) == ESCAPE
    if large.any():
        rest = port.numbers("index", np.abs(digits[large]) - ESCAPE, ESCAPES)
        first[large] = np.sign(first[large]) * (ESCAPE + rest)


def _stored(digits: Ints) -> Units:
    """Return digits as they are stored in units."""
    return (digits + ZERO).astype(np.int16)
