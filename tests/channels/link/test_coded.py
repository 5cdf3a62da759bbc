"""Coded links: right bytes, true verdicts, every bit accounted for, any batch alike."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from channels.base import Chain, Packets
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.fading.base import Observation, Timing, register
from channels.fading.block import Awgn
from channels.fec.ldpc import code, layout
from channels.link.coded import CodedLink
from channels.link.uncoded import UncodedLink
from channels.packet.erasure import IidErasure
from channels.random import Randomness
from tests.channels.link.conftest import assert_accounts_hold, packets, snr, streams

NEAR_THE_EDGE_DB = {"awgn": 0.9, "rayleigh": 3.0}


def part(sent: Packets, index: torch.Tensor | slice) -> Packets:
    return Packets(sent.payload[index], sent.lengths[index], sent.priority[index])


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk", "16qam", "64qam", "256qam"])
@pytest.mark.parametrize("code_rate", [0.2, 0.3, 0.5, 0.95])
def test_a_good_channel_delivers_every_byte_and_accounts_for_every_bit(
    modulation: str, code_rate: float
) -> None:
    link = CodedLink(modulation=modulation, code_rate=code_rate, packet_bytes=20)
    sent = packets(4)
    got = link.transmit(sent, snr(4, 40.0), streams(4))
    assert torch.equal(got.delivered, sent.present)
    assert torch.equal(got.correct, sent.present)
    assert got.packets.to_bytes() == sent.to_bytes()
    assert abs(link.layout.k / link.layout.n - code_rate) < 0.03
    assert_accounts_hold(link, sent, got)


@pytest.mark.parametrize(("packet_bytes", "code_rate", "blocks"), [(1500, 0.6, 2), (1000, 0.3, 3)])
def test_packets_longer_than_a_code_block_are_cut_and_put_together(
    packet_bytes: int, code_rate: float, blocks: int
) -> None:
    link = CodedLink(packet_bytes=packet_bytes, code_rate=code_rate)
    assert link.layout.blocks == blocks
    sent = Packets.from_bytes([[bytes(range(250)) * (packet_bytes // 250)]])
    got = link.transmit(sent, snr(1, 8.0), streams(1))
    assert got.packets.to_bytes() == sent.to_bytes()
    assert_accounts_hold(link, sent, got)


@pytest.mark.parametrize("m", [2, 4, 6, 8])
def test_every_layout_is_one_that_5g_allows(m: int) -> None:
    for bits in [17, 25, 40, 293, 792, 3824, 3825, 3840, 3841, 8448, 8449, 20000]:
        for rate in [0.2, 0.25, 0.3, 1 / 3, 0.34, 0.5, 2 / 3, 0.9, 0.95]:
            plan = layout(bits, rate, m)
            assert plan.n % m == 0
            assert plan.blocks * plan.k - plan.bits == plan.padding
            assert 0 <= plan.padding < max(plan.blocks, 12)
            assert 12 <= plan.k <= (8448 if plan.k / plan.n >= 1 / 3 else 3840)
            assert 0.2 <= plan.k / plan.n <= 0.95


@pytest.mark.parametrize("k", [17, 40, 61, 100, 184, 241, 292, 293, 792, 3841])
def test_every_extreme_rate_decodes_where_there_is_no_noise(k: int) -> None:
    for rate in (0.2, 1 / 3, 0.92, 0.95):
        plan = layout(k, rate, 2)
        ldpc = code(plan.k, plan.n, 2, "cpu")
        bits = (Randomness.derive(k, [("bits", n) for n in range(4)]).uniform(k) < 0.5).float()
        bits = torch.nn.functional.pad(bits, (0, plan.padding)).reshape(-1, plan.k)
        assert torch.equal(ldpc.decode(20 * (2 * ldpc.encode(bits) - 1)), bits), plan


@pytest.mark.parametrize("m", [1, 2, 4, 6, 8])
def test_rates_below_one_fifth_are_several_words(m: int) -> None:
    for bits in [17, 184, 640, 792, 3840, 3841, 9000]:
        for rate in [1 / 40, 0.03, 1 / 24, 0.05, 0.1, 0.15, 0.199]:
            plan = layout(bits, rate, m)
            assert plan.n % m == 0
            assert 12 <= plan.k <= 3840
            assert 0.2 <= plan.k / plan.n < 0.4 + 1e-9
            assert plan.words == -(-0.2 // rate) or rate == 1 / 40
            assert plan.code_rate == pytest.approx(rate, rel=0.2)
            assert plan.coded_bits == plan.blocks * plan.words * plan.n


@pytest.mark.parametrize("code_rate", [0.025, 0.07, 0.12, 0.19])
@pytest.mark.parametrize("modulation", ["qpsk", "64qam"])
def test_low_rates_deliver_every_byte_and_account_for_every_bit(
    modulation: str, code_rate: float
) -> None:
    link = CodedLink(modulation=modulation, code_rate=code_rate, packet_bytes=20)
    sent = packets(1, slots=2)
    got = link.transmit(sent, snr(1, 20.0), streams(1))
    assert got.packets.to_bytes() == sent.to_bytes()
    assert_accounts_hold(link, sent, got)
    fec = got.ledger["fec"] / got.ledger["fec"].new_tensor(int(sent.present.sum()))
    assert float(184 / (184 + fec)) == pytest.approx(code_rate, rel=0.05)


def test_bpsk_has_the_error_rate_of_theory_and_hard_decisions_cost_some_two_decibels() -> None:
    sent, ber = packets(60, size=8), 0.5 * math.erfc(math.sqrt(10 ** (5.0 / 10)))
    got = UncodedLink(modulation="bpsk").transmit(sent, snr(60, 5.0), streams(60))
    bits = 8 * sent.lengths[sent.present].double()
    lost = 1 - (1 - ber) ** bits
    error = math.sqrt(float((lost * (1 - lost)).sum()))
    assert abs(int((~got.delivered & sent.present).sum()) - float(lost.sum())) < 4 * error

    def losses(snr_db: float, kind: str) -> int:
        link = CodedLink(packet_bytes=8, input=kind)
        got = link.transmit(sent, snr(60, snr_db), streams(60))
        assert_accounts_hold(link, sent, got)
        return int((~got.delivered & sent.present).sum())

    soft = losses(1.0, "soft")
    assert losses(1.0 + 1.0, "hard") > soft > losses(1.0 + 2.5, "hard")


@register("test_two_halves")
class TwoHalves:
    """A symbol channel whose noise is e^5 times stronger on the second half of each packet."""

    name = "test_two_halves"
    told = True

    def __init__(self, streams: int = 1) -> None:
        self.streams = streams

    def apply(
        self, symbols: torch.Tensor, snr_db: torch.Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        seen = Awgn().apply(symbols, snr_db, randomness, timing)
        late = torch.arange(symbols.shape[2]) >= symbols.shape[2] // 2
        scale = torch.where(late, math.exp(5), 1.0).expand(symbols.shape)
        noisy = symbols + (seen.symbols - symbols) * scale.sqrt()
        variance = seen.noise_variance * scale
        if not self.told:
            variance = variance.mean(dim=2, keepdim=True)
        return Observation(noisy, variance, seen.gain)

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Frames of 100 elements, ten of them pilots, the last one filled up."""
        frames = -(-symbols // (90 * self.streams))
        return 100 * frames, 10 * frames


def test_a_noise_variance_a_symbol_is_taken_into_account(monkeypatch: pytest.MonkeyPatch) -> None:
    link, sent = CodedLink(over="test_two_halves", packet_bytes=20, code_rate=0.25), packets(8)
    got = link.transmit(sent, snr(8, 8.0), streams(8))
    assert torch.equal(got.delivered, sent.present)
    monkeypatch.setattr(TwoHalves, "told", False)
    untold = link.transmit(sent, snr(8, 8.0), streams(8))
    assert int(untold.delivered.sum()) < int(sent.present.sum()) // 2


@pytest.mark.parametrize("kind", ["coded", "uncoded", "harq"])
def test_pilots_and_what_fills_a_frame_are_counted(kind: str) -> None:
    link: CodedLink | UncodedLink = UncodedLink(over="test_two_halves", modulation="16qam")
    if kind != "uncoded":
        harq = {"type": "ir", "rounds": 2} if kind == "harq" else None
        link = CodedLink(over="test_two_halves", packet_bytes=20, harq=harq)
    sent = packets(6)
    got = link.transmit(sent, snr(6, 2.0 if kind == "harq" else 60.0), streams(6))
    total = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert torch.equal(total, got.channel_uses * link.bits_per_symbol)
    assert all(bool((bits >= 0).all()) for bits in got.ledger.values())
    assert torch.equal(got.ledger["pilots"] * 10, got.channel_uses * link.bits_per_symbol)
    if kind == "coded":
        assert link.uses_per_packet(20) == 300  # 184 symbols in frames of 90
        assert torch.equal(got.channel_uses, 300 * sent.present.sum(dim=1))
        assert torch.equal(got.ledger["pilots"], 60 * sent.present.sum(dim=1))
    if kind == "uncoded":
        frames = (2 * sent.lengths + 89) // 90
        assert torch.equal(got.channel_uses, 100 * frames.sum(dim=1))
    if kind == "harq":
        assert float(got.statistics["rounds"].mean()) > 1
        rounds = (got.statistics["rounds"] * sent.present.sum(dim=1)).round().long()
        assert torch.equal(got.channel_uses, 300 * rounds)


def test_an_element_of_two_streams_carries_two_symbols() -> None:
    link = CodedLink(over={"test_two_halves": {"streams": 2}}, packet_bytes=20)
    sent = packets(6)
    got = link.transmit(sent, snr(6, 60.0), streams(6))
    assert (link.uses_per_packet(20), link.bits_per_symbol, link.layout.n) == (200, 4, 368)
    assert_accounts_hold(link, sent, got)
    count = sent.present.sum(dim=1)
    assert torch.equal(got.ledger["pilots"], 20 * 4 * count)
    assert torch.equal(got.ledger["fec"], 184 * count)


@pytest.mark.parametrize("kind", ["coded", "uncoded"])
def test_packets_wait_for_the_link_and_for_their_own_symbols(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link: CodedLink | UncodedLink = (
        CodedLink(packet_bytes=20, symbol_rate_hz=184e3)  # 1 ms a packet
        if kind == "coded"
        else UncodedLink(symbol_rate_hz=4e3)  # 1 ms a byte
    )
    starts: list[torch.Tensor] = []
    original = Awgn.apply

    def apply(
        self: Awgn, symbols: torch.Tensor, snr_db: torch.Tensor, keys: Randomness, timing: Timing
    ) -> Observation:
        starts.append(timing.start_s)
        return original(self, symbols, snr_db, keys, timing)

    monkeypatch.setattr(Awgn, "apply", apply)
    sent = Packets.from_bytes([[b"a", b"bbb", b"cc", b"d"]])
    offered = torch.tensor([[0.0, 0.0, 0.0045, 0.1]], dtype=torch.float64)
    sent = replace(sent, offered_s=offered)
    got = link.transmit(sent, snr(1, 30.0), streams(1))
    ends = [1, 2, 5.5, 101] if kind == "coded" else [1, 4, 6.5, 101]
    expected = torch.tensor([ends], dtype=torch.float64) / 1000 - offered
    assert torch.allclose(got.delay_s, expected)
    assert torch.allclose(starts[0], torch.tensor([[0, 1, 4.5, 100]], dtype=torch.float64) / 1000)
    unhurried = type(link)().transmit(sent, snr(1, 30.0), streams(1))
    assert not bool(unhurried.delay_s.any())
    assert torch.equal(starts[1], offered)
    assert torch.equal(unhurried.packets.payload, got.packets.payload)


@pytest.mark.parametrize("over", ["awgn", "rayleigh"])
def test_a_lost_packet_is_empty_and_a_delivered_one_right(over: str) -> None:
    link, sent = CodedLink(over=over, packet_bytes=20), packets(24)
    got = link.transmit(sent, snr(24, NEAR_THE_EDGE_DB[over]), streams(24))
    assert 5 < int(got.delivered.sum()) < int(sent.present.sum()) - 5
    assert not bool((got.delivered & ~got.correct).any())
    assert torch.equal(got.packets.lengths, sent.lengths * got.delivered)
    lost = ~got.delivered
    assert not bool(got.packets.payload[lost].any())
    assert bool((got.delay_s[lost] == torch.inf).all())
    assert_accounts_hold(link, sent, got)


def test_the_verdict_is_the_crc_and_the_truth_is_kept_beside_it() -> None:
    link = CodedLink(packet_bytes=1, crc="crc16", iterations=4)
    sent = Packets.from_bytes([[b"\x5a"] * 200])
    got = link.transmit(sent, snr(1, -4.0), streams(1))
    assert 0 < int(got.correct.sum()) < 200
    assert bool((got.delivered != got.correct).any())  # right byte, wrong CRC bits: not taken
    assert torch.equal(
        got.packets.payload[got.delivered & got.correct].flatten(),
        torch.full((int((got.delivered & got.correct).sum()),), 0x5A, dtype=torch.uint8),
    )


def test_a_wrong_packet_that_the_crc_lets_through_is_delivered_and_known_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "channels.fec.crc.Crc.holds", lambda self, rows: torch.ones(len(rows), dtype=torch.bool)
    )
    link, sent = CodedLink(packet_bytes=20), packets(8)
    got = link.transmit(sent, snr(8, -10.0), streams(8))
    assert torch.equal(got.delivered, sent.present)
    assert torch.equal(got.packets.lengths, sent.lengths)
    assert not bool(got.correct.any())
    assert bool((got.packets.payload != sent.payload).any(dim=-1)[sent.present].all())


def test_stopping_early_delivers_the_same() -> None:
    sent = packets(16)
    early, late = (
        CodedLink(packet_bytes=20, early_stop=stop).transmit(sent, snr(16, 1.0), streams(16))
        for stop in (True, False)
    )
    assert torch.equal(early.delivered, late.delivered)
    assert torch.equal(early.packets.payload, late.packets.payload)


@pytest.mark.parametrize("kind", ["coded", "uncoded", "picture"])
def test_deliveries_depend_on_neither_batch_nor_order(kind: str) -> None:
    link = {
        "coded": CodedLink(over="rayleigh", packet_bytes=20),
        "uncoded": UncodedLink(modulation="16qam"),
        "picture": CodedLink(over={"rayleigh": {"coherence": "picture"}}, packet_bytes=20),
    }[kind]
    sent, keys = packets(64), streams(64)
    conditions = {"snr_db": torch.linspace(-1, 7, 64) + (9 if kind == "uncoded" else 0)}
    whole = link.transmit(sent, conditions, keys)
    assert 0 < int(whole.delivered.sum()) < int(sent.present.sum())

    def assert_alike(index: torch.Tensor) -> None:
        got = link.transmit(
            part(sent, index), {"snr_db": conditions["snr_db"][index]}, keys.select(index)
        )
        assert torch.equal(got.delivered, whole.delivered[index])
        assert torch.equal(got.correct, whole.correct[index])
        assert torch.equal(got.packets.payload, whole.packets.payload[index])
        assert torch.equal(got.channel_uses, whole.channel_uses[index])

    for index in torch.arange(64).split(7):
        assert_alike(index)
    for link_number in range(0, 64, 9):
        assert_alike(torch.tensor([link_number]))
    assert_alike(torch.randperm(64, generator=torch.Generator().manual_seed(2)))


def test_a_packet_does_not_notice_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    link = CodedLink(over="rayleigh", packet_bytes=20)
    sent = packets(8, slots=5)
    whole = link.transmit(sent, snr(8, 2.0), streams(8))
    head = Packets(sent.payload[:, :2], sent.lengths[:, :2], sent.priority[:, :2])
    got = link.transmit(head, snr(8, 2.0), streams(8))
    assert torch.equal(got.delivered, whole.delivered[:, :2])
    monkeypatch.setattr("channels.link.base._GROUP_SYMBOLS", 1000)
    grouped = link.transmit(sent, snr(8, 2.0), streams(8))
    assert torch.equal(grouped.delivered, whole.delivered)
    assert torch.equal(grouped.statistics["snr_db"], whole.statistics["snr_db"])


def test_no_links_no_packets_and_no_bytes_are_no_trouble() -> None:
    link = CodedLink(packet_bytes=20)
    none = link.transmit(Packets.from_bytes([]), snr(0, 1.0), streams(0))
    assert none.delivered.shape == (0, 0)
    empty = link.transmit(Packets.from_bytes([[], [b"x"]]), snr(2, 9.0), streams(2))
    assert empty.delivered.tolist() == [[False], [True]]
    assert empty.channel_uses[0] == 0


def test_a_chain_charges_only_what_reaches_the_air() -> None:
    sent = packets(12)
    link = CodedLink(packet_bytes=20)
    got = Chain([IidErasure(0.5), link]).transmit(sent, snr(12, 10.0), streams(12))
    total = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert torch.equal(total, got.channel_uses * 2)
    assert torch.equal(got.channel_uses, got.delivered.sum(dim=1) * (link.uses_per_packet(20) or 0))


def test_no_global_random_state_is_read_or_changed() -> None:
    def draw() -> tuple[float, float, float]:
        return (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002

    def seed(number: int) -> None:
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002
        torch.manual_seed(number)

    sent, seen = packets(6), []
    for number in (1, 2):
        seed(number)
        expected = draw()
        seed(number)
        # A size no other test uses, so that its blocks are built here.
        link = build({"rayleigh": {"packet_bytes": 26 + number, "modulation": "16qam"}})
        got = link.transmit(sent, snr(6, 9.0), streams(6))
        seen.append(got.statistics["snr_db"])
        assert draw() == expected
    assert torch.equal(seen[0], seen[1])


def test_the_first_import_of_the_coding_library_leaves_seeds_alone() -> None:
    import subprocess
    import sys

    script = (
        "import torch; torch.manual_seed(7); want = torch.rand(1); torch.manual_seed(7)\n"
        "from channels.fec.ldpc import code; code(40, 80, 2, 'cpu')\n"
        "import sys; assert 'sionna.phy' in sys.modules\n"
        "assert torch.equal(torch.rand(1), want)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=240)


def test_autocast_around_the_link_changes_nothing() -> None:
    link, sent = CodedLink(packet_bytes=20), packets(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = link.transmit(sent, snr(4, 12.0), streams(4))
    assert torch.equal(got.delivered, sent.present)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"code_rate": 0.024}, "code_rate=0.024 must be from 0.025 to 0.95"),
        ({"code_rate": 0.96}, "code_rate=0.96 must be from 0.025 to 0.95"),
        ({"code_rate": float("nan")}, "code_rate=nan must be from 0.025 to 0.95"),
        ({"modulation": "16qm"}, "modulation='16qm': did you mean '16qam'"),
        ({"modulation": 4}, "unknown modulation=4"),
        ({"over": "awng"}, "did you mean 'awgn'"),
        ({"over": {"rayleigh": {"coherense": "packet"}}}, "did you mean 'coherence'"),
        ({"over": {"rayleigh": {"coherence": "slot"}}}, "unknown coherence='slot'"),
        ({"over": 3}, "a symbol channel is a name"),
        ({"packet_bytes": 0}, "packet_bytes=0 must be an integer from 1 to 65535"),
        ({"packet_bytes": 9.5}, "packet_bytes=9.5 must be an integer"),
        ({"crc": "crc32"}, "unknown crc='crc32'"),
        ({"iterations": 0}, "iterations=0 must be an integer from 1 to 1000"),
        ({"early_stop": 1}, "early_stop=1 must be true or false"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        CodedLink(**parameters)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_what_the_channel_cannot_carry_is_refused() -> None:
    link = CodedLink(packet_bytes=20)
    with pytest.raises(ChannelError, match="21 bytes is too long, the code carries 1 to 20"):
        link.transmit(Packets.from_bytes([[b"x" * 21]]), snr(1, 9.0), streams(1))
    with pytest.raises(ChannelError, match="21 bytes is too long"):
        link.uses_per_packet(21)
    for value in (float("nan"), float("inf"), -61.0):
        with pytest.raises(ChannelError, match=r"snr_db=.* must be from -60 to 100"):
            link.transmit(packets(2), snr(2, value), streams(2))
    with pytest.raises(ChannelError, match="condition snr_db is missing"):
        link.transmit(packets(2), {}, streams(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_delivers_what_the_cpu_delivers_away_from_the_edge() -> None:
    link, sent = CodedLink(packet_bytes=20), packets(16)
    on_cuda = Packets(sent.payload.cuda(), sent.lengths.cuda(), sent.priority.cuda())
    for snr_db in (-8.0, 8.0):
        cpu = link.transmit(sent, snr(16, snr_db), streams(16))
        cuda = link.transmit(on_cuda, snr(16, snr_db), streams(16).to("cuda"))
        assert torch.equal(cuda.delivered.cpu(), cpu.delivered)
        assert torch.equal(cuda.packets.payload.cpu(), cpu.packets.payload)


@pytest.mark.parametrize("name", ["coded", "uncoded"])
def test_a_fading_of_another_symbol_rate_is_refused(name: str) -> None:
    over = {"jakes": {"doppler_hz": 10, "symbol_rate_hz": 50_000}}
    with pytest.raises(ConfigError, match=r"symbol_rate_hz=1000000 must equal that of .*50000"):
        build({name: {"over": over, "modulation": "qpsk", "symbol_rate_hz": 1e6}})
    for rate in (None, 50_000):
        build({name: {"over": over, "modulation": "qpsk", "symbol_rate_hz": rate}})
