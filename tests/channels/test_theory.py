"""Closed forms beside published values, other derivations of the same law, and each other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from channels import theory

QAM = ("qpsk", "16qam", "64qam", "256qam")


@pytest.mark.parametrize(
    ("code_rate", "ebno_db"),
    [(1 / 3, -0.495), (1 / 2, 0.187), (2 / 3, 1.059), (3 / 4, 1.626), (5 / 6, 2.362)],
)
def test_binary_input_capacity_is_reached_where_tables_say(
    code_rate: float, ebno_db: float
) -> None:
    """Limits of binary-input AWGN as in Lin and Costello, "Error control coding", table 1.4."""
    snr_db = theory.snr_db_for("qpsk", 2 * code_rate)
    assert snr_db - 10 * math.log10(2 * code_rate) == pytest.approx(ebno_db, abs=2e-3)
    mean = float(theory.bi_awgn_information(snr_db).mean)
    assert mean == pytest.approx(code_rate, abs=1e-9)
    assert theory.snr_db_for("bpsk", code_rate) == pytest.approx(snr_db - 10 * math.log10(2))


def test_16qam_carries_three_bits_where_ungerboeck_says() -> None:
    """Ungerboeck 1982, table I: 16-QAM, 3 bit/T at 9.3 dB."""
    assert theory.snr_db_for("16qam", 3.0) == pytest.approx(9.3, abs=0.05)


def test_shannons_limit_is_minus_1_59_db() -> None:
    for name in (*QAM, "bpsk", theory.GAUSSIAN):
        rate = 1e-4
        ebno_db = theory.snr_db_for(name, rate) - 10 * math.log10(rate)
        assert ebno_db == pytest.approx(10 * math.log10(math.log(2)), abs=2e-3)


@pytest.mark.parametrize("snr_db", [-5.0, 0.7, 4.0, 9.0])
def test_binary_input_information_agrees_with_the_density_of_its_llr(snr_db: float) -> None:
    """The LLR of BPSK is Gaussian, of mean half its variance (ten Brink 2001)."""
    spread = math.sqrt(4 * 10 ** (snr_db / 10))

    def mean(power: int, about: float) -> float:
        def term(llr: float) -> float:
            density = 1 - np.logaddexp(0, -llr) / math.log(2) - about
            return float(density**power * norm.pdf(llr, spread**2 / 2, spread))

        low, high = spread**2 / 2 - 10 * spread, spread**2 / 2 + 10 * spread
        return float(quad(term, low, high, limit=400)[0])

    found = theory.bi_awgn_information(snr_db)
    assert float(found.mean) == pytest.approx(mean(1, 0.0), abs=1e-8)
    assert float(found.variance) == pytest.approx(mean(2, float(found.mean)), abs=1e-8)


def test_information_keeps_between_its_bounds() -> None:
    snr_db = np.linspace(-30, 50, 161)
    capacity = theory.awgn_information(snr_db).mean
    below = np.zeros_like(snr_db)
    for modulation, m in zip(QAM, (2, 4, 6, 8), strict=True):
        found = theory.qam_information(modulation, snr_db)
        assert (found.mean <= np.minimum(capacity, m) + 1e-12).all()
        assert (np.diff(found.mean) >= -1e-12).all()
        assert (found.mean >= below - 1e-9).all()
        assert (found.variance >= 0).all()
        assert found.mean[-1] == pytest.approx(m, abs=1e-9)
        assert found.mean[0] == pytest.approx(capacity[0], rel=1e-2)
        below = found.mean


def test_information_agrees_with_simulation() -> None:
    """16-QAM at 8 dB from its definition, two-dimensional, 10^5 draws."""
    generator = np.random.default_rng(5)
    axis = np.array([-3, -1, 1, 3]) / math.sqrt(10)
    points = (axis[:, None] + 1j * axis).ravel()
    noise_power = 10**-0.8
    sent = generator.integers(16, size=100_000)
    noise = generator.normal(size=(2, 100_000)) * math.sqrt(noise_power / 2)
    received = points[sent] + noise[0] + 1j * noise[1]
    distance = np.abs(received[:, None] - points) ** 2 / noise_power
    own = np.take_along_axis(distance, sent[:, None], axis=1)
    density = 4 - np.log2(np.exp(own - distance).sum(axis=1))
    found = theory.qam_information("16qam", 8.0)
    tolerance = 4 * density.std() / math.sqrt(100_000)
    assert float(found.mean) == pytest.approx(density.mean(), abs=tolerance)
    assert float(found.variance) == pytest.approx(density.var(), rel=0.03)


def test_binary_channels_have_their_textbook_values() -> None:
    flip = np.array([0.0, 0.11, 0.5, 1.0])
    bsc = theory.bsc_information(flip)
    assert bsc.mean == pytest.approx([1, 0.500084, 0, 1], abs=1e-6)
    assert bsc.variance == pytest.approx([0, 0.8907, 0, 0], abs=1e-4)
    bec = theory.bec_information(np.array([0.0, 0.25, 1.0]))
    assert bec.mean == pytest.approx([1, 0.75, 0])
    assert bec.variance == pytest.approx([0, 0.1875, 0])


def test_normal_approximation_of_rate_one_half_is_where_it_is_known() -> None:
    """k = 1000, n = 2000 on binary-input AWGN at a block error rate of 0.01."""
    snr_db = theory.normal_snr_db("qpsk", 1000, 1000, 1e-2)
    assert snr_db == pytest.approx(0.71, abs=0.015)
    real = theory.normal_bler(theory.bi_awgn_information(snr_db), 1000, 2000)
    assert float(real) == pytest.approx(1e-2, rel=1e-6)


def test_normal_approximation_of_the_erasure_channel_is_near_the_exact_bounds() -> None:
    """Between the exact converse and random coding (Polyanskiy et al. 2010, theorems 38, 37)."""
    from scipy.stats import binom

    n, k, erasure = 1000, 470, 0.5
    erased = np.arange(n + 1)
    chance = binom.pmf(erased, n, erasure)
    short = np.maximum(erased - (n - k), 0)
    converse = float((chance * (1 - 2.0**-short)).sum())
    achieved = float((chance * 2.0 ** -np.maximum(n - k - erased, 0)).sum())
    found = float(theory.normal_bler(theory.bec_information(erasure), k, n))
    assert 0.99 * converse < found < 1.01 * achieved
    assert achieved < 1.6 * converse


@pytest.mark.parametrize("name", ["qpsk", "64qam", theory.GAUSSIAN])
def test_rate_bler_and_snr_are_inverses(name: str) -> None:
    snr_db = theory.normal_snr_db(name, 900, 500, 1e-3)
    information = theory.qam_information(name, snr_db)
    assert float(theory.normal_bler(information, 900, 500)) == pytest.approx(1e-3, rel=1e-5)
    assert float(theory.normal_rate(information, 500, 1e-3)) * 500 == pytest.approx(900, abs=1e-4)
    assert snr_db > theory.snr_db_for(name, 900 / 500)


def test_what_cannot_be_carried_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no SNR from -60 to 100 dB carries 2\.5 bits"):
        theory.snr_db_for("qpsk", 2.5)
    with pytest.raises(ValueError, match=r"bler=0 must be above 0 and below 1"):
        theory.normal_snr_db("qpsk", 100, 100, 0)


def test_qpsk_and_16qam_have_their_textbook_bit_error_rates() -> None:
    snr_db = np.array([0.0, 6.0, 12.0])
    snr = 10 ** (snr_db / 10)
    assert theory.ber_awgn("qpsk", snr_db) == pytest.approx(norm.sf(np.sqrt(snr)))
    assert theory.ber_awgn("bpsk", snr_db) == pytest.approx(norm.sf(np.sqrt(2 * snr)))
    tail = [norm.sf(a * np.sqrt(snr / 5)) for a in (1, 3, 5)]
    expected = (3 * tail[0] + 2 * tail[1] - tail[2]) / 4
    assert theory.ber_awgn("16qam", snr_db) == pytest.approx(expected)


@pytest.mark.parametrize("modulation", QAM)
def test_bit_error_rates_agree_with_a_count_of_gray_labels(modulation: str) -> None:
    """Sum over sent and decided levels of P(decided) x Hamming distance of Gray labels."""
    levels = 1 << theory.BITS_PER_SYMBOL[modulation] // 2
    bits = levels.bit_length() - 1
    for snr_db in (2.0, 12.0, 20.0):
        position = (2 * np.arange(levels) - levels + 1) * math.sqrt(
            3 * 10 ** (snr_db / 10) / (levels**2 - 1)
        )
        edges = np.concatenate([[-np.inf], (position[1:] + position[:-1]) / 2, [np.inf]])
        lands = np.diff(norm.cdf(edges[None] - position[:, None]), axis=1)
        gray = np.arange(levels) ^ (np.arange(levels) >> 1)
        differ = np.array([[int(a ^ b).bit_count() for b in gray.tolist()] for a in gray.tolist()])
        expected = (lands * differ).sum() / levels / bits
        assert float(theory.ber_awgn(modulation, snr_db)) == pytest.approx(expected, abs=1e-15)
        decided = np.diag(lands).mean() ** 2
        assert float(theory.symbol_error_awgn(modulation, snr_db)) == pytest.approx(1 - decided)
        packet = float(theory.uncoded_packet_error_awgn(modulation, 10 * bits * 2, snr_db))
        assert packet == pytest.approx(1 - decided**10)


@pytest.mark.parametrize("modulation", QAM)
def test_fading_averages_the_bit_error_rate_over_the_gain(modulation: str) -> None:
    """Against quadrature over Rayleigh's density, and over that of Rician fading from its CDF."""
    snr_db = 12.0

    def term(gain: float) -> float:
        return float(theory.ber_awgn(modulation, snr_db + 10 * math.log10(gain)))

    rayleigh = quad(lambda g: term(g) * math.exp(-g), 1e-12, 50, limit=400)[0]
    assert float(theory.ber_fading(modulation, snr_db)) == pytest.approx(rayleigh, rel=1e-5)
    edges = np.linspace(0, 12, 6001)
    weights = np.diff(theory.gain_cdf(edges, 3.0))
    centres_db = snr_db + 10 * np.log10((edges[1:] + edges[:-1]) / 2)
    rician = float((theory.ber_awgn(modulation, centres_db) * weights).sum())
    assert float(theory.ber_fading(modulation, snr_db, 3.0)) == pytest.approx(rician, rel=5e-4)


