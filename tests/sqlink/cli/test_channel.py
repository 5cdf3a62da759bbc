"""`sqlink plan` and `sqlink channel`: what they print, and what they refuse before any work."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from channels.config.builder import build
from channels.planning.operating_points import LOW_GAIN_DB
from sqlink.cli.app import app
from tests.sqlink.cli.test_app import sqlink


@pytest.mark.parametrize(
    "over",
    [
        "2026-13-45",
        "[[[",
        "{[1]: 2}",
        "? {a: b}\n: 1",
        "!!python/object:os.system x",
        "[" * 5000,
        "\x01",
    ],
)
def test_what_is_no_yaml_is_one_short_line(over: str) -> None:
    line = sqlink("plan", "--over", over, code=2)
    assert "--over" in line
    assert any(says in line for says in ("not valid YAML", "line 1: ", "nested too deeply"))
    assert len(line) < 400


@pytest.mark.parametrize("over", ["", "{}", "&a [*a]", "12:30", "2026-01-01", "{awgn: {k_db: 3}}"])
def test_yaml_that_is_no_fading_is_one_line(over: str) -> None:
    sqlink("plan", "--over", over, code=2)


def test_one_snr_and_a_table_over_snr_exclude_each_other() -> None:
    line = sqlink("plan", "--at", 5, "--snr-db", "0:10:5", code=2)
    assert "--at and --snr-db exclude each other" in line
    assert "--snr-db" in sqlink("plan", "--snr-db", "", code=2)


def test_a_table_says_what_it_is_of() -> None:
    said = sqlink("plan", "--over", "{rician: {k_db: 6}}", "--snr-db", "20", "--loss", 0.02)
    first, empty, *table = said.splitlines()
    for part in ("{rician: {k_db: 6}}", "8 packets", "96 bytes", "0.02", "qam64"):
        assert part in first
    assert empty == ""
    assert [line[0] for line in table] == ["|"] * 3


def test_one_point_is_a_channel_and_nothing_else() -> None:
    said = sqlink("plan", "--over", "awgn", "--at", 6)
    assert build(yaml.safe_load(said)).needs == ("snr_db",)


def test_the_hint_names_only_what_helps() -> None:
    """The lowest codes are of 120/1024 and of 30/1024: about 6 dB, and nothing reaches -40 dB."""
    fourfold = 10 * math.log10((2 ** (240 / 1024) - 1) / (2 ** (60 / 1024) - 1))
    assert pytest.approx(fourfold, abs=0.5) == LOW_GAIN_DB
    near = sqlink("plan", "--over", "awgn", "--at", -8, code=2)
    assert "--table qam64-low" in near
    far = sqlink("plan", "--over", "awgn", "--at", -40, code=2)
    assert "qam64-low" not in far
    assert "raise --loss" not in far
    assert "raise the SNR" in far
    fades = sqlink("plan", "--over", "rayleigh", "--at", -5, code=2)
    assert "raise --loss (0.01 now, at most 0.5)" in fades


def test_a_table_with_gaps_has_the_hint_beside_it() -> None:
    result = CliRunner().invoke(app, ["plan", "--over", "awgn", "--snr-db", "-8,10"])
    assert result.exit_code == 0
    assert "| -8 | - |" in result.stdout
    assert "note: " not in result.stdout
    assert "--table qam64-low" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_help_gives_the_range_that_is_taken() -> None:
    said = " ".join(
        CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", "--help"]).stdout.split()
    )
    assert "0.001..0.5" in said
    assert "from 0.001 to 0.5" in sqlink("plan", "--loss", 0.7, code=2)


@pytest.mark.parametrize(
    "options",
    [
        ("--snr-db", "5", "--condition", "snr_db=7"),
        ("--condition", "snr_db=7", "--condition", "snr_db=8"),
        ("--snr-db", "5", "--snr-db", "7"),
        ("--loss", "0.1", "--condition", "loss=0.2"),
        ("--snr-db", "5", "--condition", " snr_db =7"),
    ],
)
def test_a_condition_given_twice_is_refused(options: tuple[str, ...]) -> None:
    name = "loss" if "--loss" in options else "snr_db"
    assert f"{name} is given twice" in sqlink("channel", "awgn", *options, code=2)


def test_a_condition_given_once_is_measured(tmp_path: Path) -> None:
    for option in (("--loss", "0.5,1"), ("--condition", "loss=0.5,1")):
        out = tmp_path / "counts.csv"
        said = sqlink("channel", "iid", *option, "--packets", 500, "--out", out)
        assert said.splitlines()[-1] == str(out)
        last = out.read_text().splitlines()[-1].split(",")
        assert last[1] == "1"
        assert float(last[5]) == 1


def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.channel_study.measure.measure", None)
    line = sqlink("channel", "iid", "--out", tmp_path, code=2)
    assert f"{tmp_path} is a folder: name a file" in line
    assert "make it first" in sqlink("channel", "iid", "--out", tmp_path / "no" / "a.csv", code=2)
    same = tmp_path / "a.png"
    assert "both name" in sqlink("channel", "iid", "--out", same, "--plot", same, code=2)
    monkeypatch.setattr("os.access", lambda *_: False)
    line = sqlink("channel", "iid", "--out", tmp_path / "a.csv", code=2)
    assert "a.csv cannot be written" in line
