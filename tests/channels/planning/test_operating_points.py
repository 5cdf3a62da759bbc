"""Operating points: what is promised is what the channel then does."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from channels.base import Packets
from channels.config.builder import build
from channels.errors import ConfigError
from channels.link import bler_table
from channels.link.bler_table import BlerTable
from channels.link.coded import CodedLink
from channels.link.mcs import mcs_table
from channels.planning.operating_points import operating_points, table
from channels.random import Randomness


@pytest.fixture(autouse=True)
def _tables(cache: Path) -> None:
    """Every MCS falls from 1 to 0 about 2 dB over its capacity."""
    for scheme in mcs_table("qam64"):
        link = CodedLink(modulation=scheme.modulation, code_rate=scheme.code_rate)
        middle = 10 * math.log10(2**scheme.efficiency - 1) + 2
        one = BlerTable((middle - 0.5, middle, middle + 0.5), (977, 500, 23), (1000,) * 3)
        bler_table.write(bler_table.cache_folder() / f"{bler_table.key(link)}.json", link, one)


def as_lookup(spec: object) -> object:
    """The same channel with errors drawn from the table."""
    if isinstance(spec, dict):
        return {
            "lookup" if key == "coded" else key: as_lookup(value) for key, value in spec.items()
        }
    return spec


@pytest.mark.parametrize("coherence", ["packet", "picture"])
def test_a_point_keeps_its_word(coherence: str) -> None:
    over = {"rayleigh": {"coherence": coherence}}
    links = 3000
    packets = Packets.from_bytes([[bytes(96)] * 8] * links)
    streams = Randomness.derive(9, [("another seed", n) for n in range(links)])
    for point in operating_points([15.0, 25.0], over, packets=8, loss=0.02):
        assert point is not None
        spec = as_lookup(point.spec(over, 96))
        channel = build(spec)
        snr_db = torch.full((links,), point.snr_db, dtype=torch.float64)
        came = channel.transmit(packets, {"snr_db": snr_db}, streams)
        missing = (~came.delivered).double().mean(dim=1)
        error = missing.std().item() / math.sqrt(links)
        assert missing.mean().item() == pytest.approx(point.residual, abs=6 * error + 1e-3)
        assert point.residual <= 0.02
        assert (came.channel_uses == point.uses_per_picture).all()


def test_more_snr_costs_less_and_awgn_needs_no_protection() -> None:
    points = operating_points([-5.0, 0.0, 5.0, 10.0, 20.0])
    uses = [point.uses_per_picture for point in points if point is not None]
    assert len(uses) == 5
    assert uses == sorted(uses, reverse=True)
    highest = points[-1]
    assert highest is not None
    assert highest.protection == "none"
    assert highest.scheme.index == 28
    one = CodedLink(
        fidelity="lookup", modulation=highest.scheme.modulation, code_rate=highest.scheme.code_rate
    )
    assert highest.uses_per_picture == 8 * one.uses_per_packet(96)


def test_where_pictures_meet_one_fade_protection_buys_little() -> None:
    snr_db = [12.0]
    (free,) = operating_points(snr_db, {"rayleigh": {"coherence": "packet"}})
    (tied,) = operating_points(snr_db, {"rayleigh": {"coherence": "picture"}})
    assert free is not None
    assert tied is None or tied.uses_per_picture > free.uses_per_picture
    assert "none keeps" in table([None], [3.0], 0.01)


def test_what_was_never_seen_is_bounded_by_how_often_one_looked() -> None:
    """None in n: below 3/n with 95 % (Hanley and Lippman-Hand, JAMA 249, 1983)."""
    for packets, realisations in ((8, 4000), (600, 1111)):
        points = operating_points([25.0], "rayleigh", packets=packets)
        (point,) = points
        assert point is not None
        assert point.repair
        assert point.outage == 0
        assert point.realisations == realisations
        bound = 1 - 0.05 ** (1 / realisations)
        (shown,) = (c for c in table(points, [25.0], 0.01).split("|") if "<" in c)
        assert float(shown.replace("<", "")) == pytest.approx(bound, rel=0.25)
    (sure,) = operating_points([60.0])
    assert "| < 1e-06 |" in table([sure], [60.0], 0.01)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"loss": 0.0}, "0.001 to 0.5"),
        ({"packets": 0}, "1 to 1000"),
        ({"table": "qam"}, "qam64"),
        ({"over": {"tdl": {}}}, "known gain"),
        ({"over": "rayligh"}, "rayleigh"),
        ({"over": "bsc"}, "bit channel"),
        ({"over": {"rayleigh": {"coherence": 10}}}, "plan: over=.*'coherence': 10.*csi perfect"),
        ({"over": {"rayleigh": {"csi": "estimated"}}}, "plan: over=.*'estimated'.*csi perfect"),
        ({"packet_bytes": 0}, "plan: packet_bytes=0 must be an integer from 1 to 65535"),
        ({"snr_db": [float("nan")]}, "snr_db=nan"),
    ],
)
def test_wrong_questions_are_refused(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        operating_points(**{"snr_db": [5.0], **parameters})  # type: ignore[arg-type]


def easy(link: CodedLink, snr_db: float, first: int, count: int, seed: int = 0) -> int:
    """All is lost below the capacity of Gaussian input, nothing above."""
    return count if snr_db <= 10 * math.log10(2 ** (2 * link.code_rate) - 1) else 0


def test_what_has_to_be_measured_is_told_before_and_while_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where nobody watches, too: the six codes of qam64-low that are not of qam64."""
    assert not sys.stderr.isatty()
    before: list[str] = []
    measure = bler_table.measure

    def watched(*arguments: Any, **named: Any) -> BlerTable:
        if not before:
            before.append(capsys.readouterr().err)
        return measure(*arguments, **named)

    monkeypatch.setattr(bler_table, "measure", watched)
    monkeypatch.setattr(bler_table, "lost", easy)
    monkeypatch.setattr(bler_table.Teller, "UNWATCHED_S", 0)
    operating_points([-5.0], table="qam64-low")
    (line,) = before
    assert line.count("\n") == 1
    rates = ", ".join(f"{rate / 1024:.3f}" for rate in (30, 40, 50, 64, 78, 99))
    for part in ("plan: ", "6 codes", f"qpsk {rates}", "about", str(tmp_path), "$SQLINK_CACHE"):
        assert part in line
    told = capsys.readouterr().err.splitlines()
    assert {entry.split(":")[0].strip() for entry in told} == {
        f"code {n} of 6" for n in range(1, 7)
    }
    assert all("packets lost" in entry for entry in told)
    operating_points([-5.0], table="qam64-low")
    assert capsys.readouterr().err == ""