def test_rician_fading_lies_between_rayleigh_and_none() -> None:
    rates = [float(theory.ber_fading("16qam", 15.0, k)) for k in (0, 1e-9, 1, 5, 50, math.inf)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-6)
    assert all(a > b for a, b in pairwise(rates[1:]))
    assert float(theory.ber_fading("16qam", 15.0, 1e7)) == pytest.approx(rates[-1], rel=1e-4)
    gain = np.array([0.3, 0.99, 1.01, 3.0])
    assert theory.gain_cdf(gain, 1e-9) == pytest.approx(theory.gain_cdf(gain), abs=1e-6)
    assert theory.gain_cdf(gain, math.inf).tolist() == [0, 0, 1, 1]


def test_outage_is_that_of_an_exponential_gain() -> None:
    snr_db = np.array([0.0, 10.0, 30.0])
    expected = 1 - np.exp(-(2**1.5 - 1) / 10 ** (snr_db / 10))
    assert theory.outage(theory.GAUSSIAN, 1.5, snr_db) == pytest.approx(expected)
    needed = 10 ** (theory.snr_db_for("qpsk", 1.5) / 10)
    expected = 1 - np.exp(-needed / 10 ** (snr_db / 10))
    assert theory.outage("qpsk", 1.5, snr_db) == pytest.approx(expected)


