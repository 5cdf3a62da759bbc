"""Symbols over the symbol channels of packet links: noise, channel uses, fades."""

import pytest
import torch

from channels.base import Packets
from channels.config.builder import build
from channels.random import Randomness
from sqlink.analogue.symbol_link import SymbolLink
from sqlink.codecs.base import Rate
from sqlink.errors import ConfigError

MOST = 10**6


def link(over: object, packet_bytes: int = 96, **options: object) -> SymbolLink:
    channel = build({"coded": {"over": over, "packet_bytes": packet_bytes, **options}})
    return SymbolLink(channel, packet_bytes)


def keys(count: int) -> Randomness:
    return Randomness.derive(3, [("point", "picture", n) for n in range(count)])


def unit_symbols(count: int, size: int) -> torch.Tensor:
    angle = torch.rand(count, size, generator=torch.Generator().manual_seed(0)) * 6.2831853
    return torch.polar(torch.ones_like(angle), angle)


@pytest.mark.parametrize("snr_db", [-2.0, 7.0, 20.0])
def test_noise_on_awgn_has_the_power_that_the_snr_says(snr_db: float) -> None:
    one = link("awgn")
    frame = one.frame(40_000, MOST)
    symbols = unit_symbols(4, frame.total)
    snr = torch.full((4,), snr_db)
    seen, variance, gain = one.transmit(symbols, frame, snr, keys(4))
    n0 = 10 ** (-snr_db / 10)
    measured = (seen - symbols).abs().square().mean()
    assert measured == pytest.approx(n0, rel=0.015)  # 160 000 draws: standard error 0.25 %
    for part in ((seen - symbols).real, (seen - symbols).imag):  # N0 / 2 on each real value
        assert part.square().mean() == pytest.approx(n0 / 2, rel=0.02)
    torch.testing.assert_close(variance, torch.full_like(variance, n0))
    assert gain.tolist() == [1.0] * 4


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_a_linear_system_without_coding_has_the_error_of_its_law(snr_db: float) -> None:
    # Values of variance v, sent as they are at unit power: the receiver that scales them back errs
    # by v / SNR, and one that scales by v / (v + v / SNR) by v / (1 + SNR).
    one = link("awgn")
    frame = one.frame(30_000, MOST)
    source = 0.3 * torch.randn(2, frame.total, 2, generator=torch.Generator().manual_seed(1))
    scale = source.square().mean(dim=(1, 2), keepdim=True).sqrt() * 2**0.5
    symbols = torch.view_as_complex((source / scale).contiguous())
    torch.testing.assert_close(symbols.abs().square().mean(dim=1), torch.ones(2))
    snr = 10 ** (snr_db / 10)
    seen, _, _ = one.transmit(symbols, frame, torch.full((2,), snr_db), keys(2))
    back = torch.view_as_real(seen) * scale
    power = source.square().mean()
    assert (back - source).square().mean() == pytest.approx(float(power) / snr, rel=0.02)
    shrunk = back * snr / (1 + snr)
    assert (shrunk - source).square().mean() == pytest.approx(float(power) / (1 + snr), rel=0.02)


def test_noise_under_rayleigh_fading_is_that_of_each_packets_gain() -> None:
    one = link({"rayleigh": {"coherence": "packet"}})
    frame = one.frame(8 * one.packet_uses, MOST)
    symbols = unit_symbols(40, frame.total)
    seen, variance, gain = one.transmit(symbols, frame, torch.full((40,), 5.0), keys(40))
    ratio = ((seen - symbols).abs().square() / variance).mean()
    assert ratio == pytest.approx(1.0, rel=0.02)
    by_packet = variance.reshape(40, frame.symbols, frame.packets)
    assert bool((by_packet == by_packet[:, :1]).all())  # one gain per packet, in turn
    assert len(by_packet[0, 0].unique()) == frame.packets
    assert gain.mean() == pytest.approx(1.0, abs=0.2)  # 320 fades: standard error 0.056


def test_symbols_meet_the_fades_that_packets_meet() -> None:
    spec = {"coded": {"over": {"rayleigh": {"coherence": "packet"}}}}
    channel = build(spec)
    one = SymbolLink(channel, 96)
    frame = one.frame(5 * one.packet_uses, MOST)
    _, _, gain = one.transmit(unit_symbols(3, frame.total), frame, torch.full((3,), 9.0), keys(3))
    packets = Packets.from_bytes([[bytes(96)] * 5] * 3)
    reception = channel.transmit(packets, {"snr_db": torch.full((3,), 9.0)}, keys(3))
    met = 10 ** ((reception.statistics["snr_db"] - 9.0) / 10)
    torch.testing.assert_close(gain.double(), met, atol=1e-5, rtol=1e-4)


def test_estimated_channels_cost_pilots_and_leave_the_noise_that_they_say() -> None:
    one = link({"rayleigh": {"coherence": "packet", "csi": "estimated", "pilots": 4}})
    frame = one.frame(4000, MOST)
    assert frame.elements == frame.symbols + 4
    assert frame.channel_uses <= 4000
    symbols = unit_symbols(60, frame.total)
    seen, variance, _ = one.transmit(symbols, frame, torch.full((60,), 10.0), keys(60))
    ratio = ((seen - symbols).abs().square() / variance).mean()
    assert ratio == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("uses", [1, 791, 793, 7200, 12_345])
def test_a_frame_fills_the_channel_uses_and_never_exceeds_them(uses: int) -> None:
    frame = link("awgn").frame(uses, MOST)
    assert frame.channel_uses <= uses
    assert frame.channel_uses > uses - frame.packets
    assert frame.elements <= link("awgn").packet_uses


def test_a_frame_stops_at_what_the_picture_can_fill() -> None:
    frame = link("awgn").frame(100_000, 5000)
    assert 4800 < frame.total <= 5000


def test_rates_in_bytes_are_the_channel_uses_of_their_packets() -> None:
    one = link("awgn")
    assert one.uses(Rate(bytes=960), 64, 64) == 10 * one.packet_uses
    assert one.uses(Rate(bytes=961), 64, 64) == 11 * one.packet_uses
    assert one.uses(Rate(channel_uses=777), 64, 64) == 777
    assert one.uses(Rate(quality=1 / 6), 64, 96) == 64 * 96 // 2


def test_bad_channels_and_rates_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="carries packets, not symbols"):
        SymbolLink(build({"iid": {"loss": 0.1}}), 96)
    with pytest.raises(ConfigError, match="carries packets, not symbols"):
        SymbolLink(build({"uncoded": {"over": {"bsc": {"crossover": 0.01}}}}), 96)
    with pytest.raises(ConfigError, match="carry no symbol"):
        link({"rayleigh": {"csi": "estimated", "pilots": 4}}).frame(4, MOST)
