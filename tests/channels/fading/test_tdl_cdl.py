"""TDL and CDL over OFDM: TR 38.901's tables, estimation, equalisation, one bank for any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import j0

from channels.base import Packets
from channels.config.builder import build, from_spec
from channels.errors import ChannelError, ConfigError
from channels.fading import tdl_cdl
from channels.fading.base import SYMBOL_CHANNELS, Flat, Observation, Piloted, SymbolChannel, Timing
from channels.fading.tdl_cdl import Cdl, Tdl
from tests.channels.fading.conftest import data, keys

# Normalised delays and powers in dB, TR 38.901 tables 7.7.2-1 and 7.7.2-3 (CDL-A has TDL-A's).
TABLE = {
    "A": [
        (0.0000, -13.4), (0.3819, 0.0), (0.4025, -2.2), (0.5868, -4.0), (0.4610, -6.0),
        (0.5375, -8.2), (0.6708, -9.9), (0.5750, -10.5), (0.7618, -7.5), (1.5375, -15.9),
        (1.8978, -6.6), (2.2242, -16.7), (2.1718, -12.4), (2.4942, -15.2), (2.5119, -10.8),
        (3.0582, -11.3), (4.0810, -12.7), (4.4579, -16.2), (4.5695, -18.3), (4.7966, -18.9),
        (5.0066, -16.6), (5.3043, -19.9), (9.6586, -29.7),
    ],
    "C": [
        (0.0000, -4.4), (0.2099, -1.2), (0.2219, -3.5), (0.2329, -5.2), (0.2176, -2.5),
        (0.6366, 0.0), (0.6448, -2.2), (0.6560, -3.9), (0.6584, -7.4), (0.7935, -7.1),
        (0.8213, -10.7), (0.9336, -11.1), (1.2285, -5.1), (1.3083, -6.8), (2.1704, -8.7),
        (2.7105, -13.2), (4.2589, -13.9), (4.6003, -13.9), (5.4902, -15.8), (5.6077, -17.1),
        (6.3065, -16.0), (6.6374, -15.7), (7.0427, -21.6), (8.6523, -22.8),
    ],
}  # fmt: skip


SMALL = 64
"""Realisations of a bank where its statistics do not matter."""


def send(channel: SymbolChannel, x: torch.Tensor, snr_db: float) -> Observation:
    links, slots = x.shape[:2]
    snr = torch.full((links,), snr_db, dtype=torch.float64)
    return channel.apply(x, snr, keys(links), Timing.together(links, slots))


def taps(channel: Tdl | Cdl, count: int, steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Of the first realisations: coefficients [count, r, t, paths, steps] and delays [paths]."""
    a, delays = channel.multipath.take(torch.arange(count), steps)
    return a[:, 0, :, 0].numpy().astype(np.complex128), delays.flatten().numpy()


@pytest.mark.parametrize(
    ("profile", "model", "count"), [(Tdl, "A", 4096), (Tdl, "C", 4096), (Cdl, "A", 1024)]
)
def test_delays_and_powers_of_the_bank_are_those_of_the_standard(
    profile: type[Tdl | Cdl], model: str, count: int
) -> None:
    a, delays = taps(profile(model=model, delay_spread_ns=300.0), count)
    table = np.array(TABLE[model] if profile is Tdl else sorted(TABLE[model]))
    np.testing.assert_allclose(delays, table[:, 0] * 300e-9, rtol=1e-5, atol=1e-15)
    power = np.abs(a[:, 0, 0, :, 0]) ** 2
    law = 10 ** (table[:, 1] / 10)
    law /= law.sum()
    z = (power.mean(axis=0) - law) / (power.std(axis=0) / math.sqrt(count))
    assert np.abs(z).max() < 4
    spread = math.sqrt(law @ delays**2 - (law @ delays) ** 2)
    assert spread == pytest.approx(300e-9, rel=0.02)


