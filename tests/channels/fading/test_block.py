"""Flat fading: its laws against closed forms, what the receiver knows of it, any batch alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import j0

from channels.config.builder import build, from_spec
from channels.errors import ConfigError
from channels.fading.base import SYMBOL_CHANNELS, Flat, Observation, Piloted, SymbolChannel, Timing
from channels.fading.block import Awgn, Rayleigh, Rician
from channels.fading.jakes import Jakes
from channels.fading.shadowing import GilbertElliott
from channels.random import Streams
from channels.validation.error_rates import bit_errors

JAKES_SPEC = {"jakes": {"doppler_hz": 200, "symbol_rate_hz": 1e5}}
BURSTS = {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 3}}
ALL = [
    "awgn",
    "rayleigh",
    {"rayleigh": {"coherence": "picture"}},
    {"rayleigh": {"coherence": 7}},
    {"rayleigh": {"coherence": 7, "csi": "estimated", "pilots": 2}},
    {"rician": {"k_db": 3}},
    {"rician": {"k_db": 3, "coherence": "picture", "csi": "estimated"}},
    JAKES_SPEC,
    BURSTS,
    {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 3, "over": "rayleigh"}},
]


def keys(links: int, seed: int = 4) -> Streams:
    return Streams.derive(seed, [("link", n) for n in range(links)])


def data(links: int, slots: int, length: int) -> torch.Tensor:
    """QPSK symbols."""
    bits = Streams.derive(3, [("data", n) for n in range(links)]).integers(slots * length) % 4
    angle = (bits.to(torch.float64) + 0.5) * math.pi / 2
    return (
        torch.polar(torch.ones_like(angle), angle).to(torch.complex64).reshape(links, slots, length)
    )


def timing(links: int, slots: int, attempt: int = 0) -> Timing:
    """Two packets a picture, one each millisecond."""
    number = torch.arange(slots).expand(links, slots)
    return Timing(number // 2, number.to(torch.float64) * 1e-3, attempt)


def at(links: int, snr_db: float) -> torch.Tensor:
    return torch.full((links,), snr_db, dtype=torch.float64)


def seen_equal(one: Observation, other: Observation) -> bool:
    return (
        torch.equal(one.symbols, other.symbols)
        and torch.equal(one.noise_variance, other.noise_variance)
        and torch.equal(one.gain, other.gain)
    )


def fades(channel: SymbolChannel, links: int, slots: int, length: int, when: Timing) -> np.ndarray:
    """h of every symbol, from what the channel lets through: variance N0 / |h|^2 at 0 dB."""
    x = torch.ones(links, slots, length, dtype=torch.complex64)
    seen = channel.apply(x, at(links, 0.0), keys(links), when)
    return (1 / seen.noise_variance.expand(x.shape)).numpy().astype(np.float64)


def test_the_first_draws_of_a_known_key_stay_what_they_were() -> None:
    x = Streams.derive(3, [("x", n) for n in range(3)]).complex_normal(200, dtype=torch.complex64)
    x = x.reshape(3, 4, 50)
    snr_db = torch.tensor([0.0, 5.0, 20.0], dtype=torch.float64)
    streams = Streams.derive(4, [("k", n) for n in range(3)])
    picture = torch.tensor([[0, 0, 1, 1]] * 3)
    when = [Timing(picture, picture.to(torch.float64), attempt) for attempt in (0, 1)]
    known: list[tuple[SymbolChannel, int, list[float], complex]] = [
        (Awgn(), 0, [1.0, 1.0, 1.0, 1.0], 0.10318315 - 0.47913772j),
        (Awgn(), 1, [1.0, 1.0, 1.0, 1.0], -0.30038360 + 0.08849439j),
        (Rayleigh(), 0, [1.31247997, 0.42337880, 0.33277306, 0.08774593], -0.36763367 - 0.6872973j),
        (Rayleigh(), 1, [3.83921528, 1.60065496, 0.88596106, 1.66524875], -0.13501279 - 0.3103614j),
        (Rayleigh("picture"), 0, [1.31248, 1.31248, 0.423379, 0.423379], 0.20851974 - 0.26003805j),
        (Rayleigh("picture"), 1, [1.31248, 1.31248, 0.423379, 0.423379], -0.4187916 + 0.0714817j),
    ]
    for channel, attempt, gain, symbol in known:
        seen = channel.apply(x, snr_db, streams, when[attempt])
        assert seen.gain[0].tolist() == pytest.approx(gain, abs=2e-6)
        assert complex(seen.symbols[1, 2, 0]) == pytest.approx(symbol, abs=2e-6)


@pytest.mark.parametrize("k_db", [-3.0, 3.0, 10.0])
def test_rician_gain_is_noncentral_chi_square(k_db: float) -> None:
    k = 10 ** (k_db / 10)
    gain = Rician(k_db).gains(keys(1), Timing.together(1, 20_000))[0].numpy()
    found = stats.kstest(gain * 2 * (k + 1), stats.ncx2(2, 2 * k).cdf)
    assert found.pvalue > 1e-3
    assert stats.kstest(gain * 2, stats.chi2(2).cdf).pvalue < 1e-6  # and not Rayleigh's


def test_rician_is_rayleigh_without_a_line_of_sight_and_awgn_without_the_rest() -> None:
    x, when = data(3, 4, 20), timing(3, 4)
    scattered = Rician(-100.0).apply(x, at(3, 5.0), keys(3), when)
    rayleigh = Rayleigh().apply(x, at(3, 5.0), keys(3), when)
    torch.testing.assert_close(scattered.symbols, rayleigh.symbols, atol=2e-3, rtol=1e-3)
    gain = Rician(-100.0).gains(keys(1), Timing.together(1, 20_000))[0].numpy()
    assert stats.kstest(gain, stats.expon.cdf).pvalue > 1e-3
    direct = Rician(100.0).apply(x, at(3, 5.0), keys(3), when)
    torch.testing.assert_close(
        direct.symbols, Awgn().apply(x, at(3, 5.0), keys(3), when).symbols, atol=1e-4, rtol=1e-4
    )


def test_qpsk_errors_over_rician_fading_follow_the_moment_generating_function() -> None:
    k_db, snr_db = 6.0, 9.0
    k, mean = 10 ** (k_db / 10), 10 ** (snr_db / 10) / 2  # Eb/N0

    def of(angle: float) -> float:
        """E exp(-g / sin^2) of a noncentral chi-square g (Simon and Alouini, 2005)."""
        s = mean / math.sin(angle) ** 2
        return (1 + k) / (1 + k + s) * math.exp(-k * s / (1 + k + s))

    law = quad(of, 0, math.pi / 2)[0] / math.pi
    low, high = bit_errors({"rician": {"k_db": k_db}}, snr_db, 100_000, seed=1).interval(0.999)
    assert low <= law <= high
    assert high < 1.2 * law


@pytest.mark.parametrize("pilots", [1, 4])
def test_qpsk_errors_with_an_estimated_rayleigh_gain_follow_the_closed_form(pilots: int) -> None:
    """(1 - m / sqrt(2 - m^2)) / 2, m the correlation of y and h' (Proakis, appendix C)."""
    snr_db = 10.0
    noise = 10 ** (-snr_db / 10)
    m = 1 / math.sqrt((1 + noise) * (1 + noise / pilots))
    law = (1 - m / math.sqrt(2 - m * m)) / 2
    over = {"rayleigh": {"csi": "estimated", "pilots": pilots}}
    low, high = bit_errors(over, snr_db, 100_000, seed=2).interval(0.999)
    assert low <= law <= high
    perfect = (1 - math.sqrt(1 / (1 + 2 * noise))) / 2
    assert low > 1.05 * perfect


