"""Curves of a channel: counts, intervals, laws beside them, pictures, and the command."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from typer.testing import CliRunner

from channels import theory
from channels.config.builder import build
from channels.fading.base import SYMBOL_CHANNELS
from channels.fading.block import Awgn
from experiments.channel_study.curves import Curves, Share
from experiments.channel_study.draw import draw
from experiments.channel_study.measure import measure, summary, write_csv
from experiments.channel_study.references import bit_references, loss_references, run_reference
from sqlink.cli.app import app


def curves(spec: object, conditions: dict[str, list[float]], **options: object) -> Curves:
    return measure(build(spec), "test", conditions, **options)  # type: ignore[arg-type]


def holds(found: Curves, tolerance: float = 0.0) -> None:
    """Every interval meets the first law, at more points than one in twenty may miss."""
    (law, *_) = loss_references(found)
    for point in found.points:
        low, high = point.lost.interval
        expected = float(law.values(np.array([point.value or 0.0]))[0])
        margin = (high - low) / 2 + tolerance
        assert low - margin <= expected <= high + margin, (point.value, expected, low, high)


def test_one_packet_a_link_has_clopper_and_pearsons_interval() -> None:
    ones = np.ones(40)
    for hits in (0, 3, 40):
        exact = binomtest(hits, 40).proportion_ci(0.95, "exact")
        found = Share.of((np.arange(40) < hits).astype(float), ones)
        assert found.interval == pytest.approx((exact.low, exact.high))


def test_links_that_lose_all_or_nothing_count_once() -> None:
    every = np.full(200, 10.0)
    together = Share.of(np.where(np.arange(200) < 60, 10.0, 0.0), every)
    assert together.effective == pytest.approx(200, rel=0.02)
    apart = Share.of(np.full(200, 3.0), every)
    assert apart.effective == 2000
    assert Share.of(np.zeros(200), every).effective == 200


def test_uncoded_links_lie_on_their_closed_forms() -> None:
    found = curves({"uncoded": {"modulation": "16qam"}}, {"snr_db": [17.0, 18.0]}, packets=600)
    holds(found)
    for point in found.points:
        assert point.bits is not None
        assert point.value is not None
        low, high = point.bits.interval
        expected = float(theory.ber_awgn("16qam", point.value))
        assert low * 0.6 <= expected <= high * 1.5


def test_ideal_codes_lie_on_their_bounds() -> None:
    over = {"rayleigh": {"coherence": "packet"}}
    for law in ("finite_length", "capacity"):
        holds(curves({"ideal": {"over": over, "law": law}}, {"snr_db": [5, 15]}, packets=20_000))
    names = [law.name for law in loss_references(curves("ideal", {"snr_db": [1]}, packets=10))]
    assert names == ["normal approximation (best code of this length)", "capacity (endless code)"]


BURSTS = {"depth_db": 8, "bad": 0.3, "burst": 6}


@pytest.mark.parametrize("law", ["finite_length", "capacity"])
@pytest.mark.parametrize("fading", ["awgn", {"rician": {"k_db": 6}}], ids=["awgn", "rician"])
def test_ideal_codes_in_bursts_lie_on_the_mean_of_two_states(fading: object, law: str) -> None:
    over = {"gilbert_elliott": {**BURSTS, "over": fading}}
    spec = {"ideal": {"over": over, "law": law}}
    holds(curves(spec, {"snr_db": [0.0, 5.0]}, packets=20_000))


@pytest.mark.parametrize("fading", ["awgn", "rayleigh"])
def test_uncoded_links_in_bursts_lie_on_the_mean_of_two_states(fading: str) -> None:
    over = {"gilbert_elliott": {**BURSTS, "over": fading}}
    found = curves({"uncoded": {"over": over}}, {"snr_db": [11.0]}, packets=3000, per_link=1)
    if fading == "awgn":
        holds(found)
    (law,), (point,) = bit_references(found), found.points
    assert point.bits is not None
    low, high = point.bits.interval
    half = (high - low) / 2
    assert low - half <= float(law.values(np.array([11.0]))[0]) <= high + half


def test_bursts_under_a_link_are_shown_as_runs() -> None:
    over = {"gilbert_elliott": {**BURSTS, "depth_db": 30}}
    found = curves({"ideal": {"over": over}}, {"snr_db": [5.0]}, packets=20_000)
    assert found.slots == 50
    (point,) = found.points
    low, high = point.runs[1].interval
    assert low < 1 - 1 / 6 < high
    flat = {"gilbert_elliott": {**BURSTS, "depth_db": 0}}
    laws = loss_references(curves({"ideal": {"over": flat}}, {"snr_db": [1.0]}, packets=100))
    assert [law.name for law in laws][1] == "capacity (endless code)"


def test_links_that_decode_nothing_are_counted_often_whatever_is_around_them() -> None:
    from experiments.channel_study.measure import _decodes

    for name, decodes in (("lookup", False), ("ideal", False), ("coded", True)):
        unequal = {"unequal": {"over": {name: {}}, "classes": [{}]}}
        for spec in (unequal, {"rate_limit": {"bytes": 600, "over": unequal}}, [unequal, "iid"]):
            assert _decodes(build(spec)) == decodes


def test_a_channel_of_another_package_has_no_law_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alike(Awgn):
        pass

    for name in ("rician", "gilbert_elliott"):
        monkeypatch.setattr(Alike, "name", name)
        monkeypatch.setitem(SYMBOL_CHANNELS._factories, "alike", Alike)
        assert (
            loss_references(curves({"ideal": {"over": "alike"}}, {"snr_db": [1.0]}, packets=10))
            == []
        )


def test_bursts_lie_on_the_stationary_law_and_runs_on_theirs() -> None:
    found = curves({"gilbert_elliott": {"burst": 3}}, {"loss": [0.1, 0.4]}, packets=60_000)
    holds(found)
    for point in found.points:
        law = run_reference(found, point.value)
        assert law is not None
        expected = law.values(np.arange(len(point.runs), dtype=np.float64))
        for length in (1, 2, 4):
            low, high = point.runs[length].interval
            half = (high - low) / 2
            assert low - half <= expected[length] <= high + half
    states = {"p": 0.1, "r": 0.3, "loss_good": 0.05, "loss_bad": 0.8}
    holds(curves({"gilbert_elliott": states}, {}, packets=60_000))


def test_delays_lie_on_their_law() -> None:
    from experiments.channel_study.references import delay_reference

    pareto = {"delay": {"mean_s": 0.02, "law": "pareto", "deadline_s": 0.05}}
    found = curves(pareto, {}, packets=20_000)
    holds(found)
    queue = {"bottleneck": {"bandwidth_bits_s": 76_800}}
    waiting = curves(
        queue, {}, packets=40_000, per_link=100, packet_rate_hz=50.0, poisson=True, seed=1
    )
    for curve, tolerance in ((found, 0.0), (waiting, 0.02)):
        law = delay_reference(curve)
        assert law is not None
        (point,) = curve.points
        for t in (0.0105, 0.0155, 0.03):
            low, high = point.within(t).interval
            expected = float(law.values(np.array([t]))[0])
            assert low - tolerance - 0.005 <= expected <= high + tolerance + 0.005


def test_a_coded_link_keeps_above_the_bound() -> None:
    found = curves(
        {"coded": {"packet_bytes": 20}}, {"snr_db": [1.0, 2.0]}, packets=40, packet_bytes=20
    )
    bound = loss_references(found)[0]
    assert bound.bound
    for point in found.points:
        assert point.lost.interval[1] >= float(bound.values(np.array([point.value or 0.0]))[0])


def test_link_adaptation_is_shown_beside_its_target(tmp_path: Path) -> None:
    spec = {"adaptive": {"target": 0.2, "fidelity": "lookup", "table": "qam64"}}
    found = curves(spec, {"snr_db": [5.0, 12.0]}, packets=200)
    (law,) = loss_references(found)
    assert law.target
    assert law.values(np.array([5.0, 12.0])).tolist() == [0.2, 0.2]
    for point in found.points:  # on AWGN the tables keep it, and do not waste it
        assert point.lost.interval[0] <= 0.2
    assert max(point.lost.rate for point in found.points) > 0.02
    write_csv(found, tmp_path / "counts.csv")
    with (tmp_path / "counts.csv").open() as file:
        assert {row["reference"] for row in csv.DictReader(file)} == {""}


@pytest.mark.parametrize(
    ("spec", "conditions", "options"),
    [
        ({"uncoded": {}}, {"snr_db": [0.0, 8.0, 20.0]}, {"packets": 50}),
        ("bursts", {"loss": [0.1, 0.3]}, {"packets": 5000}),
        (
            {"delay": {"mean_s": 0.1, "law": "exponential", "deadline_s": 0.3}},
            {},
            {"packets": 5000},
        ),
        ("lossless", {}, {"packets": 100}),
        ([{"iid_erasure": {"loss": 0.1}}, "ideal"], {"snr_db": [0.0, 3.0]}, {"packets": 500}),
        ({"ideal": {}}, {"snr_db": [3.0]}, {"packets": 500}),
    ],
)
def test_every_kind_is_drawn_written_and_said(
    spec: object, conditions: dict[str, list[float]], options: dict[str, int], tmp_path: Path
) -> None:
    found = curves(spec, conditions, **options)
    draw(found, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 30
    write_csv(found, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= len(found.points)
    for row in rows:
        assert float(row["low"]) <= float(row["rate"]) <= float(row["high"])
        assert int(row["hits"]) <= int(row["trials"])
    assert "packet loss" in summary(found)


def test_the_picture_names_units_n_and_the_law(tmp_path: Path) -> None:
    found = curves({"gilbert_elliott": {"burst": 3}}, {"loss": [0.1, 0.4]}, packets=5000)
    draw(found, tmp_path / "out.svg")
    text = (tmp_path / "out.svg").read_text()
    for words in ("Loss asked for (%)", "Packets lost (%)", "stationary loss", "n = 5000 packets"):
        assert words in text


def test_the_same_seed_gives_the_same_counts() -> None:
    first, again, other = (
        curves("bursts", {"loss": [0.2]}, packets=5000, seed=seed).points[0].lost.hits
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "unknown channel 'nonsense'"),
        (["iid", "--snr-db", "0:1:1"], "does not take snr_db"),
        (["awgn", "--snr-db", "0:x:1"], "--snr-db 0:x:1: give from:to:step"),
        (["awgn", "--snr-db", "200"], "snr_db=200"),
        (["iid", "--loss", "0.1", "--plot", "out.jpeg"], "ends in .png, .pdf, .svg"),
        (["iid", "--loss", "0.1", "--plot", "none/out.png"], "the folder none does not exist"),
        (["iid", "--condition", "loss"], "give NAME=VALUES"),
        (["iid", "--loss", "0.1", "--packets", "3"], "3 packets do not fill one link of 50"),
        (["iid", "--snr-db", "nan"], "--snr-db nan: every value must be finite, from -60 to 100"),
        (["iid", "--loss", "inf"], "--loss inf: every value must be finite, from 0 to 1"),
        (["iid", "--condition", "=5"], "does not take ''"),
        (["iid", "--loss", "0.1", "--packets", "100000000000"], "from 50 to 10000000"),
        (["iid", "--loss", "0.1", "--per-link", "100000000"], "from 1 to 100000"),
        (["iid", "--loss", "0.1", "--poisson"], "Poisson traffic needs a packet rate"),
        (["iid", "--loss", "0.1", "--packet-rate", "nan"], "packet rate nan Hz"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["channel", *arguments])
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_command_draws_and_writes(tmp_path: Path) -> None:
    config = tmp_path / "queue.yaml"
    config.write_text("delay: {mean_s: 0.02, law: exponential}\n")
    plot, out = tmp_path / "q.pdf", tmp_path / "q.csv"
    arguments = ["channel", str(config), "--plot", str(plot), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--packets", "1000"])
    assert result.exit_code == 0, result.output
    assert plot.read_bytes().startswith(b"%PDF")
    assert out.read_text().startswith("quantity,condition,at,hits")
    assert str(plot) in result.stdout
