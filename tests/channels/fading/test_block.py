"""Flat block fading: gains and error rates of theory, and how long fades last."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from channels.config.builder import build
from channels.fading.base import Piloted, SymbolChannel, Timing
from channels.fading.block import Awgn, Rayleigh, Rician
from channels.random import Randomness
from channels.validation.error_rates import bit_errors
from tests.channels.fading.conftest import JAKES, at, data, fades, keys, timing


def test_the_first_draws_of_a_known_key_stay_what_they_were() -> None:
    x = Randomness.derive(3, [("x", n) for n in range(3)]).complex_normal(
        200, dtype=torch.complex64
    )
    x = x.reshape(3, 4, 50)
    snr_db = torch.tensor([0.0, 5.0, 20.0], dtype=torch.float64)
    streams = Randomness.derive(4, [("k", n) for n in range(3)])
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