def test_the_noise_variance_counts_the_error_of_the_estimate() -> None:
    channel = Rician(100.0, csi="estimated", pilots=2)
    x = data(1, 20_000, 1)
    seen = channel.apply(x, at(1, 20.0), keys(1), Timing.together(1, 20_000))
    ratio = (seen.symbols - x).abs().square() / seen.noise_variance
    low, high = stats.chi2(2 * 20_000).interval(0.9999)
    assert low <= 2 * float(ratio.sum()) <= high


def test_fades_last_as_long_as_the_coherence_and_are_independent() -> None:
    gain = fades(Rayleigh(7), 40, 3, 50, timing(40, 3))
    blocks = gain[..., :49].reshape(40, 3, 7, 7)
    assert np.array_equal(blocks, np.broadcast_to(blocks[..., :1], blocks.shape))
    each = np.concatenate([blocks[..., 0].reshape(-1), gain[..., 49].reshape(-1)])
    assert len(np.unique(each)) == 40 * 3 * 8
    assert stats.kstest(each, stats.expon.cdf).pvalue > 1e-3
    seen = Rayleigh(7).apply(data(40, 3, 50), at(40, 0.0), keys(40), timing(40, 3))
    torch.testing.assert_close(seen.gain.double(), torch.from_numpy(gain.mean(axis=2)))


