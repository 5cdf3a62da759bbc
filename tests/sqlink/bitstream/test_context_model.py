"""Tables of contexts: integers that every machine adds up alike, refused when wrong, and fitted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sqlink.bitstream import Packing, StreamTable, Tables, Tokens, packetise
from sqlink.bitstream.context_model import AROUND, UNDER, level_of, powers
from sqlink.bitstream.neighbourhood import window
from sqlink.bitstream.token_selection import keep, ranks
from sqlink.errors import WeightsError
from sqlink.model.sqgan import Analysis
from sqlink.training.context_tables import fit_tables


def drawn(codes: int, map_codes: int | None, seed: int = 0) -> StreamTable:
    """A table of any integers that are allowed."""
    rng = np.random.default_rng(seed)

    def bytes_(*shape: int, limit: int = 127) -> np.ndarray:
        return rng.integers(-limit, limit + 1, shape).astype(np.int8)

    def words(*shape: int) -> np.ndarray:
        return rng.integers(-32768, 32768, shape).astype(np.int16)

    return StreamTable(
        embedding=bytes_(codes + 2, 8, limit=63),
        around=bytes_(24, 8, 16),
        place=words(3, 16, 16),
        index_weights=bytes_(16, codes),
        index_bias=words(codes) // 16,
        mask_weights=bytes_(16),
        mask_bias=words(16) // 64,
        shifts=np.array([9, 5, 6], dtype=np.int8),
        map_embedding=None if map_codes is None else bytes_(map_codes + 2, 8, limit=63),
        under=None if map_codes is None else bytes_(9, 8, 16),
    )


def test_chances_are_those_of_plain_integers() -> None:
    """Against the same sums in Python's own integers, rounded down as they say."""
    table, rng = drawn(40, 30), np.random.default_rng(1)
    around = rng.integers(0, 42, (20, len(AROUND)))
    under = rng.integers(0, 32, (20, len(UNDER)))
    place, level = rng.integers(0, 16, (20, 2)), 7
    hidden = table.hidden_values(around, under, place, level)
    assert table.map_embedding is not None
    assert table.under is not None
    chances, weights = table.chance_kept(hidden, level), table.index_weights_of(hidden)
    for n in range(20):
        sums = [
            sum(
                int(table.embedding[around[n, k], e]) * int(table.around[k, e, h])
                for k in range(len(AROUND))
                for e in range(8)
            )
            + sum(
                int(table.map_embedding[under[n, k], e]) * int(table.under[k, e, h])
                for k in range(len(UNDER))
                for e in range(8)
            )
            + int(table.place[0, place[n, 0], h])
            + int(table.place[1, place[n, 1], h])
            + int(table.place[2, level, h])
            for h in range(16)
        ]
        own = [min(max(s >> 9, 0), 127) for s in sums]
        assert hidden[n].tolist() == own
        odds = (sum(a * int(w) for a, w in zip(own, table.mask_weights, strict=True)) >> 6) + int(
            table.mask_bias[level]
        )
        odds = min(max(odds, -768), 768)
        assert chances[n] == pytest.approx(1 / (1 + 2 ** (-odds / 64)), rel=1e-4)
        bits = [
            (sum(a * int(w) for a, w in zip(own, table.index_weights[:, j], strict=True)) >> 5)
            + int(table.index_bias[j])
            for j in range(40)
        ]
        below = [min(max(bits) - b, 1024) for b in bits]
        assert weights[n].tolist() == powers()[below].tolist()


def test_sums_do_not_depend_on_company_or_order() -> None:
    """Float32 holds every partial sum exactly: one at a time, all at once and reversed agree."""
    table, rng = drawn(40, 30, 3), np.random.default_rng(2)
    around, under = rng.integers(0, 42, (50, 24)), rng.integers(0, 32, (50, 9))
    place = rng.integers(0, 16, (50, 2))
    whole = table.hidden_values(around, under, place, 3)
    back = table.hidden_values(around[::-1], under[::-1], place[::-1], 3)[::-1]
    alone = [
        table.hidden_values(around[n : n + 1], under[n : n + 1], place[n : n + 1], 3)
        for n in range(50)
    ]
    np.testing.assert_array_equal(whole, back)
    np.testing.assert_array_equal(whole, np.concatenate(alone))


