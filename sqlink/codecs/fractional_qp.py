"""Fractional QPs for x265: a ladder fine enough to fill a budget.

    QP 51 ─ 50.5 ─ 50.375 ─ ... ─ 50.03125 ─ 49.96875 ─ 49.9375 ─ 50 ─ 49.5 ─ ...    coarse to fine

Neighbouring whole QPs differ by 13 to 20 % of the bytes at low rates. At a fractional QP, each tree
block gets one of the two: x265's adaptive quantiser, at a tenth of its strength, moves the QPs of
blocks by about half a step around the fraction and rounds them. At equal rate this costs less than
0.02 dB compared with the line between whole QPs, which are coded without the adaptive quantiser.

If the blocks of a picture are alike, all of them change within a sixteenth of a QP, some just
beyond the whole QP: therefore fractions are denser there, on both sides of it.
"""

from __future__ import annotations

MIN_QP, MAX_QP = 0, 51
FRACTIONS = (
    *(0.5, 0.375, 0.25, 0.1875, 0.15625, 0.125, 0.09375, 0.0625, 0.03125, 0.015625),
    *(-0.015625, -0.03125, -0.0625),
    0.0,
)
"""Offsets from a whole QP, coarse to fine; the whole QP itself is coded in another way."""
_STRENGTH = 0.1

STEPS = len(FRACTIONS)
"""Settings per whole QP."""
STATED = f"QP + {', '.join(f'{fraction:g}' for fraction in FRACTIONS)}"
"""Description of the ladder, for the parameters of codecs."""

LADDER: tuple[float, ...] = (
    float(MAX_QP),
    *(
        qp + fraction
        for qp in range(MAX_QP - 1, MIN_QP - 1, -1)
        for fraction in FRACTIONS
        if qp + fraction >= MIN_QP
    ),
)
"""All QPs, coarse to fine."""


def x265_quantiser(qp: float, group: int) -> dict[str, str]:
    """Return the parameters of x265 for a QP of the ladder.

    group: side in pixels of the blocks that share a QP; at most the tree block.

    >>> x265_quantiser(40, 64)
    {'qp': '40'}
    >>> x265_quantiser(40.25, 64)["crf"]
    '40.25'
    """
    if qp == int(qp):
        return {"qp": str(int(qp))}
    return {
        "crf": f"{qp:g}",
        "qcomp": "1.0",
        "cutree": "0",
        "aq-mode": "1",
        "aq-strength": f"{_STRENGTH:g}",
        "qg-size": str(group),
    }