def test_long_blocks_under_fading_reach_the_outage_probability() -> None:
    snr_db = np.array([0.0, 10.0, 20.0])
    for k_factor in (0.0, 4.0):
        limit = theory.outage("16qam", 2.0, snr_db, k_factor)
        errors = [
            np.abs(theory.fading_bler("16qam", 2 * s, s, snr_db, k_factor) / limit - 1).max()
            for s in (200, 2000, 2_000_000)
        ]
        assert errors[0] < 0.3
        assert errors[2] < 0.01
    awgn = theory.fading_bler("qpsk", 500, 500, np.array(1.0), math.inf)
    one = theory.normal_bler(theory.qam_information("qpsk", 1.0), 500, 500)
    assert float(awgn) == pytest.approx(float(one))
    assert theory.fading_bler("qpsk", 500, 500, np.array(1.0), 1e5) == pytest.approx(one, rel=0.05)
    twice = theory.fading_bler("qpsk", 500, 500, np.array(1.0), math.inf, blocks=2)
    assert float(twice) == pytest.approx(1 - (1 - float(one)) ** 2)


def test_runs_of_a_gilbert_channel_are_geometric() -> None:
    chain = theory.GilbertElliott.of(0.2, 5.0)
    lengths = np.arange(1, 31)
    assert chain.run_lengths(30) == pytest.approx(0.2 * 0.8 ** (lengths - 1))
    assert chain.bad == pytest.approx(0.2)