def test_tables_come_back_from_tensors_and_go_to_workers() -> None:
    tables = Tables(drawn(40, None), drawn(50, 40))
    tensors = tables.to_tensors()
    assert all(not t.is_floating_point() for t in tensors.values())
    for back in (Tables.from_tensors(tensors), copy.deepcopy(tables)):
        assert back.to_tensors().keys() == tensors.keys()
        assert all(torch.equal(t, tensors[n]) for n, t in back.to_tensors().items())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("map.embedding", None, "fit the tables"),
        ("map.around", torch.zeros(24, 8, 16), "torch.int8"),
        ("image.under", None, "image.under"),
        ("image.map_embedding", torch.zeros(51, 8, dtype=torch.int8), "map_embedding"),
        ("image.embedding", torch.full((52, 8), 100, dtype=torch.int8), "exceed 63"),
        ("image.shifts", torch.full((3,), -1, dtype=torch.int8), "0..30"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(
    name: str, value: torch.Tensor | None, says: str
) -> None:
    tensors = {**Tables(drawn(40, None), drawn(50, 40)).to_tensors(), f"tables.{name}": value}
    with pytest.raises(WeightsError, match=says) as caught:
        Tables.from_tensors({k: v for k, v in tensors.items() if v is not None})
    assert "\n" not in str(caught.value)


def test_tables_too_wide_for_exact_sums_are_refused() -> None:
    wide = StreamTable.even(4)
    tensors = wide.to_tensors("t")
    tensors["t.embedding"] = torch.zeros(6, 90, dtype=torch.int8)
    tensors["t.around"] = torch.zeros(24, 90, 1, dtype=torch.int8)
    with pytest.raises(WeightsError, match="exact"):
        StreamTable.from_tensors(tensors, "t", None)


def test_levels_rise_with_what_is_kept() -> None:
    found = [level_of(kept, 690) for kept in range(691)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 15)


def test_no_place_of_a_window_is_of_its_centres_pass() -> None:
    for height, width in ((1, 1), (5, 9), (23, 30)):
        geometry = window(height, width)
        passes = np.append(geometry.passes, 99)
        assert (passes[geometry.around] != geometry.passes[:, None]).all()
        assert geometry.bands.min() == 0
        assert geometry.bands.max() <= 15


def patterned(count: int, seed: int) -> Analysis:
    """Maps of two halves at a random height; the image's code follows the map's."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(2, 7, (count, 1, 1), generator=generator)
    below = torch.arange(8).view(1, 8, 1).expand(count, 8, 10) >= edges
    noise = torch.randint(0, 4, (2, count, 8, 10), generator=generator)
    maps, images = below * 8 + noise[0], below * 8 + noise[1]
    scores = torch.rand(2, count, 8, 10, generator=generator)
    return Analysis(images, scores[0], maps, scores[1])


def test_fits_of_the_same_pictures_are_the_same() -> None:
    books = (torch.eye(16, 4), torch.eye(16, 4))
    first, second = (fit_tables([patterned(9, 0)], books, steps=6).to_tensors() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_fitted_tables_learn_what_stands_around() -> None:
    """Codes of 16 of which a half's 4 are used: 4 bits without tables, near 2 with them."""
    books = tuple(torch.randn(16, 4, generator=torch.Generator().manual_seed(n)) for n in range(2))
    with torch.inference_mode():
        tables = fit_tables([patterned(40, 0)], (books[0], books[1]), steps=80)
    held_out = patterned(4, 1)
    bits: dict[str, int] = {}
    tokens = 0
    for n in range(4):
        maps, images = held_out.map_indices[n].numpy(), held_out.image_indices[n].numpy()
        zeros = np.zeros_like(maps)
        one = Tokens(
            keep(maps, ranks(held_out.map_scores[n].numpy()), 60),
            keep(images, ranks(held_out.image_scores[n].numpy()), 60),
            zeros,
            zeros,
        )
        tokens += 120
        for mode in ("single", "map-dependent", "independent"):
            packets = packetise(one, tables, 256, Packing(mode))
            bits[mode] = bits.get(mode, 0) + sum(p.bits["index"] for p in packets)
    assert bits["single"] < 2.5 * tokens
    assert bits["map-dependent"] < bits["independent"] < 3.2 * tokens