@pytest.mark.parametrize(("model", "k_db"), [("D", 13.3), ("E", 22.0)])
def test_the_first_tap_of_a_line_of_sight_has_the_k_factor_of_the_standard(
    model: str, k_db: float
) -> None:
    """|h|^2 of variance s^2 (2 K + 1) and mean s (K + 1), whence K (tables 7.7.2-4 and -5)."""
    a, _ = taps(Tdl(model=model), 4096)
    first = np.abs(a[:, 0, 0, 0, 0]) ** 2
    k = 10 ** (k_db / 10)
    law = (2 * k + 1) / (k + 1) ** 2
    assert first.var() / first.mean() ** 2 == pytest.approx(law, rel=0.1)


@pytest.mark.parametrize("model", ["A", "B", "C", "D", "E"])
@pytest.mark.parametrize(("profile", "count"), [(Tdl, 2048), (Cdl, 256)])
def test_mean_power_is_one_between_all_antennas(
    profile: type[Tdl | Cdl], count: int, model: str
) -> None:
    a, _ = taps(profile(model=model, antennas="2x2"), count)
    power = np.abs(a.sum(axis=3)[..., 0]) ** 2  # of the middle subcarrier
    error = power.std(axis=0) / math.sqrt(count)
    assert np.abs((power.mean(axis=0) - 1) / error).max() < 4.5


def test_taps_change_from_ofdm_symbol_to_ofdm_symbol_by_the_doppler_spectrum() -> None:
    """J0(2 pi f k T), T = 1 / 14 ms at 15 kHz (TS 38.211, clause 4.3)."""
    channel = Tdl(model="A", speed_mps=60.0, carrier_frequency_hz=3.5e9)
    a, _ = taps(channel, 1024, steps=15)
    unit = a[:, 0, 0] / np.sqrt((np.abs(a[:, 0, 0]) ** 2).mean(axis=(0, 2), keepdims=True))
    doppler = 60.0 / 299_792_458.0 * 3.5e9
    for step in (1, 7, 14):
        product = (unit[:, :, 0].conj() * unit[:, :, step]).real.ravel()
        law = j0(2 * math.pi * doppler * step * 1e-3 / 14)
        assert abs(product.mean() - law) < 4 * product.std() / math.sqrt(product.size), step


def residual_holds(channel: SymbolChannel, seen: Observation, x: torch.Tensor) -> None:
    """What is left on the symbols is Gaussian noise of the variance told."""
    ratio = (seen.symbols - x).abs().square().double() / seen.noise_variance.double()
    low, high = stats.chi2(2 * ratio.numel()).interval(0.9999)
    assert low <= 2 * float(ratio.sum()) <= high


@pytest.mark.parametrize(("antennas", "receivers"), [("1x1", 1), ("1x2", 2)])
def test_without_delay_spread_and_speed_it_is_flat_rayleigh_fading(
    antennas: str, receivers: int
) -> None:
    channel = Tdl("A", delay_spread_ns=0, speed_mps=0, antennas=antennas, realisations=SMALL)
    x = data(3, 5, 400)
    seen = send(channel, x, 10.0)
    law = 0.1 / (receivers * seen.gain[..., None].double()).expand(x.shape)
    torch.testing.assert_close(seen.noise_variance.double(), law, rtol=1e-4, atol=0)
    residual_holds(channel, seen, x)
    a, _ = taps(channel, 2048)
    gain = np.abs(a[:, 0, 0, :, 0].sum(axis=1)) ** 2
    assert stats.kstest(gain, stats.expon.cdf).pvalue > 1e-3


