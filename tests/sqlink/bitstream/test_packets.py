"""Packets: what goes in comes out; each reads alone; hostile bytes are lost packets."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqlink.bitstream import Tables, Tokens, packetise, read_packet, unpacketise
from sqlink.bitstream.range_coder import encoder, shortest_bytes
from sqlink.bitstream.tables import IndexTable
from sqlink.errors import ConfigError, DataError

CODES = 512


def made_tables(contexts: bool = False) -> Tables:
    """Tables of about 8.6 bits an index, by integer arithmetic alone."""
    counts = 40000 // (np.arange(CODES) + 60) + 1
    if not contexts:
        return Tables(IndexTable(counts), IndexTable(counts))
    clusters = np.arange(CODES) % 16
    rows = np.stack([np.where(clusters == k, 20, 1) * counts for k in range(16)] + [counts] * 2)
    return Tables(IndexTable(counts, clusters, rows), IndexTable(counts, clusters, rows))


def smooth_scores(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Scores with neighbours alike, as relevance is."""
    noise = rng.random((height + 4, width + 4))
    windows = [noise[i : i + height, j : j + width] for i in range(5) for j in range(5)]
    summed: NDArray[np.float64] = np.stack(windows).sum(axis=0)
    return summed


def made_tokens(
    height: int, width: int, kept: tuple[int, int], seed: int = 0, layers: int = 1
) -> Tokens:
    """Random indices on the places of highest score; layers by rank of score."""
    rng = np.random.default_rng(seed)
    grids, ranks = [], []
    for count in kept:
        score = smooth_scores(rng, height, width)
        rank = np.argsort(np.argsort(-score.ravel(), kind="stable")).reshape(height, width)
        drawn = (rng.random((height, width)) ** 2 * CODES).astype(np.int64)
        grids.append(np.where(rank < count, drawn, -1))
        ranks.append(np.minimum(rank * layers // max(count, 1), layers - 1))
    return Tokens(grids[0], grids[1], ranks[0], ranks[1])


@st.composite
def any_tokens(draw: st.DrawFn) -> Tokens:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kept = tuple(draw(st.integers(0, height * width)) for _ in range(2))
    seed, layers = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 4))
    return made_tokens(height, width, (kept[0], kept[1]), seed, layers)


@settings(max_examples=60, deadline=None)
@given(any_tokens(), st.integers(32, 256), st.booleans())
def test_tokens_come_back(tokens: Tokens, packet_bytes: int, contexts: bool) -> None:
    tables = made_tables(contexts)
    packets = packetise(tokens, tables, packet_bytes)
    height, width = tokens.map_indices.shape
    found = unpacketise([p.data for p in packets], height, width, tables)
    np.testing.assert_array_equal(found[0], tokens.map_indices)
    np.testing.assert_array_equal(found[1], tokens.image_indices)
    assert all(len(p.data) == packet_bytes for p in packets[:-1])
    assert all(1 <= len(p.data) <= packet_bytes for p in packets[-1:])
    assert all(read_packet(p.data, height, width, tables).bits == p.bits for p in packets)
    assert all(bits >= 0 for p in packets for bits in p.bits.values())


@settings(max_examples=25, deadline=None)
@given(any_tokens(), st.integers(32, 128), st.data())
def test_what_comes_of_any_packets_is_what_they_hold(
    tokens: Tokens, packet_bytes: int, data: st.DataObject
) -> None:
    """Every packet alone gives its own tokens; any set of packets gives their union."""
    tables = made_tables()
    height, width = tokens.map_indices.shape
    packets = [p.data for p in packetise(tokens, tables, packet_bytes)]
    came = data.draw(st.lists(st.booleans(), min_size=len(packets), max_size=len(packets)))
    together = unpacketise(
        [p if ok else None for p, ok in zip(packets, came, strict=True)], height, width, tables
    )
    expected = np.full((2, height, width), -1)
    for packet, ok in zip(packets, came, strict=True):
        if ok:
            expected = np.maximum(expected, unpacketise([packet], height, width, tables))
    np.testing.assert_array_equal(np.stack(together), expected)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_hostile_bytes_are_refused_or_are_valid(
    data: bytes, height: int, width: int, contexts: bool
) -> None:
    """Bytes are DataError or tokens in range; never another exception, never a place outside."""
    tables = made_tables(contexts)
    with suppress(DataError):
        read_packet(data, height, width, tables)
    for grid in unpacketise([data], height, width, tables):
        assert grid.shape == (height, width)
        assert grid.min() >= -1
        assert grid.max() < CODES


