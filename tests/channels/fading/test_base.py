"""Every symbol channel: fates independent of the batch, known gains, checked parameters."""

from __future__ import annotations

import math

import pytest
import torch

from channels.config.builder import from_spec
from channels.errors import ConfigError
from channels.fading.base import SYMBOL_CHANNELS, Flat, Observation, Piloted, SymbolChannel, Timing
from channels.fading.block import Awgn, Rayleigh, Rician
from channels.fading.shadowing import GilbertElliott
from tests.channels.fading.conftest import (
    BURSTS,
    JAKES,
    JAKES_SPEC,
    at,
    data,
    keys,
    seen_equal,
    timing,
)

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


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_what_a_packet_meets_depends_on_neither_batch_nor_followers(spec: object) -> None:
    channel = from_spec(SYMBOL_CHANNELS, spec)
    x, snr_db, streams = data(9, 6, 40), torch.linspace(-3, 20, 9, dtype=torch.float64), keys(9)
    when = timing(9, 6)
    whole = channel.apply(x, snr_db, streams, when)
    assert whole.symbols.dtype == torch.complex64
    assert whole.noise_variance.dtype == whole.gain.dtype == torch.float32
    for index in (torch.tensor([4]), torch.tensor([8, 2, 5])):
        part = Timing(when.group[index], when.start_s[index])
        got = channel.apply(x[index], snr_db[index], streams.select(index), part)
        want = Observation(whole.symbols[index], whole.noise_variance[index], whole.gain[index])
        assert seen_equal(got, want)
    head = Timing(when.group[:, :3], when.start_s[:, :3])
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


def test_channels_of_several_fades_or_unknown_gain_are_not_flat() -> None:
    for channel in (Rayleigh(100), Rician(3, 100), JAKES, Rayleigh(csi="estimated")):
        assert isinstance(channel, SymbolChannel)
        assert not isinstance(channel, Flat)


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
            "over=jakes has no single known gain per packet",
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
    there = Timing(when.group.cuda(), when.start_s.cuda())
    cuda = channel.apply(x.cuda(), at(4, 10.0).cuda(), keys(4).to("cuda"), there)
    torch.testing.assert_close(cuda.symbols.cpu(), cpu.symbols, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(cuda.gain.cpu(), cpu.gain)