def test_runs_agree_with_a_long_walk() -> None:
    chain = theory.GilbertElliott(enter=0.1, leave=0.3, good_loss=0.05, bad_loss=0.7)
    generator = np.random.default_rng(3)
    draws, losses = generator.random((2, 200_000))
    bad, lost = False, []
    for draw, loss in zip(draws.tolist(), losses.tolist(), strict=True):
        bad = draw >= chain.leave if bad else draw < chain.enter
        lost.append(loss < (chain.bad_loss if bad else chain.good_loss))
    assert np.mean(lost) == pytest.approx(chain.loss, abs=5e-3)
    edges = np.flatnonzero(np.diff(np.array([False, *lost, False]).astype(int)))
    runs = edges[1::2] - edges[::2]
    assert runs.mean() == pytest.approx(chain.mean_run, rel=0.02)
    counted = np.bincount(runs, minlength=6)[1:6] / len(runs)
    assert counted == pytest.approx(chain.run_lengths(5), abs=0.01)
    assert chain.run_lengths(300).sum() == pytest.approx(1)


def test_a_chain_that_never_loses_has_no_runs() -> None:
    assert theory.GilbertElliott(0.0, 0.0).loss == 0
    assert theory.GilbertElliott(0.0, 0.5).mean_run == math.inf


def test_waits_of_the_m_d_1_queue_follow_erlangs_formula() -> None:
    load = 0.7
    for wait in (0.0, 0.4, 1.0, 2.5, 6.0):
        terms = [
            (load * (j - wait)) ** j / math.factorial(j) * math.exp(-load * (j - wait))
            for j in range(int(wait) + 1)
        ]
        found = float(theory.md1_wait_cdf(load, 2.0, 2 * wait))
        assert found == pytest.approx((1 - load) * sum(terms), rel=1e-9)
    grid = np.arange(0, 60, 0.01)
    mean = np.trapezoid(1 - theory.md1_wait_cdf(load, 1.0, grid), grid)
    assert mean == pytest.approx(theory.md1_mean_wait(load, 1.0), rel=1e-3)
    assert theory.md1_wait_cdf(0.0, 1.0, np.array([-1.0, 0.0])).tolist() == [0, 1]


def test_jakes_correlation_has_its_first_zero_where_j0_has() -> None:
    first_zero = 2.404825557695773 / (2 * math.pi * 50)
    found = theory.jakes_autocorrelation(50.0, np.array([0.0, first_zero]))
    assert found == pytest.approx([1, 0], abs=1e-12)