def test_progress_is_told_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(bler_table, "time", SimpleNamespace(monotonic=lambda: clock.now))
    for watched, lines in ((False, 10), (True, 150)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda watched=watched: watched)
        tell = bler_table.Teller(3)
        for _ in range(300):
            clock.now += 1
            tell("point")
        assert capsys.readouterr().err.count("\n") == lines


def test_the_time_it_takes_is_that_of_a_table_for_each_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    shipped = [sum(table.trials) for table in bler_table._shipped().values()]
    assert sum(shipped) / len(shipped) == pytest.approx(bler_table.PACKETS_PER_TABLE, rel=0.05)
    clock = SimpleNamespace(now=0.0)

    def decoded(link: CodedLink, snr_db: float, first: int, count: int, seed: int = 0) -> int:
        clock.now += 0.02 * count
        return 0

    monkeypatch.setattr(bler_table, "lost", decoded)
    monkeypatch.setattr(bler_table, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    for packet_bytes in (96, 5000):
        links = [CodedLink(code_rate=0.1 * n, packet_bytes=packet_bytes) for n in range(2, 8)]
        for count in (1, 2, 6):
            expected = bler_table.expected_s(links[:count])
            assert expected == pytest.approx(0.02 * count * bler_table.PACKETS_PER_TABLE)
    assert clock.now < 20