def test_a_packet_cut_short_is_lost() -> None:
    """But for cuts in its very last byte, or just where one of several chunks ends."""
    tables, tokens = made_tables(), made_tokens(23, 30, (276, 276))
    cuts = refused = 0
    for packet in packetise(tokens, tables, 96):
        coded = len(packet.data) - packet.bits["padding"] // 8
        assert read_packet(packet.data[:coded], 23, 30, tables).chunks
        for keep in range(coded):
            cuts += 1
            with suppress(DataError):
                read_packet(packet.data[:keep], 23, 30, tables)
                refused -= 1
            refused += 1
    assert refused >= 0.98 * cuts


def test_bytes_after_a_packet_make_it_unreadable() -> None:
    tables = made_tables()
    packet = packetise(made_tokens(23, 30, (40, 0)), tables, 96)[0].data
    with pytest.raises(DataError, match="damaged"):
        read_packet(packet + b"\x01", 23, 30, tables)


def test_a_packet_of_a_later_kind_is_lost() -> None:
    """The last kind has the topmost share of the code."""
    with pytest.raises(DataError, match="later version"):
        read_packet(b"\xfc" * 96, 23, 30, made_tables())


def test_a_packet_with_more_tokens_than_places_is_refused() -> None:
    """On one place, a chunk is a kind and an index; a third one has nowhere to go."""
    kinds = constriction.stream.model.Categorical(
        np.array([20, 2, 1, 1, 24, 8, 4, 2, 2]) / 64, perfect=False
    )
    more = constriction.stream.model.Bernoulli(1 / 8, perfect=False)
    index = constriction.stream.model.Categorical(np.ones(2) / 2, perfect=False)
    tables = Tables.uniform(2, 2)

    def packet(chunks: int) -> bytes:
        coder = encoder()
        for number in range(chunks):
            if number:
                coder.encode(1, more)
            coder.encode(4 * (number % 2), kinds)
            coder.encode(np.array([1], np.int32), index)
        coder.encode(0, more)
        return shortest_bytes(coder)

    assert len(read_packet(packet(2), 1, 1, tables).chunks) == 2
    with pytest.raises(DataError, match="more tokens than there are places"):
        read_packet(packet(3000), 1, 1, tables)


@pytest.mark.parametrize("packet_bytes", [64, 96, 128, 256])
def test_the_head_takes_at_most_four_bytes(packet_bytes: int) -> None:
    tables = made_tables()
    for height, width in ((23, 30), (16, 32), (64, 128)):
        kept = int(0.4 * height * width)
        for packet in packetise(made_tokens(height, width, (0, kept)), tables, packet_bytes):
            assert packet.bits["header"] <= 32


def test_positions_cost_less_than_one_mask_for_all() -> None:
    """40 % of 690 places in packets of 96 bytes, against the entropy of one whole mask."""
    tables, kept, places = made_tables(), 276, 690
    one_mask = math.log2(math.comb(places, kept))
    spent = np.mean(
        [
            sum(p.bits["mask"] for p in packetise(made_tokens(23, 30, (0, kept), s), tables, 96))
            for s in range(8)
        ]
    )
    assert spent < one_mask


def test_indices_cost_their_information_and_ends_little() -> None:
    tables, tokens = made_tables(), made_tokens(23, 30, (276, 276))
    packets = packetise(tokens, tables, 96)
    probability = tables.map.counts / tables.map.counts.sum()
    sent = np.concatenate([g[g >= 0] for g in (tokens.map_indices, tokens.image_indices)])
    ideal = -np.log2(probability[sent]).sum()
    total = {k: sum(p.bits[k] for p in packets) for k in packets[0].bits}
    assert abs(total["index"] - ideal) <= len(packets)
    assert total["coder"] / len(packets) < 8
    assert total["padding"] / len(packets) < 8


def test_a_full_picture_says_nothing_of_positions() -> None:
    packets = packetise(made_tokens(23, 30, (690, 690)), made_tables(), 96)
    assert sum(p.bits["mask"] for p in packets) == 0