def test_a_line_of_sight_without_delay_spread_is_flat_rician_fading() -> None:
    """TDL-E, table 7.7.2-5: the first tap's specular part over all that scatters."""
    scattered_db = [-22.03, -15.8, -18.1, -19.8, -22.9, -22.4, -18.6, -20.8, -22.6, -22.3, -25.6]
    scattered_db += [-20.2, -29.8, -29.2]
    k = 10 ** (-0.03 / 10) / sum(10 ** (power / 10) for power in scattered_db)
    a, _ = taps(Tdl("E", delay_spread_ns=0, speed_mps=0), 2048)
    gain = np.abs(a[:, 0, 0, :, 0].sum(axis=1)) ** 2
    assert stats.kstest(gain * 2 * (k + 1), stats.ncx2(2, 2 * k).cdf).pvalue > 1e-3
    assert stats.kstest(gain * 4 * (k + 1), stats.ncx2(2, 4 * k).cdf).pvalue < 1e-6


def test_selective_fading_and_high_snr_leave_the_noise_that_is_told() -> None:
    x = data(4, 4, 864)
    for snr_db in (0.0, 100.0):
        channel = Tdl("C", delay_spread_ns=300, speed_mps=30, realisations=SMALL)
        seen = send(channel, x, snr_db)
        residual_holds(channel, seen, x)
        assert float(seen.noise_variance.std(dim=2).min()) > 0


@pytest.mark.parametrize("csi", ["perfect", "estimated"])
@pytest.mark.parametrize("antennas", ["1x1", "1x2", "2x2"])
def test_the_noise_variance_is_that_of_the_symbols(antennas: str, csi: str) -> None:
    x = data(6, 6, 900)
    seen = send(Tdl("A", 50, antennas=antennas, csi=csi, realisations=SMALL), x, 15.0)
    ratio = (seen.symbols - x).abs().square() / seen.noise_variance
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("antennas", ["1x1", "1x2", "2x2"])
def test_estimation_costs_up_to_3_db(antennas: str) -> None:
    x = data(8, 8, 800)

    def errors(snr_db: float, csi: str) -> int:
        channel = Tdl("A", antennas=antennas, csi=csi, speed_mps=3, realisations=256)
        symbols = send(channel, x, snr_db).symbols
        return int(((symbols.real > 0) != (x.real > 0)).sum())

    perfect, estimated, lower = errors(9, "perfect"), errors(9, "estimated"), errors(6, "perfect")
    assert 300 < 1.1 * perfect < estimated < lower


def test_estimates_err_by_the_weights_of_linear_interpolation() -> None:
    """Noise of the estimate in OFDM symbol k: (1 - w)^2 + w^2, w = (k - 2) / 9, of the pilots'."""
    channel = Tdl("A", 0, speed_mps=0, csi="estimated", subcarriers=12, realisations=SMALL)
    x = data(1, 2, 144)
    seen = send(channel, x, 60.0)  # h' is all but h
    w = (torch.tensor([k for k in range(14) if k not in (2, 11)], dtype=torch.float64) - 2) / 9
    law = (1 + (1 - w) ** 2 + w**2) * 1e-6 / seen.gain[0, 1].double()
    found = seen.noise_variance[0, 1].reshape(12, 12).double()
    torch.testing.assert_close(found, law[:, None].expand(12, 12), rtol=2e-2, atol=0)


