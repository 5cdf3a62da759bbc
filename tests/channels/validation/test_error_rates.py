"""The physical layer against theory and published curves; see `channels.validation.error_rates`."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import kstest

from channels.errors import ConfigError
from channels.fading.base import Timing
from channels.fading.block import Awgn, Rayleigh
from channels.random import Randomness
from channels.validation.error_rates import (
    PUBLISHED,
    PublishedCurve,
    bit_errors,
    block_errors,
    main,
    qpsk_ber_awgn,
    qpsk_ber_rayleigh,
)


@pytest.mark.parametrize("ebno_db", [0.0, 3.0, 6.0])
def test_qpsk_on_awgn_has_the_bit_error_rate_of_theory(ebno_db: float) -> None:
    found = bit_errors("awgn", ebno_db + 10 * math.log10(2), 200_000, seed=1)
    low, high = found.interval(0.99)
    assert low <= qpsk_ber_awgn(ebno_db) <= high


@pytest.mark.parametrize("ebno_db", [0.0, 7.0, 14.0])
def test_qpsk_under_rayleigh_fading_has_the_bit_error_rate_of_theory(ebno_db: float) -> None:
    found = bit_errors("rayleigh", ebno_db + 10 * math.log10(2), 200_000, seed=2)
    low, high = found.interval(0.99)
    assert low <= qpsk_ber_rayleigh(ebno_db) <= high


@pytest.mark.parametrize(("modulation", "m"), [("16qam", 4), ("64qam", 6), ("256qam", 8)])
def test_square_qam_has_the_symbol_geometry_of_gray_coding(modulation: str, m: int) -> None:
    """The first bit of Gray-coded square QAM is the sign of one axis: its error rate is a mean."""
    snr_db = 3.0 * m
    levels = range(1, 2 ** (m // 2), 2)
    scale = math.sqrt(3 / (2 * (2**m - 1)) * 2 * 10 ** (snr_db / 10))
    expected = sum(0.5 * math.erfc(a * scale / math.sqrt(2)) for a in levels) / len(levels)
    low, high = bit_errors("awgn", snr_db, 30_000, modulation, seed=3).interval(0.999)
    assert low <= expected <= high


@pytest.mark.parametrize(
    ("curve", "ebno_db", "blocks"), [(PUBLISHED[0], 2.0, 2000), (PUBLISHED[1], 1.0, 800)]
)
def test_ldpc_lies_on_the_published_curves(
    curve: PublishedCurve, ebno_db: float, blocks: int
) -> None:
    found = block_errors(curve.k, curve.n, ebno_db, blocks, schedule="flooding", seed=1)
    assert abs(ebno_db - curve.ebno_at(found.rate)) < 0.15


def test_the_published_points_are_those_of_the_conformance_file(shared: Path) -> None:
    with (shared / "vectors" / "ldpc_reference.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = [
        (c.source, c.k, c.n, x, y)
        for c in PUBLISHED
        for x, y in zip(c.ebno_db, c.bler, strict=True)
    ]
    theirs = [
        (r["source"], int(r["k"]), int(r["n"]), float(r["ebno_db"]), float(r["bler"])) for r in rows
    ]
    assert ours == theirs


def test_interpolation_hits_the_points_and_falls_between_them() -> None:
    for curve in PUBLISHED:
        for x, y in zip(curve.ebno_db, curve.bler, strict=True):
            assert curve.ebno_at(y) == pytest.approx(x)
        assert curve.ebno_db[0] < curve.ebno_at(curve.bler[0] * 0.9) < curve.ebno_db[1]
        assert curve.ebno_at(curve.bler[-1] / 2) > curve.ebno_db[-1]


def test_noise_and_fading_have_their_laws() -> None:
    streams = Randomness.derive(4, [("law", n) for n in range(200)])
    symbols = torch.full((200, 20, 10), 1 + 0j, dtype=torch.complex64)
    timing = Timing.together(200, 20)
    seen = Awgn().apply(symbols, torch.full((200,), 3.0, dtype=torch.float64), streams, timing)
    power = (seen.symbols - symbols).abs().square().double() * 10**0.3
    assert kstest(power.flatten().numpy(), "expon").pvalue > 1e-3
    assert seen.noise_variance.shape == (200, 20, 1)

    snr_db = torch.full((200,), 60.0, dtype=torch.float64)
    packet = Rayleigh("packet").apply(symbols, snr_db, streams, timing)
    assert kstest(packet.gain.flatten().double().numpy(), "expon").pvalue > 1e-3
    scatter = (packet.symbols - symbols).abs().square() / packet.noise_variance
    assert kstest(scatter.double().flatten().numpy(), "expon").pvalue > 1e-3
    picture = Rayleigh("picture").apply(symbols, snr_db, streams, timing)
    assert torch.equal(picture.gain, picture.gain[:, :1].expand(-1, 20))
    assert len(picture.gain[:, 0].unique()) == 200

    again = Timing(timing.group, timing.start_s, attempt=1)
    retried = Rayleigh("picture").apply(symbols, snr_db, streams, again)
    assert torch.equal(retried.gain, picture.gain)
    assert not torch.equal(retried.symbols, picture.symbols)
    two = Timing((torch.arange(20) >= 8).long().expand(200, -1), timing.start_s)
    sequence = Rayleigh("picture").apply(symbols, snr_db, streams, two)
    assert torch.equal(sequence.gain[:, :8], picture.gain[:, :8])
    assert (sequence.gain[:, 8:] != picture.gain[:, 8:]).all()


def test_an_unknown_coherence_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'picture'"):
        Rayleigh("pictures")


def test_the_command_prints_rates_intervals_and_distances(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["ber", "--bits", "2000"])
    assert "closed form" in capsys.readouterr().out
    main(["ldpc", "--blocks", "8"])
    printed = capsys.readouterr().out
    assert "k=64 n=128" in printed
    assert "k=512 n=1024" in printed
