"""Modulation and coding schemes of 5G NR: 3GPP TS 38.214, tables 5.1.3.1-1 to 5.1.3.1-3.

An MCS is a modulation and a target code rate; a table lists those a link adapts among, by rising
spectral efficiency but for the steps from one modulation to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from channels.config.checks import choice
from channels.fec.qam import BITS_PER_SYMBOL

_QPSK = ("qpsk", (120, 157, 193, 251, 308, 379, 449, 526, 602, 679))
_LOW_QPSK = ("qpsk", (30, 40, 50, 64, 78, 99, 120, 157, 193, 251, 308, 379, 449, 526, 602))
_FEW_QPSK = ("qpsk", (120, 193, 308, 449, 602))
_16QAM = ("16qam", (340, 378, 434, 490, 553, 616, 658))
_64QAM = ("64qam", (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948))
_FEW_64QAM = ("64qam", (466, 517, 567, 616, 666, 719, 772, 822, 873))
_256QAM = ("256qam", (682.5, 711, 754, 797, 841, 885, 916.5, 948))

_PARTS: Mapping[str, Sequence[tuple[str, Sequence[float]]]] = {
    "qam64": (_QPSK, _16QAM, _64QAM),
    "qam256": (_FEW_QPSK, ("16qam", (378, 434, 490, 553, 616, 658)), _FEW_64QAM, _256QAM),
    "qam64-low": (_LOW_QPSK, ("16qam", _16QAM[1][:6]), ("64qam", _64QAM[1][:8])),
}


@dataclass(frozen=True)
class Mcs:
    """One row of a table. code_rate: k/n, the CRC counted in k."""

    index: int
    modulation: str
    code_rate: float

    @property
    def efficiency(self) -> float:
        """Bits (the CRC among them) a complex symbol."""
        return BITS_PER_SYMBOL[self.modulation] * self.code_rate


def mcs_table(name: str) -> tuple[Mcs, ...]:
    """The rows of `qam64` (table 5.1.3.1-1), `qam256` (-2) or `qam64-low` (-3), by their index.

    Raises ConfigError for another name.

    >>> mcs_table("qam64")[28]
    Mcs(index=28, modulation='64qam', code_rate=0.92578125)
    """
    parts = _PARTS[choice("mcs", "table", name, _PARTS)]
    starts = accumulate((len(rates) for _, rates in parts), initial=0)
    return tuple(
        Mcs(start + i, modulation, rate / 1024)
        for start, (modulation, rates) in zip(starts, parts, strict=False)
        for i, rate in enumerate(rates)
    )


TABLES = tuple(_PARTS)
