"""Random numbers are Philox's, are the same everywhere, and have the distribution they claim."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from scipy import stats

from channels.random import Randomness, Streams, philox4x32_10

KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
"""Random123's kat_vectors for philox4x32 10."""

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def words(text: str, device: str) -> torch.Tensor:
    return torch.tensor([int(word, 16) for word in text.split()], device=device)


def links(count: int, device: str = "cpu") -> Randomness:
    return Randomness.derive(1, [("point", 0, r) for r in range(count)], device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter: str, key: str, output: str, device: str) -> None:
    got = philox4x32_10(words(counter, device), words(key, device))
    assert torch.equal(got, words(output, device))


@pytest.mark.parametrize("device", DEVICES)
def test_philox_gives_the_answers_of_the_conformance_file(shared: Path, device: str) -> None:
    with (shared / "vectors" / "philox4x32_10.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        got = philox4x32_10(words(row["counter"], device), words(row["key"], device))
        assert torch.equal(got, words(row["output"], device))


def test_draws_are_words_of_the_stream_in_counter_order() -> None:
    streams = links(2)
    block = torch.tensor([[1, 0, 0, 0]])
    assert torch.equal(streams.integers(4, start=4), philox4x32_10(block, streams.keys))
    far = (1 << 32) + 5
    block = torch.tensor([[5, 1, 0, 0]])
    assert torch.equal(streams.integers(4, start=4 * far), philox4x32_10(block, streams.keys))


@pytest.mark.parametrize("kind", ["integers", "uniform", "normal", "complex_normal"])
def test_draws_do_not_depend_on_chunks_batch_or_order(kind: str) -> None:
    streams = links(9)
    whole = getattr(streams, kind)(23)
    for start, count in [(0, 1), (1, 5), (3, 20), (7, 0), (22, 1)]:
        part = getattr(streams, kind)(count, start=start)
        assert torch.equal(part, whole[:, start : start + count])
    order = torch.tensor([4, 0, 8, 2])
    assert torch.equal(getattr(streams.select(order), kind)(23), whole[order])
    assert torch.equal(getattr(streams.select([3]), kind)(23), whole[3:4])
    assert torch.equal(getattr(streams.select(slice(2, 5)), kind)(23), whole[2:5])


def test_children_are_new_streams_that_do_not_depend_on_the_batch() -> None:
    streams = links(5)
    noise, fading = streams.child("noise"), streams.child("fading")
    every = torch.cat([s.integers(64).flatten() for s in (streams, noise, fading)])
    assert len(every.unique()) == len(every)
    assert torch.equal(streams.select([3]).child("noise").keys, noise.keys[3:4])
    assert torch.equal(streams.child("noise").keys, noise.keys)
    assert not torch.equal(noise.child("a").keys, noise.child("b").keys)


def test_numbered_substreams_do_not_depend_on_their_count_or_the_batch() -> None:
    streams = links(4)
    split = streams.split(6)
    assert len(split) == 24
    assert len({tuple(key) for key in [*split.keys.tolist(), *streams.keys.tolist()]}) == 28
    assert torch.equal(split.keys.reshape(4, 6, 2)[:, :3], streams.split(3).keys.reshape(4, 3, 2))
    assert torch.equal(split.keys[6:12], streams.select([1]).split(6).keys)


def test_keys_tell_apart_seed_parts_types_and_borders() -> None:
    parts = [("a", "bc"), ("ab", "c"), ("abc",), ("1",), (1,), (1, 1), (11,), ()]
    keys = torch.cat([Randomness.derive(seed, parts).keys for seed in (0, 1)])
    assert len({tuple(key) for key in keys.tolist()}) == 2 * len(parts)
    assert torch.equal(Randomness.derive(0, [("a", 1)]).keys, Randomness.derive(0, [("a", 1)]).keys)
    with pytest.raises(TypeError, match="str or an int"):
        Randomness.derive(0, [(1.5,)])  # type: ignore[list-item]


def test_keys_are_stable_across_versions() -> None:
    """A change here would silently change every stored result."""
    streams = Randomness.derive(2024, [("awgn", 3, 1)])
    assert streams.integers(2).tolist() == [[698803507, 720894760]]
    assert streams.child("noise").integers(2).tolist() == [[461184403, 1518159326]]


def test_no_links_give_no_numbers() -> None:
    none = Randomness.derive(0, [])
    assert len(none) == 0
    assert none.complex_normal(5).shape == (0, 5)


def test_distributions() -> None:
    streams = links(50)
    uniform = streams.uniform(4000).flatten()
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    normal = streams.child("n").normal(4000).flatten()
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    x = streams.child("c").complex_normal(4000).flatten()
    assert stats.kstest((x.abs() ** 2).numpy(), "expon").pvalue > 1e-3
    assert stats.kstest(x.angle().numpy(), "uniform", (-torch.pi, 2 * torch.pi)).pvalue > 1e-3
    links_apart = torch.corrcoef(streams.uniform(4000))
    assert float((links_apart - torch.eye(50)).abs().max()) < 0.09  # 5.7 sigma, 1225 pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_never_reach_the_ends(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = links(1)
    ends = torch.tensor([[0, 0xFFFFFFFF]])
    monkeypatch.setattr(Randomness, "integers", lambda self, count, start=0: ends)
    low, high = streams.uniform(2, dtype=dtype)[0].tolist()
    assert 0 < low < 1e-6
    assert 1 - 1e-6 < high < 1


def test_no_global_random_state_is_read_or_changed() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = links(3).child("x").normal(100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(links(3).child("x").normal(100), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_the_integers_of_the_cpu() -> None:
    cpu, cuda = links(64).child("x"), links(64, "cuda").child("x")
    assert torch.equal(cpu.integers(5001, start=3), cuda.integers(5001, start=3).cpu())
    assert torch.equal(cpu.uniform(100), cuda.uniform(100).cpu())
    torch.testing.assert_close(cpu.normal(999), cuda.normal(999).cpu(), rtol=1e-12, atol=1e-12)


def test_the_earlier_name_still_serves() -> None:
    assert Streams is Randomness