@pytest.mark.parametrize(
    "channel",
    [
        Tdl(realisations=200),
        Tdl("B", csi="estimated", antennas="2x2", realisations=200),
        Cdl("D", antennas="1x2", coherence="picture", realisations=SMALL),
    ],
    ids=["siso", "mimo", "cdl"],
)
def test_what_a_packet_meets_depends_on_neither_batch_nor_followers(
    channel: Tdl | Cdl, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, streams = data(7, 4, 50), keys(7)
    snr_db = torch.linspace(0, 20, 7, dtype=torch.float64)
    when = Timing(torch.tensor([[0, 0, 1, 1]] * 7), torch.zeros(7, 4, dtype=torch.float64))
    whole = channel.apply(x, snr_db, streams, when)
    assert whole.symbols.dtype == torch.complex64
    assert whole.noise_variance.dtype == whole.gain.dtype == torch.float32
    assert whole.noise_variance.shape == x.shape

    def assert_alike(links: torch.Tensor, slots: int) -> None:
        part = Timing(when.group[links, :slots], when.start_s[links, :slots])
        got = channel.apply(x[links, :slots], snr_db[links], streams.select(links), part)
        assert torch.equal(got.symbols, whole.symbols[links, :slots])
        assert torch.equal(got.noise_variance, whole.noise_variance[links, :slots])
        assert torch.equal(got.gain, whole.gain[links, :slots])

    assert_alike(torch.tensor([3]), 4)
    assert_alike(torch.tensor([6, 0, 5]), 4)
    assert_alike(torch.arange(7), 2)
    monkeypatch.setattr("channels.fading.tdl_cdl._BANK_BYTES", 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert_alike(torch.arange(7), 4)  # drawn again, from another global state
    assert len(tdl_cdl._kept) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_realisation_is_known_by_its_number() -> None:
    a, _ = taps(Tdl("A", speed_mps=1), 65)
    assert a[0, 0, 0, 1, 0] == pytest.approx(0.204079 - 0.467120j, abs=1e-5)
    assert a[64, 0, 0, 1, 0] == pytest.approx(0.340358 + 0.288587j, abs=1e-5)


def test_sionna_goes_on_drawing_as_if_nothing_had_been_drawn() -> None:
    channel = Tdl(realisations=SMALL)
    send(channel, data(1, 1, 10), 10.0)
    from sionna.phy import config

    before = config.torch_rng("cpu").get_state()
    tdl_cdl._draw(channel.multipath, 9, 14)
    assert torch.equal(config.torch_rng("cpu").get_state(), before)


def test_a_picture_meets_one_realisation_and_another_attempt_another_packet_one() -> None:
    x = data(3, 4, 20)
    when = [
        Timing(torch.tensor([[0, 0, 1, 1]] * 3), torch.zeros(3, 4, dtype=torch.float64), attempt)
        for attempt in (0, 1)
    ]
    snr_db = torch.full((3,), 10.0, dtype=torch.float64)
    for coherence, lasts in (("picture", True), ("packet", False)):
        channel = Tdl(coherence=coherence, realisations=1000)
        first, second = (channel.apply(x, snr_db, keys(3), t) for t in when)
        assert torch.equal(first.gain[:, 0], first.gain[:, 1]) == lasts
        assert not bool((first.gain[:, 0] == first.gain[:, 2]).any())
        assert torch.equal(first.gain, second.gain) == lasts
        assert not bool((first.symbols == second.symbols).any())


def test_long_packets_fill_several_slots_over_which_the_channel_goes_on() -> None:
    channel = Tdl(realisations=SMALL, subcarriers=12, csi="estimated")
    x = data(1, 2, 400)
    seen = send(channel, x, 30.0)
    assert float((seen.symbols - x).abs().square().mean()) < 1
    one = send(channel, x[..., :144], 30.0)
    torch.testing.assert_close(one.symbols, seen.symbols[..., :144], rtol=1e-4, atol=1e-5)
    assert channel.occupied(400) == (3 * 168, 3 * 24)


def test_whole_slots_are_occupied() -> None:
    assert Tdl().occupied(0) == (0, 0)
    assert Tdl().occupied(1) == (1008, 144)
    assert Tdl().occupied(864) == (1008, 144)
    assert Tdl().occupied(865) == (2016, 288)
    assert Cdl(antennas="2x2").occupied(1728) == (1008, 144)
    assert Tdl(pilot_symbols=[3], subcarriers=24).occupied(312) == (336, 24)
    with pytest.raises(ChannelError, match=r"27649 symbols takes 33 slots, at most 32"):
        Tdl().occupied(27649)
    with pytest.raises(ChannelError, match="raise subcarriers=12"):
        send(Tdl(subcarriers=12), torch.ones(1, 1, 5000, dtype=torch.complex64), 10.0)
    assert isinstance(Tdl(), Piloted)
    assert (Tdl().streams, Tdl(antennas="1x2").streams, Tdl(antennas="2x2").streams) == (1, 1, 2)
    assert not isinstance(Tdl(), Flat)


def test_a_coded_link_over_it_delivers() -> None:
    over = {"tdl": {"model": "D", "csi": "estimated", "realisations": SMALL}}
    link = build({"coded": {"over": over, "packet_bytes": 20}})
    sent = Packets.from_bytes([[b"one packet", b"and another"]] * 2)
    got = link.transmit(sent, {"snr_db": torch.full((2,), 20.0)}, keys(2))
    assert got.packets.to_bytes() == sent.to_bytes()
    assert got.channel_uses.tolist() == [2 * 1008] * 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "F"}, "unknown model='F'"),
        ({"delay_spread_ns": -1}, r"delay_spread_ns=-1 must be from 0 to 680\.3"),
        (
            {"delay_spread_ns": 400, "subcarrier_spacing_hz": 30e3},
            r"delay_spread_ns=400 must be from 0 to 340\.1",
        ),
        ({"delay_spread_ns": math.nan}, "delay_spread_ns=nan must be from 0"),
        ({"speed_mps": 200}, r"speed_mps=200 must be from 0 to 128\.48"),
        ({"carrier_frequency_hz": "3.5e9"}, "carrier_frequency_hz='3.5e9' must be a number"),
        ({"carrier_frequency_hz": 1e8}, r"carrier_frequency_hz=.* must be from 5e\+08 to 1e\+11"),
        ({"subcarriers": 11}, "subcarriers=11 must be an integer from 12 to 3300"),
        ({"subcarriers": True}, "subcarriers=True must be an integer"),
        ({"subcarriers": 13, "antennas": "2x2"}, "subcarriers=13 must be even, from 12 to 3300"),
        ({"subcarrier_spacing_hz": math.inf}, "subcarrier_spacing_hz=inf must be from 15000 to"),
        ({"pilot_symbols": []}, r"pilot_symbols=\[\] must be 1 to 13 different integers from 0 to"),
        ({"pilot_symbols": [2, 2]}, "must be 1 to 13 different integers"),
        ({"pilot_symbols": [14]}, "must be 1 to 13 different integers"),
        ({"pilot_symbols": "2"}, "must be 1 to 13 different integers"),
        ({"pilot_symbols": 2}, "must be 1 to 13 different integers"),
        ({"csi": "none"}, "unknown csi='none'"),
        ({"antennas": "4x4"}, "unknown antennas='4x4'"),
        ({"coherence": "slot"}, "unknown coherence='slot'"),
        ({"realisations": 0}, "realisations=0 must be an integer from 1 to"),
        ({"realisation": 5}, "has no option 'realisation': did you mean 'realisations'"),
    ],
)
@pytest.mark.parametrize("profile", ["tdl", "cdl"])
def test_wrong_parameters_are_refused_in_one_line(
    profile: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_spec(SYMBOL_CHANNELS, {profile: parameters})
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("antennas", ["1x1", "1x2", "2x2"])
def test_cuda_sees_what_the_cpu_sees(antennas: str) -> None:
    channel = Tdl("C", antennas=antennas, csi="estimated", realisations=SMALL)
    x, snr_db = data(2, 3, 900), torch.full((2,), 10.0, dtype=torch.float64)
    cpu = channel.apply(x, snr_db, keys(2), Timing.together(2, 3))
    there = Timing.together(2, 3, "cuda:0")
    cuda = channel.apply(x.cuda(), snr_db.cuda(), keys(2).to("cuda:0"), there)
    torch.testing.assert_close(cuda.symbols.cpu(), cpu.symbols, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(cuda.gain.cpu(), cpu.gain)
