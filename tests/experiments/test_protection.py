"""Unequal against equal protection: the same fades, the same cost, and a table that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from channels.errors import SQLinkError
from experiments.protection import Comparison, Protection, main
from sqlink.settings import parse_settings

CONFIG = """
data: {{name: patterns, options: {{count: 4}}}}
codec: mosaic
over: iid
options: [{{copies: 1}}, {{copies: 2}}, {{copies: 4}}]
uses: 12
conditions: {{loss: [0.2, 0.5]}}
metrics: [psnr]
relevance_pictures: 2
realisations: 6
packet_bytes: 32
output: {output}
"""


def plan(tmp_path: Path, text: str = CONFIG) -> Protection:
    return parse_settings(text.format(output=tmp_path / "out"), Protection, "uep.yaml")


def test_the_table_has_a_line_a_condition_and_metric(tmp_path: Path) -> None:
    comparison = Comparison(plan(tmp_path), "uep.yaml", progress=False)
    text = comparison.run()
    lines = [line for line in text.splitlines() if line.startswith(("| 0.2", "| 0.5"))]
    assert len(lines) == 2
    assert all("psnr_db" in line and "copies" in line for line in lines)
    assert "4 pictures" in text
    assert (tmp_path / "out" / "protection.md").read_text() == text
    chosen = [line for line in text.splitlines() if line.startswith("- loss=")]
    for line in chosen:
        classes = json.loads(line.split("`")[1])
        assert sum(one["packets"] * one["copies"] for one in classes) <= 12
        copies = [one["copies"] for one in classes]
        assert copies == sorted(copies, reverse=True)
    again = Comparison(plan(tmp_path), "uep.yaml", progress=False).run()
    assert again == text


def test_what_packets_add_never_rises(tmp_path: Path) -> None:
    gains = Comparison(plan(tmp_path), "uep.yaml", progress=False)._relevance(6)
    assert len(gains) == 6
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("uses: 12", "uses: 0"), "uses"),
        (("[0.2, 0.5]", "[0.2, 1.5]"), "0 to 1"),
        (("{{copies: 4}}", "{{copeis: 4}}"), "copeis"),
        (("metrics: [psnr]", "metrics: [miou]\njudge: x"), "judge"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(SQLinkError, match=says) as caught:
        Comparison(plan(tmp_path, CONFIG.replace(*change)), "uep.yaml", progress=False).run()
    assert "\n" not in str(caught.value)


def test_the_command_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such file"):
        main([str(tmp_path / "none.yaml")])
