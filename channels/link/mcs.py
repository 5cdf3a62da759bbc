"""Modulation and coding schemes of 5G NR: 3GPP TS 38.214, tables 5.1.3.1-1 to 5.1.3.1-3, by Sionna.

An MCS is a modulation and a target code rate. A table lists the MCS of a link by rising spectral
efficiency, except at some steps from one modulation to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from channels.config.checks import choice
from channels.fec.qam import BITS_PER_SYMBOL
from channels.fec.sionna_isolation import untouched_random_state

TABLES = ("qam64", "qam256", "qam64-low")
"""Names of the tables, 5.1.3.1-1 first."""

_SIZES = {"qam64": 29, "qam256": 28, "qam64-low": 29}
"""Number of indices of each table that are not reserved."""


@dataclass(frozen=True)
class Mcs:
    """One row of a table. code_rate: k/n; k includes the CRC."""

    index: int
    modulation: str
    code_rate: float

    @property
    def efficiency(self) -> float:
        """Return the bits per complex symbol, with the CRC."""
        return BITS_PER_SYMBOL[self.modulation] * self.code_rate


def mcs_table(name: str) -> tuple[Mcs, ...]:
    """Return the rows of `qam64` (table 5.1.3.1-1), `qam256` (-2) or `qam64-low` (-3), by index.

    Raises ConfigError for another name.

    >>> mcs_table("qam64")[28]
    Mcs(index=28, modulation='64qam', code_rate=0.92578125)
    """
    return _rows(choice("mcs", "table", name, TABLES))


@lru_cache(maxsize=len(TABLES))
def _rows(name: str) -> tuple[Mcs, ...]:
    with untouched_random_state():
        from sionna.phy.nr import decode_mcs_index

        indices = torch.arange(_SIZES[name], dtype=torch.int32)
        number = TABLES.index(name) + 1
        orders, rates = decode_mcs_index(indices, number, is_pusch=False, device="cpu")
    names = {order: modulation for modulation, order in BITS_PER_SYMBOL.items()}
    pairs = zip(orders.tolist(), rates.tolist(), strict=True)
    return tuple(Mcs(i, names[order], rate) for i, (order, rate) in enumerate(pairs))
