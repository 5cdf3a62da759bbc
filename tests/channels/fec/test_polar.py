"""Polar codes: layouts that the standard allows, bytes that come back, gains of lists."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import fisher_exact

from channels.base import Packets, Reception
from channels.errors import ConfigError
from channels.fec.ldpc import layout
from channels.fec.polar import polar_code, polar_layout
from channels.link.coded import CodedLink
from channels.random import Randomness


def keys(links: int, seed: int = 1) -> Randomness:
    return Randomness.derive(seed, [("link", n) for n in range(links)])


def send(
    links: int, snr_db: float, size: int = 8, seed: int = 1, **parameters: object
) -> Reception:
    link = CodedLink(packet_bytes=size, code="polar", **parameters)  # type: ignore[arg-type]
    words = keys(links, 5).integers(4 * size) % 256
    sent = Packets(
        words.to(torch.uint8).reshape(links, 4, size),
        torch.full((links, 4), size),
        torch.arange(4).expand(links, 4),
    )
    got = link.transmit(sent, {"snr_db": torch.full((links,), snr_db)}, keys(links, seed))
    total = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert torch.equal(total, got.channel_uses * link.bits_per_symbol)
    assert all(bool((bits >= 0).all()) for bits in got.ledger.values())
    assert torch.equal(got.packets.payload[got.delivered], sent.payload[got.delivered])
    return got


def lost(got: Reception) -> list[int]:
    return [int((~got.delivered).sum()), int(got.delivered.sum())]


@pytest.mark.parametrize("m", [1, 2, 4, 6, 8])
def test_every_layout_is_one_that_5g_allows(m: int) -> None:
    for bits in [17, 25, 40, 88, 184, 792, 1013, 1014, 8448, 20000]:
        for rate in [1 / 40, 0.05, 0.1, 0.19, 0.2, 0.25, 0.5, 0.6, 0.8]:
            if rate > 0.6 and bits < 88:  # no room for the CRC11
                continue
            plan = polar_layout("coded", bits, rate, m)
            assert plan.n % m == 0
            assert 20 <= plan.k <= 1013
            assert plan.k + 11 <= plan.n <= 1088
            assert 0 <= plan.padding < max(plan.blocks, 20)
            assert rate * 0.7 <= plan.code_rate <= rate + 1e-9
            words = layout(bits, rate, m).words
            assert (plan.words, plan.check) == (words, 11)


@pytest.mark.parametrize(
    ("k", "n"), [(20, 32), (20, 100), (88, 100), (396, 792), (800, 842), (1013, 1066), (217, 1088)]
)
def test_every_extreme_decodes_where_there_is_no_noise(k: int, n: int) -> None:
    code = polar_code(k, n, 8, "cpu")
    bits = (keys(2, k).uniform(k) < 0.5).float()
    coded = code.encode(bits)
    assert coded.shape == (2, n)
    decided, held = code.decode_until(20 * (2 * coded - 1), 1, 1, lambda m: (m == bits).all(dim=1))
    assert torch.equal(decided, bits)
    assert held.all()


@pytest.mark.parametrize(
    ("size", "modulation", "code_rate"),
    [(8, "bpsk", 0.1), (20, "16qam", 0.9), (96, "qpsk", 0.5), (30, "256qam", 0.025)],
)
def test_a_good_channel_delivers_every_byte_and_accounts_for_every_bit(
    size: int, modulation: str, code_rate: float
) -> None:
    got = send(1, 35.0, size, modulation=modulation, code_rate=code_rate)
    assert bool(got.delivered.all())
    link = CodedLink(packet_bytes=size, modulation=modulation, code_rate=code_rate, code="polar")
    assert got.ledger["crc"].tolist() == [4 * (24 + 11 * link.layout.blocks)]
    assert got.channel_uses.tolist() == [4 * link.uses_per_packet(size)]
    ideal = (8 * size + 24) / code_rate / link.bits_per_symbol
    assert ideal <= link.uses_per_packet(size) <= 1.06 * ideal


def test_repetition_below_one_fifth_is_worth_its_energy() -> None:
    high = send(40, -4.6, code_rate=0.2, seed=1)
    low = send(40, -4.6 - 10 * math.log10(2), code_rate=0.1, seed=2)
    assert 16 < lost(high)[0] < 144
    assert fisher_exact([lost(high), lost(low)]).pvalue > 1e-3


def test_longer_lists_lose_less() -> None:
    one, eight = (send(50, 0.5, list_size=size, crc="crc16") for size in (1, 8))
    assert fisher_exact([lost(one), lost(eight)], alternative="greater").pvalue < 1e-3


def test_deliveries_depend_on_neither_batch_nor_order() -> None:
    link = CodedLink(over="rayleigh", packet_bytes=8, code="polar")
    words = (keys(9, 5).integers(16) % 256).to(torch.uint8).reshape(9, 2, 8)
    sent = Packets(words, torch.full((9, 2), 8), torch.zeros(9, 2, dtype=torch.int64))
    snr_db = torch.linspace(-2, 8, 9)
    whole = link.transmit(sent, {"snr_db": snr_db}, keys(9))
    assert 0 < lost(whole)[0] < 18
    for index in (torch.tensor([4]), torch.arange(8, -1, -1), torch.tensor([0, 7])):
        got = link.transmit(sent.select(index), {"snr_db": snr_db[index]}, keys(9).select(index))
        assert torch.equal(got.delivered, whole.delivered[index])
        assert torch.equal(got.packets.payload, whole.packets.payload[index])


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    polar_code(23, 61, 4, "cpu").encode(torch.zeros(1, 23))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"code": "turbo"}, "unknown code='turbo': known: ldpc, polar"),
        ({"code": "polr"}, "did you mean 'polar'"),
        ({"code": "polar", "list_size": 6}, "list_size=6 must be 1, 2, 4, 8, 16 or 32"),
        ({"code": "polar", "list_size": 64}, "list_size=64 must be an integer from 1 to 32"),
        (
            {"code": "polar", "packet_bytes": 8, "code_rate": 0.95},
            "code_rate=0.95 must be from 0.025 to 0.888 with polar blocks of 88 bits",
        ),
        ({"code": "polar", "code_rate": 0.02}, "code_rate=0.02 must be from 0.025 to 0.95"),
        ({"input": "medium"}, "unknown input='medium'"),
        ({"symbol_rate_hz": 0}, r"symbol_rate_hz=0 must be from 1 to 1e\+12"),
        ({"symbol_rate_hz": float("nan")}, "symbol_rate_hz=nan must be from 1"),
        ({"symbol_rate_hz": True}, "symbol_rate_hz=True must be a number"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        CodedLink(**parameters)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
