"""Recorded losses and delays, replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare

from channels.config.builder import build
from channels.errors import ConfigError
from channels.packet.trace import Trace
from tests.channels.packet.conftest import packets, plain, streams


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "0\n1\n1\n0\n0\n"),
        ("a.csv", "lost\n0\n1\n\n1\n0\n0"),
        ("a.txt", "0, 1,1\r\n0,0\r\n"),
        ("a.csv", "\ufefflost\n0\n1\n1\n0\n0\n"),
        ("a.jsonl", '0\n1\n{"lost": 1}\n{"lost": 0}\n0\n'),
    ],
)
def test_a_trace_of_losses_is_played_as_recorded(tmp_path: Path, name: str, text: str) -> None:
    channel = build({"trace": {"file": str(write(tmp_path, name, text)), "start": 1}})
    got = channel.transmit(packets(2, 12), {}, streams(2))
    assert got.delivered.int().tolist() == [[0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0]] * 2
    assert got.delay_s[0, 2] == 0


def test_a_clipped_trace_is_played_once_and_then_nothing_comes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "0\n1\n0\n0\n")
    got = Trace(path, end="clipped", start=1).transmit(packets(1, 6), {}, streams(1))
    assert got.delivered.int().tolist() == [[0, 1, 1, 0, 0, 0]]
    assert got.statistics["beyond_trace"].tolist() == [3]


def test_a_random_start_is_uniform_and_each_links_own(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "1,0,0,0,0,0,0")
    lost = ~Trace(path).transmit(plain(3000, 7), {}, streams(3000)).delivered
    assert bool((lost.sum(dim=1) == 1).all())
    counts = torch.bincount(lost.int().argmax(dim=1), minlength=7)
    assert chisquare(counts.numpy()).pvalue > 1e-3
    alone = Trace(path).transmit(packets(1, 4), {}, streams(3000).select([17])).delivered
    assert torch.equal(~alone[0], lost[17, :4])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "offered_s,arrival_s\n10,10.5\n11,\n12,12.25\n13,inf\n14,14\n"),
        ("a.csv", "arrival_s,offered_s\n10.5,10\n,11\n12.25,12\nnull,13\n14,14\n"),
        ("a.csv", "10,10.5\n\n12,12.25\n13\n14,14\n"),
        (
            "a.ndjson",
            '{"offered_s": 10, "arrival_s": 10.5}\n{"offered_s": 11}\nnull\n'.replace(
                "null", '{"arrival_s": 12.25, "offered_s": 12}'
            )
            + '{"offered_s": 13, "arrival_s": Infinity}\n{"offered_s": 14, "arrival_s": 14}\n',
        ),
    ],
)
def test_recorded_delays_are_arrival_less_sending(tmp_path: Path, name: str, text: str) -> None:
    channel = Trace(write(tmp_path, name, text), records="arrivals", start=0)
    got = channel.transmit(packets(1, 6), {}, streams(1))
    assert got.delay_s.tolist() == [[0.5, torch.inf, 0.25, torch.inf, 0, 0.5]]
    assert got.delivered.int().tolist() == [[1, 0, 1, 0, 1, 1]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "100.5\n\n102.25\ninf\n104\n"),
        ("a.csv", "arrival_s\n100.5\nnull\n102.25\n\n104\n"),
        ("a.jsonl", '100.5\nnull\n{"arrival_s": 102.25}\n"inf"\n104\n'),
    ],
)
def test_arrivals_alone_count_from_the_fastest_packet(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path, name, text)
    spaced = Trace(path, records="arrivals", start=0, interval_s=1.0, deadline_s=0.3)
    got = spaced.transmit(packets(1, 5), {}, streams(1))
    assert spaced.delay_s.tolist() == [0.5, torch.inf, 0.25, torch.inf, 0]
    assert got.delivered.int().tolist() == [[0, 0, 1, 0, 1]]
    assert got.statistics["late_packets"].tolist() == [1]
    at_once = Trace(path, records="arrivals", interval_s=0)
    assert at_once.delay_s.tolist() == [0, torch.inf, 1.75, torch.inf, 3.5]


@pytest.mark.parametrize(
    ("name", "text", "parameters", "message"),
    [
        ("a.csv", "0\n1\n2\n", {}, r"a\.csv, line 3: '2' must be 0 \(delivered\) or 1 \(lost\)"),
        ("a.csv", "0\nlost\n", {}, r"a\.csv, line 2: 'lost'"),
        ("a.csv", "0,,1\n", {}, r"a\.csv, line 1: ''"),
        ("a.csv", "0;1\n", {}, r"a\.csv, line 1: '0;1'"),
        ("a.csv", '0\n"0\n', {}, r"a\.csv, line 2: is not valid CSV"),
        ("a.jsonl", "0\ntrue\n", {}, r"a\.jsonl, line 2: True"),
        ("a.jsonl", "0\n1.0\n", {}, r"a\.jsonl, line 2: 1\.0"),
        ("a.jsonl", '{"loss": 1}\n', {}, r"a\.jsonl, line 1: .*'loss'"),
        ("a.jsonl", "[0, 1]\n", {}, r"a\.jsonl, line 1: \[0, 1\]"),
        ("a.jsonl", "0\n{\n", {}, r"a\.jsonl, line 2: is not valid JSON"),
        ("a.jsonl", "[" * 9000, {}, r"a\.jsonl, line 1: is not valid JSON"),
        ("a.csv", "1.0\nsoon\n", {"records": "arrivals"}, r"line 2: arrival_s='soon'"),
        ("a.csv", "1.0\nnan\n", {"records": "arrivals"}, r"line 2: arrival_s='nan'"),
        ("a.csv", "1.0\n2,3\n", {"records": "arrivals"}, "line 2: 2 cells: give 1"),
        ("a.csv", "1,2,3\n", {"records": "arrivals"}, "line 1: 3 cells: give 2"),
        ("a.csv", "5,4\n", {"records": "arrivals"}, "line 1: arrival_s=4, but offered_s 5 is"),
        ("a.csv", "1,2\n,3\n", {"records": "arrivals"}, "line 2: .* offered_s is missing"),
        ("a.jsonl", "1\ntrue\n", {"records": "arrivals"}, "line 2: arrival_s=True"),
        ("a.jsonl", "1" + "0" * 400, {"records": "arrivals"}, "line 1: arrival_s=10"),
        ("a.jsonl", '{"arrival": 1}', {"records": "arrivals"}, "line 1: 'arrival' must be"),
        ("a.csv", "1\n2\n", {"records": "arrivals"}, "has no offered_s: give interval_s"),
        (
            "a.csv",
            "1,2\n",
            {"records": "arrivals", "interval_s": 1},
            "has offered_s: leave interval_s=1 out",
        ),
        ("a.csv", "0\n", {"interval_s": 1}, "interval_s=1 needs arrivals"),
        ("a.csv", "", {}, "has no record"),
        ("a.csv", "lost\n", {}, "has no record"),
        ("a.csv", "0\n1\n", {"start": 2}, "start=2 must be an integer from 0 to 1"),
        ("a.csv", "0\n", {"start": "here"}, "start='here' must be an integer or random"),
        ("a.csv", "0\n", {"start": True}, "start=True must be an integer or random"),
        ("a.csv", "0\n", {"end": "cycle"}, "unknown end='cycle': did you mean 'cyclic'"),
        ("a.csv", "0\n", {"records": "delays"}, "unknown records='delays'"),
        ("a.csv", "0\n", {"deadline_s": float("inf")}, "deadline_s=inf must be from 0 to 10000"),
        ("a.pcap", "0\n", {}, r"must end in one of \.csv"),
    ],
)
def test_a_wrong_trace_is_refused_with_file_and_line(
    tmp_path: Path, name: str, text: str, parameters: dict[str, object], message: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        build({"trace": {"file": str(path), **parameters}})
    assert "\n" not in str(caught.value)


def test_a_trace_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.csv: No such file"):
        Trace(tmp_path / "nowhere.csv")
    (tmp_path / "b.csv").write_bytes(b"0\n\xff\n")
    with pytest.raises(ConfigError, match=r"b\.csv is not UTF-8 text"):
        Trace(tmp_path / "b.csv")
    with pytest.raises(ConfigError, match="file=7 must be the path"):
        build({"trace": {"file": 7}})
    with pytest.raises(ConfigError, match="option 'file' is missing"):
        build("trace")
