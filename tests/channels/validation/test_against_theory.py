"""The table of models and laws: it holds as things are, and fails where a model is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from channels.packet.erasure import IidErasure
from channels.validation import against_theory
from channels.validation.against_theory import Mean, Row, Size, confidence_of, measure, table
from channels.validation.error_rates import PUBLISHED, Proportion

QUICK = (
    against_theory.rayleigh_ber,
    against_theory.attenuation_bursts,
    against_theory.block_fading_outage,
    against_theory.iid_loss,
    against_theory.gilbert_elliott,
    against_theory.random_delay,
    against_theory.token_bucket,
    against_theory.queue_wait,
    against_theory.binary_capacity,
)


def a_row(expected: float | tuple[float, float], errors: int, trials: int = 1000) -> Row:
    return Row("model", "what", "law", expected, Proportion(errors, trials))


def test_the_laws_hold() -> None:
    rows = measure(Size(full=False, seed=1), QUICK)
    each = confidence_of(rows)
    assert [row for row in rows if not row.holds(each)] == []
    assert "OUTSIDE" not in table(rows)
    assert len({(row.model, row.quantity) for row in rows}) == len(rows)


def test_a_row_outside_is_seen() -> None:
    assert a_row(0.1, 100).holds(0.99)
    assert not a_row(0.1, 160).holds(0.99)
    assert not a_row(0.0, 1).holds(0.99)
    assert a_row((0.05, 0.09), 100).holds(0.99)
    assert not a_row((0.01, 0.05), 100).holds(0.99)
    assert "**OUTSIDE**" in table([a_row(0.1, 160)])


def test_a_wrong_model_fails_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(against_theory, "ROWS", [against_theory.iid_loss])
    assert against_theory.main(["--seed", "1"]) == 0
    sent = IidErasure.transmit

    def unfair(self, packets, conditions, randomness):  # type: ignore[no-untyped-def]
        self.loss = 0.22
        return sent(self, packets, conditions, randomness)

    monkeypatch.setattr(IidErasure, "transmit", unfair)
    assert against_theory.main(["--seed", "1"]) == 1
    assert "outside: iid_erasure, 0.2: packets lost" in capsys.readouterr().err


def test_intervals_hold_together() -> None:
    rows = [a_row(0.1, 100)] * 20
    assert confidence_of(rows) == pytest.approx(1 - 0.01 / 20)
    low, high = Mean(0.0, 2.0, 400).interval(0.95)
    assert (low, high) == pytest.approx((-0.196, 0.196), abs=1e-3)
    found = Mean.of(torch.tensor([1.0, 2.0, 3.0]))
    assert (found.rate, found.deviation, found.trials) == (2.0, 1.0, 3)


def test_a_full_run_expects_a_hundred_errors_a_point() -> None:
    size = Size(full=True)
    for expected in (0.5, 1e-2, 1e-4, 0.999):
        rare = min(expected, 1 - expected)
        assert size.trials(expected, 100) * rare >= 100
    assert Size(full=False).trials(1e-4, 77) == 77


def test_published_curves_are_read_both_ways() -> None:
    for curve in PUBLISHED:
        for ebno_db in (0.3, 1.2, 2.7, 4.0):
            assert curve.ebno_at(curve.bler_at(ebno_db)) == pytest.approx(ebno_db)


def test_the_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(size: Size) -> Iterator[Row]:
        yield a_row(0.1, 100)

    monkeypatch.setattr(against_theory, "ROWS", [few])
    out = tmp_path / "table.md"
    assert against_theory.main(["--out", str(out)]) == 0
    assert out.read_text().splitlines()[2].startswith("| model | what | law | 0.1 | 0.1 | 100 / 10")
    assert against_theory.main(["--out", str(tmp_path / "none" / "table.md")]) == 2


@pytest.mark.slow
def test_the_command_holds_at_reduced_size() -> None:
    assert against_theory.main([]) == 0
