"""Packets: what goes in comes out; each reads alone; hostile bytes are lost packets."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqlink.bitstream import (
    MODES,
    Packing,
    StreamTable,
    Tables,
    Tokens,
    packetise,
    parse_packets,
    read_packet,
    unpacketise,
)
from sqlink.bitstream.range_coder import Writer
from sqlink.errors import ConfigError, DataError

CODES = 512


def made_table(codes: int, map_codes: int | None, contexts: bool) -> StreamTable:
    """Frequent indices first, by integers alone; with contexts, indices of one remainder by 16 keep
    together:
    the left, upper and map's neighbours vote for theirs.
    """
    common = (-np.arange(codes) // 2).astype(np.int16)
    even = StreamTable.even(codes, map_codes)
    if not contexts:
        return dataclasses.replace(even, index_bias=common)
    votes = 60 * (np.arange(codes + 2)[:, None] % 16 == np.arange(16)).astype(np.int8)
    votes[codes:] = 0
    around = np.zeros((24, 16, 16), dtype=np.int8)
    around[[7, 11]] = 2 * np.eye(16, dtype=np.int8)
    under = None
    if map_codes is not None:
        under = np.zeros((9, 16, 16), dtype=np.int8)
        under[4] = np.eye(16, dtype=np.int8)
    return StreamTable(
        embedding=votes,
        around=around,
        place=np.zeros((3, 16, 16), dtype=np.int16),
        index_weights=(2 * (np.arange(16)[:, None] == np.arange(codes) % 16)).astype(np.int8),
        index_bias=common,
        mask_weights=np.ones(16, dtype=np.int8),
        mask_bias=even.mask_bias,
        shifts=np.zeros(3, dtype=np.int8),
        map_embedding=None if map_codes is None else votes[: map_codes + 2],
        under=under,
    )


def made_tables(contexts: bool = False) -> Tables:
    return Tables(made_table(CODES, None, contexts), made_table(CODES, CODES, contexts))


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
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    kept = tuple(draw(st.integers(0, height * width)) for _ in range(2))
    seed, layers = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 4))
    return made_tokens(height, width, (kept[0], kept[1]), seed, layers)


@st.composite
def any_packing(draw: st.DrawFn) -> Packing:
    return Packing(draw(st.sampled_from(MODES)), draw(st.booleans()))


@settings(max_examples=30, deadline=None)
@given(any_tokens(), st.integers(32, 256), st.booleans(), any_packing())
def test_tokens_come_back(
    tokens: Tokens, packet_bytes: int, contexts: bool, packing: Packing
) -> None:
    tables = made_tables(contexts)
    packets = packetise(tokens, tables, packet_bytes, packing)
    height, width = tokens.map_indices.shape
    pieces = [p.data for p in packets]
    found = unpacketise(pieces, height, width, tables, packing)
    np.testing.assert_array_equal(found[0], tokens.map_indices)
    np.testing.assert_array_equal(found[1], tokens.image_indices)
    assert all(len(p.data) == packet_bytes for p in packets[:-1])
    assert all(1 <= len(p.data) <= packet_bytes for p in packets[-1:])
    assert not pieces or parse_packets(pieces, height, width, tables, packing) == packets
    assert all(bits >= 0 for p in packets for bits in p.bits.values())


@settings(max_examples=12, deadline=None)
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


@settings(max_examples=12, deadline=None)
@given(any_tokens(), st.booleans(), any_packing())
def test_a_stream_cut_at_any_packet_gives_what_had_come(
    tokens: Tokens, contexts: bool, packing: Packing
) -> None:
    """Each packet adds tokens, none of them wrong; what hangs on the map comes after it."""
    tables = made_tables(contexts)
    packets = [p.data for p in packetise(tokens, tables, 48, packing)]
    sent = np.stack([tokens.map_indices, tokens.image_indices])
    height, width = sent.shape[1:]
    before = 0
    for count in range(1, len(packets) + 1):
        cut = [*packets[:count], *[None] * (len(packets) - count)]
        found = np.stack(unpacketise(cut, height, width, tables, packing))
        held = found >= 0
        np.testing.assert_array_equal(found[held], sent[held])
        assert held.sum() > before or packing.mode == "single"
        assert held.sum() >= before
        before = held.sum()
        if packing.mode == "map-dependent" and held[1].any():
            np.testing.assert_array_equal(found[0], sent[0])
    assert before == (sent >= 0).sum()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_single_stream_cut_anywhere_holds_nearly_all_that_came(fixed: bool) -> None:
    """Of the information in the bytes that came, all but the last symbols' is read; a list of
    packets that is merely shorter reads like one whose last packets are lost.
    """
    packing, tables = Packing("single", fixed), made_tables(contexts=True)
    tokens = made_tokens(23, 30, (276, 276))
    packets = [p.data for p in packetise(tokens, tables, 64, packing)]
    data = b"".join(packets)
    counts = []
    for size in range(1, len(data), 37):
        found = unpacketise([data[:size], None], 23, 30, tables, packing)
        shorter = unpacketise([data[:size]], 23, 30, tables, packing)
        np.testing.assert_array_equal(found, shorter)
        counts.append((size, sum(int((grid >= 0).sum()) for grid in found)))
    for size, count in counts:
        assert count >= 552 * size / len(data) * 0.85 - 40
    assert counts[-1][1] > 520


def test_single_packets_after_a_lost_one_are_lost() -> None:
    packing, tables = Packing("single"), made_tables()
    tokens = made_tokens(23, 30, (276, 276))
    packets: list[bytes | None] = [p.data for p in packetise(tokens, tables, 64, packing)]
    cut = unpacketise([*packets[:4], *[None] * (len(packets) - 4)], 23, 30, tables, packing)
    holed = unpacketise([*packets[:4], None, *packets[5:]], 23, 30, tables, packing)
    np.testing.assert_array_equal(cut, holed)


def test_image_packets_that_hang_on_the_map_are_lost_with_any_of_it() -> None:
    packing, tables = Packing("map-dependent"), made_tables(contexts=True)
    tokens = made_tokens(23, 30, (276, 276))
    packets = [p.data for p in packetise(tokens, tables, 64, packing)]
    of_map = [
        n
        for n, p in enumerate(packets)
        if (unpacketise([p], 23, 30, tables, packing)[0] >= 0).any()
    ]
    assert of_map == list(range(len(of_map)))
    for lost in of_map:
        came = [None if n == lost else p for n, p in enumerate(packets)]
        found = unpacketise(came, 23, 30, tables, packing)
        assert (found[1] < 0).all()
        np.testing.assert_array_equal(found[0][found[0] >= 0], tokens.map_indices[found[0] >= 0])
    came = [None if n == len(packets) - 1 else p for n, p in enumerate(packets)]
    found = unpacketise(came, 23, 30, tables, packing)
    assert 100 < (found[1] >= 0).sum() < 276
    with pytest.raises(DataError, match="did not arrive whole"):
        read_packet(packets[-1], 23, 30, tables, map_indices=found[1])


def test_what_packings_cost_is_in_their_order() -> None:
    """One stream is cheapest; packets that know the map are cheaper than those that do not where
    the image follows the map; indices of equal length cost log2 of the codebook.
    """
    tables = made_tables(contexts=True)
    tokens = made_tokens(24, 32, (300, 300))
    follows = tokens.map_indices
    tokens = Tokens(follows, follows, tokens.map_layers, tokens.image_layers)
    bits = {}
    for mode in MODES:
        packets = packetise(tokens, tables, 96, Packing(mode))
        bits[mode] = sum(8 * len(p.data) for p in packets)
        plain = packetise(tokens, tables, 96, Packing(mode, fixed=True))
        assert sum(p.bits["index"] for p in plain) == pytest.approx(600 * 9, abs=len(plain))
    assert bits["single"] < bits["map-dependent"] < bits["independent"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | st.binary(max_size=80), max_size=4),
    st.integers(1, 20),
    st.integers(1, 20),
    any_packing(),
)
def test_hostile_packets_give_tokens_in_range(
    pieces: list[bytes | None], height: int, width: int, packing: Packing
) -> None:
    tables = made_tables(contexts=True)
    for grid in unpacketise(pieces, height, width, tables, packing):
        assert grid.shape == (height, width)
        assert grid.min() >= -1
        assert grid.max() < CODES
    with suppress(DataError):
        parse_packets([p for p in pieces if p] or [b"\0"], height, width, tables, packing)


@settings(max_examples=30, deadline=None)
@given(st.data(), any_packing())
def test_damaged_packets_never_crash(data: st.DataObject, packing: Packing) -> None:
    tables, tokens = made_tables(contexts=True), made_tokens(9, 12, (40, 60), layers=2)
    packets = [bytearray(p.data) for p in packetise(tokens, tables, 32, packing)]
    for _ in range(data.draw(st.integers(1, 4))):
        hit = packets[data.draw(st.integers(0, len(packets) - 1))]
        hit[data.draw(st.integers(0, len(hit) - 1))] ^= data.draw(st.integers(1, 255))
    for grid in unpacketise([bytes(p) for p in packets], 9, 12, tables, packing):
        assert -1 <= grid.min() <= grid.max() < CODES


@settings(max_examples=100, deadline=None)
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
    """But for cuts in its very last byte, or just where the first of its chunks ends."""
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
    assert refused >= 0.97 * cuts


def test_bytes_after_a_packet_make_it_unreadable() -> None:
    tables = made_tables()
    packet = packetise(made_tokens(23, 30, (40, 0)), tables, 96)[0].data
    with pytest.raises(DataError, match="damaged"):
        read_packet(packet + b"\x01", 23, 30, tables)


def test_a_packet_with_more_tokens_than_places_is_refused() -> None:
    """On one place, a chunk is a kind, a level and an index; a third one has nowhere to go."""
    tables = Tables.uniform(2, 2)
    refinements = 2 * [16.0, 2, 1, 1, 14, 2, 1, 1]
    kinds = np.array([[20.0, 2, 1, 1, 16, 4, 1, 1, 14, 2, 1, 1, *refinements]])

    def packet(chunks: int) -> bytes:
        writer = Writer()
        for number in range(chunks):
            if number:
                writer.flags("header", np.array([True]), np.array([1 / 8]))
            writer.indices("header", np.array([4 * (number % 2)]), kinds)
            writer.number("header", 16, 17)
            writer.numbers("index", np.array([1]), 2)
        writer.flags("header", np.array([False]), np.array([1 / 8]))
        return writer.to_bytes()

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
    weights = 2.0 ** ((-np.arange(CODES) // 2) / 64)
    probability = weights / weights.sum()
    sent = np.concatenate([g[g >= 0] for g in (tokens.map_indices, tokens.image_indices)])
    ideal = -np.log2(probability[sent]).sum()
    total = {k: sum(p.bits[k] for p in packets) for k in packets[0].bits}
    assert abs(total["index"] - ideal) <= 2 * len(packets)
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
    """A first layer's tokens come before a second's, the map's and the image's side by side."""
    tables = made_tables()
    tokens = made_tokens(23, 30, (150, 300), layers=2)
    packets = packetise(tokens, tables, 64)
    assert [p.priority for p in packets] == list(range(len(packets)))
    kinds = [
        (chunk.layer, chunk.stream)
        for p in packets
        for chunk in read_packet(p.data, 23, 30, tables).chunks
    ]
    assert [layer for layer, _ in kinds] == sorted(layer for layer, _ in kinds)
    assert {*kinds} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_a_packet_holds_its_share_of_map_and_image() -> None:
    """So that whichever is lost, about as much of either is."""
    tables, sent = made_tables(), (150, 300)
    packets = packetise(made_tokens(23, 30, sent), tables, 64)
    found = np.zeros((len(packets), 2))
    for number, packet in enumerate(packets):
        for chunk in read_packet(packet.data, 23, 30, tables).chunks:
            found[number, chunk.stream] += chunk.kept.sum()
    assert found.sum(axis=0).tolist() == list(sent)
    whole = found[:-1] / np.array(sent) * (len(packets) - 1)  # the last packet is short
    assert (abs(whole - 1) < 0.4).all()
    alone = packetise(made_tokens(23, 30, sent), tables, 64, Packing("map-dependent"))
    first = read_packet(alone[0].data, 23, 30, tables)
    assert {chunk.stream for chunk in first.chunks} == {0}


@pytest.mark.parametrize("mode", ["independent", "single"])
def test_a_layer_comes_whole_before_the_next_begins(mode: str) -> None:
    tables, packing = made_tables(contexts=True), Packing(mode)
    tokens = made_tokens(23, 30, (150, 300), layers=3)
    indices = np.stack([tokens.map_indices, tokens.image_indices])
    layers = np.stack([tokens.map_layers, tokens.image_layers])
    streams = np.arange(2)[:, None, None]  # which share the packets of a layer, or follow
    order = 2 * layers + (streams if mode == "single" else 0)
    packets = packetise(tokens, tables, 64, packing)
    for count in range(len(packets) + 1):
        pieces = [p.data if n < count else None for n, p in enumerate(packets)]
        found = np.stack(unpacketise(pieces, 23, 30, tables, packing))
        came = found >= 0
        np.testing.assert_array_equal(found[came], indices[came])
        if came.any():
            before = (indices >= 0) & (order < order[came].max())
            assert came[before].all()
    np.testing.assert_array_equal(found, indices)


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
    ("mode", "contexts", "digest"),
    [
        ("independent", False, "9b6fd1346be85e29"),
        ("independent", True, "709eeb727d9769e4"),
        ("map-dependent", True, "067acf997dfdcd7c"),
        ("single", True, "54c378b668321f0b"),
    ],
)
def test_the_format_stands(mode: str, contexts: bool, digest: str) -> None:
    """A change of this hash changes every stream: of the format, or of what a packet holds."""
    rng_free = (np.arange(690).reshape(23, 30) * 7919 + 13) % CODES
    wave = (np.arange(690).reshape(23, 30) * 37 // 50) % 5
    zeros = np.zeros((23, 30), dtype=np.int64)
    tokens = Tokens(
        np.where(wave < 2, rng_free, -1),
        np.where(wave > 1, rng_free[::-1], -1),
        zeros,
        (wave == 3).astype(np.int64),
    )
    packets = packetise(tokens, made_tables(contexts), 96, Packing(mode))
    assert hashlib.sha256(b"".join(p.data for p in packets)).hexdigest()[:16] == digest


def test_packets_that_hold_all_of_the_map_first_are_read() -> None:
    """Written before map and image shared packets."""
    packets = [
        "00983d70f8f67c82f0daf9f1ad4260c2b8c3199d7554e8395f5b128682d90000",
        "2c3769027d0d20a8f373914097afad8efb2dbf03cec89c5f27d6c76d4648e200",
        "40d15a7c3ce4308ff07089f55f7e98",
    ]
    places, tables = np.arange(60).reshape(6, 10), made_tables()
    of_map = np.where(places % 3 == 0, places * 5 % CODES, -1)
    image = np.where(places % 2 == 0, places * 11 % CODES, -1)
    pieces = [bytes.fromhex(packet) for packet in packets]
    found = unpacketise(pieces, 6, 10, tables)
    np.testing.assert_array_equal(found[0], of_map)
    np.testing.assert_array_equal(found[1], image)
    kinds = [[c.stream for c in read_packet(p, 6, 10, tables).chunks] for p in pieces]
    assert kinds == [[0], [1], [1]]


@pytest.mark.parametrize("number", [3, 7, 8, -1])
def test_a_packing_of_a_later_version_is_refused(number: int) -> None:
    with pytest.raises(DataError, match="later version"):
        Packing.of(number)


def test_packings_have_numbers_and_names() -> None:
    for fixed in (False, True):
        for mode in MODES:
            assert Packing.of(Packing(mode, fixed).number) == Packing(mode, fixed)
    with pytest.raises(ConfigError, match="did you mean 'single'"):
        Packing("singel")


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
