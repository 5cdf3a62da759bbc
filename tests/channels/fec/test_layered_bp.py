"""The layered decoder: right, as good as flooding, and the same in any company."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from channels.fec.layered_bp import LayeredDecoder
from channels.fec.sionna_isolation import untouched_random_state
from channels.random import Randomness
from channels.validation.benchmark import compare, distance_db, main, pair, transmit_qpsk
from channels.validation.error_rates import PUBLISHED, Proportion


def encoder(k: int, n: int, bits_per_symbol: int | None = None, bg: str | None = None) -> Any:
    with untouched_random_state(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Effective coderate")
        from sionna.phy.fec.ldpc import LDPC5GEncoder

        return LDPC5GEncoder(k, n, bits_per_symbol, bg, precision="single", device="cpu")


def sionna(code: Any, **settings: Any) -> Any:
    with untouched_random_state():
        from sionna.phy.fec.ldpc import LDPC5GDecoder

        return LDPC5GDecoder(code, precision="single", device="cpu", **settings)


def streams(name: str, blocks: int) -> Randomness:
    return Randomness.derive(3, [(name,)]).split(blocks)


def random_bits(blocks: int, k: int) -> Tensor:
    return (streams("bits", blocks).uniform(k) < 0.5).to(torch.float32)


def noisy(coded: Tensor, snr_db: float) -> Tensor:
    """LLRs of bits sent at ±1, each seen in noise of variance 10^(-snr_db/10)."""
    variance = 10 ** (-snr_db / 10)
    noise = streams("noise", len(coded)).normal(coded[0].numel()).reshape(coded.shape)
    return (2 / variance * (2 * coded - 1 + variance**0.5 * noise)).to(torch.float32)


@pytest.mark.parametrize(
    ("k", "n", "bits_per_symbol", "bg"),
    [
        (12, 60, 2, None),
        (12, 14, 2, "bg1"),
        (64, 128, 4, None),
        (293, 1172, 4, None),
        (792, 1584, 6, None),
        (1000, 1054, 2, "bg1"),
        (1000, 2001, None, None),
        (3840, 19200, 8, None),
        (8448, 8900, 2, "bg1"),
        (8448, 25344, 2, None),
    ],
)
def test_without_noise_every_code_is_read(
    k: int, n: int, bits_per_symbol: int | None, bg: str | None
) -> None:
    code = encoder(k, n, bits_per_symbol, bg)
    decoder = LayeredDecoder(code)
    bits = random_bits(2, k)
    coded = code(bits)
    for certainty in (3.0, 10.0, 1e4, torch.inf):
        llr = torch.where(coded > 0, certainty, -certainty)
        assert torch.equal(decoder.decode(llr), bits)
    assert 8 <= decoder.chunk <= 1024


@pytest.mark.parametrize(("k", "n", "snr_db"), [(100, 400, 0.0), (600, 1200, 2.5), (600, 720, 7.5)])
def test_what_is_clearly_readable_both_decoders_read_alike(k: int, n: int, snr_db: float) -> None:
    code = encoder(k, n, 2)
    bits = random_bits(16, k)
    llr = noisy(code(bits), snr_db)
    assert torch.equal(LayeredDecoder(code).decode(llr), bits)
    assert torch.equal(sionna(code)(llr), bits)


def test_erasures_are_resolved_exactly_where_peeling_resolves_them() -> None:
    code = encoder(100, 200)
    checks = code.pcm.toarray().astype(int)
    z = code.z
    bits = random_bits(40, 100)
    erased = streams("erased", 40).uniform(200) < 0.455
    llr = torch.where(code(bits) > 0, 8.0, -8.0).masked_fill(erased, 0)
    found = LayeredDecoder(code).decode(llr, 60)
    readable = []
    for lost in erased.numpy():
        unknown = np.ones(code.n_ldpc, dtype=int)
        sent = np.delete(np.arange(code.n_ldpc), np.s_[100 : code.k_ldpc])[2 * z :][:200]
        unknown[sent] = lost
        unknown[100 : code.k_ldpc] = 0
        while (alone := (checks @ unknown) == 1).any():
            unknown[(checks[alone] & unknown).any(axis=0)] = 0
        readable.append(not unknown[:100].any())
    right = (found == bits).all(dim=1)
    assert right[torch.tensor(readable)].all()
    assert 5 < sum(readable) < 35
    unread = ~torch.tensor(readable)
    assert int(right[unread].sum()) == 0


def test_a_block_is_decoded_alike_alone_in_company_in_any_order_and_on_any_threads() -> None:
    code = encoder(250, 502, 2)
    decoder = LayeredDecoder(code)
    llr = noisy(code(random_bits(64, 250)), 0.5)
    llr[3] = 0
    llr[5, ::3] = 0
    llr[7] = torch.where(llr[7] > 0, torch.inf, -torch.inf)
    together = decoder.decode(llr, 6)
    for size in (1, 7):
        apart = torch.cat([decoder.decode(part, 6) for part in llr[:21].split(size)])
        assert torch.equal(apart, together[:21])
    assert torch.equal(decoder.decode(llr.flip(0), 6), together.flip(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(decoder.decode(llr, 6), together)
    finally:
        torch.set_num_threads(threads)
    assert decoder.decode(llr[:0]).shape == (0, 250)


def test_looking_on_the_way_changes_nothing() -> None:
    code = encoder(250, 500, 2)
    decoder = LayeredDecoder(code)
    llr = noisy(code(random_bits(32, 250)), 0.3)
    kept = llr.clone()
    seen = list(decoder.iterate(llr, 9, 2))
    assert len(seen) == 5
    for iterations, found in zip((2, 4, 6, 8, 9), seen, strict=True):
        assert torch.equal(found, decoder.decode(llr, iterations))
    assert not torch.equal(seen[0], seen[-1])
    assert torch.equal(llr, kept)


@pytest.mark.parametrize("together", [1, 2])
def test_stopping_early_takes_the_first_word_that_holds(together: int) -> None:
    code = encoder(250, 500, 2)
    decoder = LayeredDecoder(code)
    bits = random_bits(48, 250)
    llr = noisy(code(bits), 1.0)
    truth = bits.reshape(-1, together * 250)
    asked = []

    def holds(found: Tensor) -> Tensor:
        asked.append(len(found))
        return (found[:, None] == truth).all(dim=2).any(dim=1)

    found, held, spent = decoder.decode_until(llr, 12, 2, holds, together=together)
    steps = [step.reshape(truth.shape) for step in decoder.iterate(llr, 12, 2)]
    for m in range(len(truth)):
        right = [i for i, step in enumerate(steps) if torch.equal(step[m], truth[m])]
        assert bool(held[m]) is bool(right)
        assert int(spent[m]) == (2 * right[0] + 2 if right else 12)
        assert torch.equal(found[m], steps[right[0] if right else -1][m])
    assert 0 < int(held.sum()) < len(truth)
    assert len(spent.unique()) > 2
    assert asked[-1] < asked[0]


@pytest.mark.parametrize(
    ("k", "n", "rv", "snr_db"),
    [(200, 300, (0, 2), 0.5), (700, 900, (0, 2, 3, 1), -1.5), (64, 96, (2, 3), 4.0)],
)
def test_redundancy_versions_are_combined_as_sionna_sends_them(
    k: int, n: int, rv: tuple[int, ...], snr_db: float
) -> None:
    code = encoder(k, n, 4)
    bits = random_bits(12, k)
    coded = code(bits, rv=list(rv))
    decoder = LayeredDecoder(code)
    assert torch.equal(decoder.decode(20 * coded - 10, rv=rv), bits)
    llr = noisy(coded, snr_db)
    assert torch.equal(decoder.decode(llr, rv=rv), bits)
    assert torch.equal(sionna(code, harq_mode=True)(llr, rv=list(rv)), bits)
    assert not torch.equal(decoder.decode(llr[:, :1], rv=rv[:1]), bits)


def test_a_repetition_adds_up() -> None:
    code = encoder(64, 128, 2)
    decoder = LayeredDecoder(code)
    first, second = (
        (noisy(code(random_bits(32, 64)), snr_db) * 8).round() / 8 for snr_db in (-2.0, -1.0)
    )
    both = decoder.decode(torch.stack([first, second], dim=1), 5, rv=(0, 0))
    assert torch.equal(both, decoder.decode(first + second, 5))
    assert not torch.equal(both, decoder.decode(first, 5))


def test_rows_left_out_would_have_said_nothing() -> None:
    code = encoder(200, 300, 2)
    decoder = LayeredDecoder(code)
    llr = noisy(code(random_bits(32, 200)), 2.0)
    silent = torch.stack([llr, torch.zeros_like(llr)], dim=1)
    for iterations in (1, 2, 5):
        assert torch.equal(
            decoder.decode(silent, iterations, rv=(0, 2)), decoder.decode(llr, iterations)
        )


def test_llrs_of_another_shape_are_refused() -> None:
    decoder = LayeredDecoder(encoder(64, 128))
    for wrong, rv in ((torch.zeros(2, 127), None), (torch.zeros(2, 1, 128), (0, 2))):
        with pytest.raises(ValueError, match="LLRs of shape"):
            decoder.decode(wrong, rv=rv)


def test_the_global_random_state_is_left_alone() -> None:
    code = encoder(64, 128)
    before = torch.get_rng_state()
    LayeredDecoder(code).decode(torch.ones(2, 128))
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_go_wrong_no_more_often_than_with_flooding() -> None:
    codec = pair(500, 1000)
    found = compare(codec, 1.4, 256)
    alone = found.layered_alone + found.flooding_alone
    assert found.flooding > 20
    assert found.flooding - found.flooding_alone == found.layered - found.layered_alone
    assert binomtest(found.layered_alone, alone, alternative="greater").pvalue > 0.01


def test_the_block_error_rate_is_that_of_the_published_curve() -> None:
    curve = PUBLISHED[0]
    codec = pair(curve.k, curve.n)
    sent, llr = transmit_qpsk(codec, 2.0, streams("published", 3000))
    wrong = int((codec.layered(llr) != sent).any(dim=1).sum())
    low, high = Proportion(wrong, 3000).interval(0.999)
    assert curve.ebno_at(high) < 2.0 + 0.2
    assert curve.ebno_at(low) > 2.0 - 0.2


def test_the_distance_is_read_off_the_slope() -> None:
    from scipy.stats import norm

    from channels.validation.benchmark import Comparison

    def point(ebno_db: float) -> Comparison:
        theirs = round(1e6 * norm.sf(2 * ebno_db))
        ours = round(1e6 * norm.sf(2 * (ebno_db - 0.1)))
        return Comparison(ebno_db, 10**6, theirs, ours, 0, ours - theirs)

    found, half = distance_db([point(0.5), point(0.8), point(1.1)])
    assert found == pytest.approx(0.1, abs=1e-3)
    assert 0 < half < 0.01


def test_the_commands_print_ratio_and_distance(capsys: pytest.CaptureFixture[str]) -> None:
    main(["speed", "--k", "64", "--n", "128", "--blocks", "64", "--repeats", "3"])
    ratio = float(capsys.readouterr().out.splitlines()[-1].split()[2])
    assert ratio > 2
    main(["bler", "--k", "64", "--n", "128", "--blocks", "256", "--ebno", "1", "2"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert "the layered decoder needs" in printed[-1]
