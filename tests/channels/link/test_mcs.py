"""Tables of MCS, against rows written out from 3GPP TS 38.214 by hand."""

from __future__ import annotations

import pytest
import torch

from channels.errors import ConfigError
from channels.link.mcs import TABLES, mcs_table

LOW_QPSK = (30, 40, 50, 64, 78, 99)
QPSK = (120, 157, 193, 251, 308, 379, 449, 526, 602, 679)
QAM16 = (340, 378, 434, 490, 553, 616, 658)
QAM64 = (438, 466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948)
QAM256 = (682.5, 711, 754, 797, 841, 885, 916.5, 948)

ROWS = {
    "qam64": [("qpsk", QPSK), ("16qam", QAM16), ("64qam", QAM64)],
    "qam256": [
        ("qpsk", QPSK[0:9:2]),
        ("16qam", QAM16[1:]),
        ("64qam", QAM64[1:10]),
        ("256qam", QAM256),
    ],
    "qam64-low": [("qpsk", (*LOW_QPSK, *QPSK[:9])), ("16qam", QAM16[:6]), ("64qam", QAM64[:8])],
}


@pytest.mark.parametrize("name", ROWS)
def test_the_tables_are_those_of_the_standard(name: str) -> None:
    expected = [(modulation, r / 1024) for modulation, rates in ROWS[name] for r in rates]
    table = mcs_table(name)
    assert [(row.modulation, row.code_rate) for row in table] == expected
    assert [row.index for row in table] == list(range(len(expected)))


def test_reading_a_table_draws_no_global_random_number() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    mcs_table("qam256")
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_table_is_refused_with_the_nearest() -> None:
    assert TABLES == ("qam64", "qam256", "qam64-low")
    with pytest.raises(ConfigError, match="did you mean 'qam64'"):
        mcs_table("qam6")
