"""Tables of error rates: read between the points, measured, kept, shipped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import fisher_exact, norm

from channels.errors import ConfigError
from channels.link import bler_table
from channels.link.bler_table import BlerTable, lost, measure, table_of
from channels.link.coded import CodedLink
from channels.link.mcs import TABLES, mcs_table
from tests.channels.link.conftest import TABLE, keep, rates

pytestmark = pytest.mark.usefixtures("cache")


def test_a_table_is_read_at_its_points_and_smoothly_between() -> None:
    assert rates(TABLE, 0.0, 1.0, 2.0, 3.0) == pytest.approx([0.98, 0.5, 0.1, 0.01], rel=1e-6)
    middle = norm.sf((norm.isf(0.5) + norm.isf(0.1)) / 2)
    assert rates(TABLE, 1.5) == pytest.approx([middle], rel=1e-3)
    fine = TABLE.rate(torch.linspace(-30, 40, 7001, dtype=torch.float64))
    assert (fine.diff() <= 0).all()
    assert fine[0] == 1
    assert fine[-1] < 1e-11
    assert TABLE.snr_at(0.1) == pytest.approx(2.0, abs=0.011)
    assert rates(TABLE, TABLE.snr_at(0.03))[0] <= 0.03


def test_a_table_that_rises_by_chance_is_made_to_fall() -> None:
    wavy = BlerTable((0.0, 1.0, 2.0, 3.0), (50, 60, 10, 0), (100, 100, 100, 100))
    fine = wavy.rate(torch.linspace(-3, 6, 500, dtype=torch.float64))
    assert (fine.diff() <= 1e-12).all()
    assert rates(wavy, 0.5)[0] == pytest.approx(0.55, abs=0.01)


def test_a_table_measured_agrees_with_full_decoding_under_fading(cache: Path) -> None:
    """Another law than the one it was measured under: Rayleigh, of which it knows the gains."""
    over = {"rayleigh": {"coherence": "packet"}}
    full = CodedLink(over=over, packet_bytes=4, iterations=8, modulation="16qam")
    fast = CodedLink(fidelity="lookup", over=over, packet_bytes=4, iterations=8, modulation="16qam")
    table = measure(fast, errors=60, most=512, lowest=0.05, step_db=0.5)
    bler_table.write(cache / f"{bler_table.key(fast)}.json", fast, table)
    assert rates(table, -5.0)[0] > 0.99
    for snr_db in (8.0, 14.0):
        decoded, drawn = lost(full, snr_db, 0, 512), lost(fast, snr_db, 0, 50_000)
        assert fisher_exact([[decoded, 512 - decoded], [drawn, 50_000 - drawn]]).pvalue > 1e-3


def test_what_was_measured_is_kept_and_not_measured_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    calls: list[object] = []

    def fake(link: CodedLink, progress: object = None) -> BlerTable:
        calls.append(link)
        return TABLE

    monkeypatch.setattr(bler_table, "measure", fake)
    link = CodedLink(packet_bytes=5)
    assert table_of(link, told.append) == table_of(CodedLink(packet_bytes=5, over="awgn")) == TABLE
    assert len(calls) == 1
    assert table_of(CodedLink(packet_bytes=5, iterations=9)) == TABLE
    assert len(calls) == 2
    (first, _) = sorted(cache.glob("*.json"))
    assert "layout" in json.loads(first.read_text())["of"]
    assert not list(cache.glob("*.aside"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"snr_db": [1], "errors": [1], "trials": [2]}',
        '{"snr_db": [0, 1e9], "errors": [1, 1], "trials": [2, 2]}',
        '{"snr_db": [0, 1], "errors": [Infinity, 1], "trials": [2, 2]}',
        '{"of": {"code": "other"}, "snr_db": [0, 1], "errors": [2, 1], "trials": [2, 2]}',
    ],
)
def test_a_damaged_table_is_named(cache: Path, text: str) -> None:
    link = keep(TABLE)
    path = cache / f"{bler_table.key(link)}.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"delete the file") as caught:
        table_of(link)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_scheme_has_a_table_of_its_own() -> None:
    links = [
        CodedLink(modulation=scheme.modulation, code_rate=scheme.code_rate)
        for name in TABLES
        for scheme in mcs_table(name)
    ]
    rates = {(link.modulation, link.code_rate) for link in links}
    assert len({bler_table.key(link) for link in links}) == len(rates)


def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(bler_table.CACHE, str(tmp_path / "file"))
    monkeypatch.setattr(bler_table, "measure", None)
    with pytest.raises(ConfigError, match=bler_table.CACHE):
        table_of(CodedLink())


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_schemes_comes_with_the_package(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.undo()
    links = [
        CodedLink(modulation=scheme.modulation, code_rate=scheme.code_rate)
        for scheme in mcs_table(name)
    ]
    assert all(bler_table.key(link) in bler_table._shipped() for link in links)
    tables = [bler_table._shipped()[bler_table.key(link)] for link in links]
    limit = [10 * math.log10(2**scheme.efficiency - 1) for scheme in mcs_table(name)]
    apart = [table.snr_at(0.1) - bound for table, bound in zip(tables, limit, strict=True)]
    assert all(0.3 < gap < 3.5 for gap in apart)  # dB beyond what Gaussian input could carry


@pytest.mark.slow
def test_a_shipped_table_is_what_decoding_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for scheme in (mcs_table("qam64")[9], mcs_table("qam64")[24], mcs_table("qam256")[27]):
        link = CodedLink(modulation=scheme.modulation, code_rate=scheme.code_rate)
        table = bler_table._shipped()[bler_table.key(link)]
        snr_db = round(table.snr_at(0.3), 2)
        (rate,) = rates(table, snr_db)
        errors = lost(link, snr_db, 50_000, 256)
        assert abs(errors - 256 * rate) < 4.5 * math.sqrt(256 * rate * (1 - rate) + 4)
