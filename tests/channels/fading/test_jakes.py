"""Jakes fading: Bessel correlation, Rayleigh at any time, continuous over packets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import j0

from channels.fading.base import Timing
from channels.fading.jakes import Jakes
from tests.channels.fading.conftest import JAKES, at, data, keys, timing


def jakes_h(links: int, start_s: list[float], length: int = 1) -> np.ndarray:
    """h of packets that start at these times, complex [links, packets, length]."""
    when = Timing.together(links, len(start_s))
    start = torch.tensor(start_s, dtype=torch.float64).expand(links, -1)
    when = Timing(when.group, start)
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