def test_contexts_that_fit_save_bits() -> None:
    """Rows of indices of one cluster cost less with the left neighbour's context than without."""
    cluster = np.repeat(np.arange(16) % 16, 30).reshape(16, 30)
    drawn = np.random.default_rng(1).integers(0, CODES // 16, (16, 30)) * 16 + cluster
    absent, zeros = np.full((16, 30), -1), np.zeros((16, 30), dtype=np.int64)
    tokens = Tokens(drawn, absent, zeros, zeros)
    plain = sum(len(p.data) for p in packetise(tokens, made_tables(), 96))
    informed = sum(len(p.data) for p in packetise(tokens, made_tables(contexts=True), 96))
    assert informed < 0.8 * plain


def test_packets_go_by_relevance() -> None:
    """The map's tokens come before the image's, and a first layer's before a second's."""
    tables = made_tables()
    tokens = made_tokens(23, 30, (150, 300), layers=2)
    packets = packetise(tokens, tables, 64)
    assert [p.priority for p in packets] == list(range(len(packets)))
    kinds = [
        (chunk.stream, chunk.layer)
        for p in packets
        for chunk in read_packet(p.data, 23, 30, tables).chunks
    ]
    assert kinds == sorted(kinds)
    relevant = (tokens.image_indices >= 0) & (tokens.image_layers == 0)
    for count in range(len(packets) + 1):
        found = unpacketise([p.data for p in packets[:count]], 23, 30, tables)
        if (found[1] >= 0).any():
            np.testing.assert_array_equal(found[0], tokens.map_indices)
        if (found[1][~relevant] >= 0).any():
            np.testing.assert_array_equal(found[1][relevant], tokens.image_indices[relevant])


def test_a_lost_packet_leaves_a_scattered_hole() -> None:
    """Whichever packet is lost, each row it takes lies beside one that it leaves."""
    tables = made_tables()
    tokens = made_tokens(23, 30, (0, 690))
    packets = [p.data for p in packetise(tokens, tables, 96)]
    for lost in range(len(packets)):
        came = [None if i == lost else p for i, p in enumerate(packets)]
        hole = unpacketise(came, 23, 30, tables)[1] < 0
        beside = np.zeros_like(hole)
        beside[1:] |= ~hole[:-1]
        beside[:-1] |= ~hole[1:]
        assert beside[hole].all()


@pytest.mark.parametrize(
    ("contexts", "digest"),
    [
        (False, "dfccace8738e0e7d"),
        (True, "ed5664f5a04d84e7"),
    ],
)
def test_the_format_stands(contexts: bool, digest: str) -> None:
    """A change of this hash is a change of the format: old files no longer read."""
    rng_free = (np.arange(690).reshape(23, 30) * 7919 + 13) % CODES
    wave = (np.arange(690).reshape(23, 30) * 37 // 50) % 5
    zeros = np.zeros((23, 30), dtype=np.int64)
    tokens = Tokens(
        np.where(wave < 2, rng_free, -1),
        np.where(wave > 1, rng_free[::-1], -1),
        zeros,
        (wave == 3).astype(np.int64),
    )
    packets = packetise(tokens, made_tables(contexts), 96)
    assert hashlib.sha256(b"".join(p.data for p in packets)).hexdigest()[:16] == digest


def test_no_tokens_make_no_packets() -> None:
    assert packetise(made_tokens(5, 5, (0, 0)), made_tables(), 96) == []


@pytest.mark.parametrize("packet_bytes", [0, 31, 65536])
def test_a_packet_size_out_of_range_is_refused(packet_bytes: int) -> None:
    with pytest.raises(ConfigError, match="packet_bytes"):
        packetise(made_tokens(5, 5, (3, 3)), made_tables(), packet_bytes)


def test_a_large_picture_packs() -> None:
    """4096x4096 pixels: 65536 places a stream."""
    tables, tokens = made_tables(), made_tokens(256, 256, (6000, 9000))
    packets = packetise(tokens, tables, 256)
    found = unpacketise([p.data for p in packets], 256, 256, tables)
    np.testing.assert_array_equal(found[0], tokens.map_indices)
    np.testing.assert_array_equal(found[1], tokens.image_indices)