JAKES = Jakes(doppler_hz=100.0, symbol_rate_hz=1e4)


def jakes_h(links: int, start_s: list[float], length: int = 1) -> np.ndarray:
    """h of packets that start at these times, complex [links, packets, length]."""
    when = Timing.together(links, len(start_s))
    start = torch.tensor(start_s, dtype=torch.float64).expand(links, -1)
    when = Timing(when.picture, start)
    return JAKES._fades(length, keys(links), when).numpy().astype(np.complex128)


def test_jakes_correlation_is_bessel_within_a_packet_and_from_packet_to_packet() -> None:
    links = 6000
    h = jakes_h(links, [5.0, 5.0 + 2.405 / (200 * math.pi), 5.03], length=80)
    first = h[:, 0, 0].conj()
    lags = [(0, k, k / 1e4) for k in (1, 10, 38, 70)]
    lags += [(1, 0, 2.405 / (200 * math.pi)), (1, 33, 2.405 / (200 * math.pi) + 33e-4)]
    lags += [(2, 0, 0.03)]
    for packet, symbol, lag in lags:
        product = first * h[:, packet, symbol]
        law, found = j0(2 * math.pi * 100 * lag), product.real
        assert abs(found.mean() - law) < 4 * found.std() / math.sqrt(links) + 1e-6, lag
        assert abs(product.imag.mean()) < 4 * product.imag.std() / math.sqrt(links) + 1e-6


def test_jakes_fading_is_rayleigh_at_any_time() -> None:
    h = jakes_h(8000, [1234.5])[:, 0, 0]
    assert stats.kstest(h.real * math.sqrt(2), stats.norm.cdf).pvalue > 1e-3
    assert stats.kstest(h.imag * math.sqrt(2), stats.norm.cdf).pvalue > 1e-3
    assert stats.kstest(np.abs(h) ** 2, stats.expon.cdf).pvalue > 1e-3


def test_jakes_fading_goes_on_from_packet_to_packet() -> None:
    whole = jakes_h(5, [0.7], length=200)
    parts = jakes_h(5, [0.7, 0.7 + 100 / 1e4], length=100)
    np.testing.assert_allclose(parts.reshape(5, 1, 200), whole, atol=1e-6)
    still = Jakes(0.0, 1e4).apply(data(5, 2, 9), at(5, 0.0), keys(5), timing(5, 2))
    assert torch.equal(still.noise_variance, still.noise_variance[:, :1, :1].expand(5, 2, 9))


