"""Unequal against equal protection: the same fades, the same cost, and a table that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from channels.errors import SQLinkError
from experiments.uep.comparison import Comparison, Protection, main
from experiments.uep.search import ProtectionPlan, Tuner, equal_plans, unequal_plans
from sqlink.settings import parse_settings

CONFIG = """
data: {{name: patterns, options: {{count: 4}}}}
codec: mosaic
over: iid
options: [{{copies: 1}}, {{copies: 2}}, {{copies: 4}}]
uses: 12
conditions: {{loss: [0.2, 0.5]}}
metrics: [psnr]
tuning_pictures: 4
tuning_draws: 4
finalists: 2
most_packets: 9
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
    assert len(chosen) == 2
    for line in chosen:
        classes = json.loads(line.split("`")[1])
        count = int(line.split(": ")[1].split()[0])
        last = count - sum(one["packets"] for one in classes[:-1])
        assert last > 0
        assert sum(c.get("packets", last) * c["copies"] for c in classes) <= 12
        copies = [one["copies"] for one in classes]
        assert copies == sorted(copies, reverse=True)
    again = Comparison(plan(tmp_path), "uep.yaml", progress=False).run()
    assert again == text


def tuner(tmp_path: Path) -> Tuner:
    return Comparison(plan(tmp_path), "uep.yaml", progress=False)._tuner()


def test_what_packets_add_never_rises(tmp_path: Path) -> None:
    gains = tuner(tmp_path).gains(0, "psnr_db", 6)
    assert len(gains) == 6
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0


def test_the_protection_taken_scored_no_worse_than_any_equal_one(tmp_path: Path) -> None:
    comparison = Comparison(plan(tmp_path), "uep.yaml", progress=False)
    candidates = comparison._tuner()
    for loss in (0.05, 0.5):
        ours, equal = comparison._chosen(candidates, [1, 2, 4], "loss", loss)
        best = max(candidates.score(candidate, loss)["psnr_db"] for candidate in equal)
        assert candidates.score(ours["psnr_db"], loss)["psnr_db"] >= best


def test_nothing_that_comes_is_a_tie(tmp_path: Path) -> None:
    for count, said in (("4", "[n/a: 2 blocks] | n/a"), ("6", "[0.000, 0.000] | no difference")):
        text = CONFIG.replace("[0.2, 0.5]", "[1.0]").replace("count: 4", f"count: {count}")
        table = Comparison(plan(tmp_path, text), "uep.yaml", progress=False).run()
        (line,) = [line for line in table.splitlines() if line.startswith("| 1 ")]
        assert f"0.000 {said}" in line


def test_ways_that_a_codec_cannot_code_are_passed_over(tmp_path: Path) -> None:
    text = CONFIG.replace("codec: mosaic", "codec: {{name: mosaic}}\nequal_codecs: [jpeg2000]")
    text = text.replace("packet_bytes: 32", "packet_bytes: 40")
    candidates = Comparison(plan(tmp_path, text), "uep.yaml", progress=False)
    tuner = candidates._tuner()
    assert not tuner.reaches(ProtectionPlan(1, ((0, 1),)))
    assert tuner.reaches(ProtectionPlan(0, ((0, 1),)))
    ours, equal = candidates._chosen(tuner, [1, 2, 4], "loss", 0.2)
    assert ours
    assert all(tuner.reaches(candidate) for candidate in equal)


def test_a_guess_is_near_the_score_and_follows_the_protection(tmp_path: Path) -> None:
    candidates = tuner(tmp_path)
    found = equal_plans(0, [1, 2, 4], 12, 9) + unequal_plans(0, [1, 2, 4], 12, 9)
    guesses = [candidates.guess(candidate, 0.5)["psnr_db"] for candidate in found]
    scores = [candidates.score(candidate, 0.5)["psnr_db"] for candidate in found]
    assert np.corrcoef(guesses, scores)[0, 1] > 0.7


def test_what_is_delivered_follows_the_classes(tmp_path: Path) -> None:
    candidate = ProtectionPlan(0, ((2, 2), (0, 4)))
    came = tuner(tmp_path).delivered(candidate, 0.5, 4000).mean(axis=0)
    assert came == pytest.approx([1 - 0.5**4] * 2 + [0.5] * 4, abs=0.035)


def test_ways_fill_the_uses_and_never_rise_in_cost() -> None:
    costs = [900, 400, 400, 100]
    found = unequal_plans(0, costs, 2000, 12)
    assert len(found) == len(set(found)) > 5
    for candidate in found:
        spent = [costs[option] for option, _ in candidate.counts]
        assert spent == sorted(set(spent), reverse=True)
        total = sum(costs[option] * count for option, count in candidate.counts)
        assert total <= 2000
        assert candidate.packets == 12 or 2000 - total < spent[-1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("uses: 12", "uses: 0"), "uses"),
        (("[0.2, 0.5]", "[0.2, 1.5]"), "0 to 1"),
        (("{{copies: 4}}", "{{copeis: 4}}"), "copeis"),
        (("metrics: [psnr]", "metrics: [miou]\njudge: x"), "judge"),
        (("metrics: [psnr]", "metrics: [map_fidelity]"), "metrics"),
        (
            ("codec: mosaic", "codec: mosaic\ntuning: {{name: patterns, options: {{count: 0}}}}"),
            "tuning: data.*empty",
        ),
        (("codec: mosaic", "codec: mosaic\nequal_codecs: [mosaik]"), "mosaik"),
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