def test_jakes_in_pieces_is_jakes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = jakes_h(7, [0.1, 0.2, 0.3], length=150)
    monkeypatch.setattr("channels.fading.jakes._JAKES_TERMS", 1)
    assert np.array_equal(jakes_h(7, [0.1, 0.2, 0.3], length=150), whole)


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_what_a_packet_meets_depends_on_neither_batch_nor_followers(spec: object) -> None:
    channel = from_spec(SYMBOL_CHANNELS, spec)
    x, snr_db, streams = data(9, 6, 40), torch.linspace(-3, 20, 9, dtype=torch.float64), keys(9)
    when = timing(9, 6)
    whole = channel.apply(x, snr_db, streams, when)
    assert whole.symbols.dtype == torch.complex64
    assert whole.noise_variance.dtype == whole.gain.dtype == torch.float32
    for index in (torch.tensor([4]), torch.tensor([8, 2, 5])):
        part = Timing(when.picture[index], when.start_s[index])
        got = channel.apply(x[index], snr_db[index], streams.select(index), part)
        want = Observation(whole.symbols[index], whole.noise_variance[index], whole.gain[index])
        assert seen_equal(got, want)
    head = Timing(when.picture[:, :3], when.start_s[:, :3])
    got = channel.apply(x[:, :3], snr_db, streams, head)
    assert seen_equal(
        got, Observation(whole.symbols[:, :3], whole.noise_variance[:, :3], whole.gain[:, :3])
    )
    short = channel.apply(x[..., :11], snr_db, streams, when)
    torch.testing.assert_close(short.symbols, whole.symbols[..., :11])  # but for vector lanes


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_another_attempt_meets_other_noise(spec: object) -> None:
    channel = from_spec(SYMBOL_CHANNELS, spec)
    x = data(2, 4, 30)
    first, second = (
        channel.apply(x, at(2, 10.0), keys(2), timing(2, 4, attempt)) for attempt in (0, 1)
    )
    assert not bool((first.symbols == second.symbols).any())
    lasting = "picture" in str(spec) or "jakes" in str(spec) or spec in ("awgn", BURSTS)
    assert torch.equal(first.gain, second.gain) == lasting


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize(
    "channel",
    [
        Awgn(),
        Rayleigh(),
        Rayleigh("picture"),
        Rician(0),
        Rician(0, "picture"),
        GilbertElliott(9, 0.4, 3),
        GilbertElliott(9, 0.4, 3, over={"rayleigh": {"coherence": "picture"}}),
    ],
    ids=[
        "awgn",
        "rayleigh",
        "rayleigh-picture",
        "rician",
        "rician-picture",
        "bursts",
        "bursts-rayleigh",
    ],
)
def test_flat_channels_tell_the_gains_that_they_apply(channel: SymbolChannel, attempt: int) -> None:
    assert isinstance(channel, Flat)
    assert not isinstance(channel, Piloted)
    when = timing(3, 5, attempt)
    seen = channel.apply(data(3, 5, 8), at(3, 10.0), keys(3), when)
    gains = channel.gains(keys(3), when)
    assert gains.dtype == torch.float32
    assert torch.equal(gains, seen.gain)


def test_attenuation_in_bursts_is_that_of_the_chain_and_one_in_the_mean() -> None:
    channel = GilbertElliott(depth_db=10, bad=0.25, burst=5)
    gains = channel.gains(keys(40_000), Timing.together(40_000, 12))
    good, bad = channel.state_gains
    assert sorted(gains.unique().tolist()) == pytest.approx([bad, good])
    assert good / bad == pytest.approx(10)
    assert 0.75 * good + 0.25 * bad == pytest.approx(1)
    low = gains < 1
    for slot in (0, 11):
        assert float(low[:, slot].float().mean()) == pytest.approx(0.25, abs=0.008)
    stays = (low[:, :-1] & low[:, 1:]).sum() / low[:, :-1].sum()
    assert float(stays) == pytest.approx(0.8, abs=0.005)


def test_a_depth_of_nothing_is_what_the_bursts_are_over() -> None:
    flat = Rayleigh("picture")
    channel = GilbertElliott(0, 0.3, 8, over={"rayleigh": {"coherence": "picture"}})
    when = timing(3, 6)
    assert torch.equal(channel.gains(keys(3), when), flat.gains(keys(3), when))


def test_channels_of_several_fades_or_unknown_gain_are_not_flat() -> None:
    for channel in (Rayleigh(100), Rician(3, 100), JAKES, Rayleigh(csi="estimated")):
        assert isinstance(channel, SymbolChannel)
        assert not isinstance(channel, Flat)


def test_pilots_are_counted_for_each_block() -> None:
    for channel, occupied in (
        (Rayleigh(csi="estimated", pilots=3), (103, 3)),
        (Rician(3, "picture", csi="estimated"), (104, 4)),
        (Rayleigh(30, csi="estimated", pilots=5), (120, 20)),
    ):
        assert isinstance(channel, Piloted)
        assert channel.occupied(100) == occupied
    assert not isinstance(Rayleigh(30), Piloted)
    assert not isinstance(JAKES, Piloted)


def test_they_are_made_from_yaml() -> None:
    link = build({"uncoded": {"over": {"rician": {"k_db": 6, "coherence": 50}}}})
    assert isinstance(link.over, Rician)  # type: ignore[attr-defined]
    assert link.over.coherence == 50  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"rayleigh": {"coherence": "slot"}}, "unknown coherence='slot': .* an integer of symbols"),
        ({"rayleigh": {"coherence": 0}}, "coherence=0 must be an integer from 1 to 1000000"),
        ({"rayleigh": {"coherence": True}}, "unknown coherence=True"),
        ({"rayleigh": {"coherence": 2.5}}, r"unknown coherence=2\.5"),
        ({"rayleigh": {"csi": "none"}}, "unknown csi='none'"),
        ({"rayleigh": {"csi": "estimated", "pilots": 0}}, "pilots=0 must be an integer from 1 to"),
        ({"rician": {}}, "option 'k_db' is missing"),
        ({"rician": {"k_db": float("nan")}}, "k_db=nan must be from -100 to 100"),
        ({"rician": {"k_db": "3"}}, "k_db='3' must be a number from -100 to 100"),
        ({"rician": {"k_db": 3, "k": 2}}, "has no option 'k': known: coherence, csi, k_db"),
        ({"gilbert_elliott": {"depth_db": 9, "bad": 0.4}}, "option 'burst' is missing"),
        (
            {"gilbert_elliott": {"depth_db": -1, "bad": 0.4, "burst": 3}},
            "gilbert_elliott: depth_db=-1 must be from 0 to 100",
        ),
        (
            {"gilbert_elliott": {"depth_db": 9, "bad": 0.8, "burst": 3}},
            r"bad=0\.8 must be from 0 to 0\.75",
        ),
        (
            {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 0}},
            "burst=0 must be from 1 to 10000",
        ),
        (
            {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 3, "over": JAKES_SPEC}},
            "over=jakes has no single known gain a packet",
        ),
        (
            {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 3, "over": BURSTS}},
            "over=gilbert_elliott has states already: use awgn",
        ),
        (
            {"gilbert_elliott": {"depth_db": 9, "bad": 0.4, "burst": 3, "over": "bsc"}},
            "gilbert_elliott: over: unknown symbol channel 'bsc'",
        ),
        (
            {"gilbert_elliott": {"depth_db": 9, "bad": 0.909091, "burst": 10}},
            r"bad=0\.909091 must be from 0 to 0\.90909090909090",
        ),
        ({"jakes": {"doppler_hz": -1, "symbol_rate_hz": 1e4}}, "doppler_hz=-1 must be from 0 to"),
        ({"jakes": {"doppler_hz": 1, "symbol_rate_hz": 0}}, "symbol_rate_hz=0 must be from 1 to"),
        ({"jakes": {"doppler_hz": 1, "symbol_rate_hz": math.inf}}, "symbol_rate_hz=inf must be"),
        ({"jakes": {"doppler_hz": True, "symbol_rate_hz": 1e4}}, "doppler_hz=True must be a num"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(spec: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_spec(SYMBOL_CHANNELS, spec)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("spec", ALL, ids=str)
def test_cuda_sees_what_the_cpu_sees(spec: object) -> None:
    channel = from_spec(SYMBOL_CHANNELS, spec)
    x, when = data(4, 3, 30), timing(4, 3)
    cpu = channel.apply(x, at(4, 10.0), keys(4), when)
    there = Timing(when.picture.cuda(), when.start_s.cuda())
    cuda = channel.apply(x.cuda(), at(4, 10.0).cuda(), keys(4).to("cuda"), there)
    torch.testing.assert_close(cuda.symbols.cpu(), cpu.symbols, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(cuda.gain.cpu(), cpu.gain)
