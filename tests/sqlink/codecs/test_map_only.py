"""The controls: a map alone, and a map beside a BPG picture, within a budget of true bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlink.codecs import codec_for_suffix, load_codec
from sqlink.codecs.base import OUTAGE_COLOUR, Codec, Rate, Received, Stream, Unreachable
from sqlink.codecs.map_only import MEAN_COLOURS, shrink
from sqlink.codecs.webp_map import decode_ids, encode_ids
from sqlink.data.classes import NO_LABEL
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError
from sqlink.segmentation.ground_truth import fill_unlabelled

STREETS = Streets(seed=5, count=2, height=96, width=128)
IMAGES = torch.stack([STREETS[n].image for n in range(2)])
MAPS = fill_unlabelled(
    torch.stack([labels for n in range(2) if (labels := STREETS[n].segmentation) is not None])
)
MAP_ONLY = load_codec("map_only")


def both() -> Codec:
    pytest.importorskip("av", reason="BPG needs PyAV")
    return load_codec("bpg+map")


def streams(codec: Codec, rate: Rate) -> list[Stream]:
    answers = codec.encode(IMAGES, rate, MAPS)
    assert all(isinstance(answer, Stream) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Stream)]


def agreement(found: torch.Tensor) -> float:
    return float((found == MAPS).double().mean())


def test_they_are_codecs_by_name_and_suffix() -> None:
    for codec, name, suffix in ((MAP_ONLY, "map_only", ".sqm"), (both(), "bpg+map", ".sqb")):
        assert isinstance(codec, Codec)
        assert codec.carries_map
        assert (codec.name, codec.suffix) == (name, suffix)
        assert codec_for_suffix(suffix) == name


def test_with_bytes_enough_the_map_comes_as_it_was_in_mean_colours() -> None:
    received = [Received.whole(stream) for stream in streams(MAP_ONLY, Rate(bytes=4000))]
    decoded = MAP_ONLY.decode(received)
    assert decoded.segmentation is not None
    assert torch.equal(decoded.segmentation, MAPS)
    y, x = 50, 60
    colour = decoded.images[0, :, y, x] * 255
    assert tuple(colour.round().int().tolist()) == MEAN_COLOURS[int(MAPS[0, y, x])]
    assert not decoded.outage.any()


@pytest.mark.parametrize("size", [60, 100, 200, 400])
def test_the_map_gets_coarser_until_it_fits(size: int) -> None:
    found = streams(MAP_ONLY, Rate(bytes=size))
    for stream in found:
        assert stream.size <= size
        assert sum(stream.ledger.values()) == 8 * stream.size
        assert stream.ledger["session"] == 8 * 16
        assert max(len(p.data) for p in stream.packets) <= 96
        factor = stream.packets[0].data[0]
        (finer,) = MAP_ONLY.encode(IMAGES[:1], Rate(quality=factor), MAPS[:1])
        assert isinstance(finer, Stream)
    decoded = MAP_ONLY.decode([Received.whole(stream) for stream in found])
    assert decoded.segmentation is not None
    assert agreement(decoded.segmentation) > (0.75 if size < 100 else 0.85)


def test_one_factor_finer_would_not_have_fitted() -> None:
    (stream, _) = streams(MAP_ONLY, Rate(bytes=200))
    factor = stream.packets[0].data[0]
    assert factor > 1
    (finer,) = MAP_ONLY.encode(IMAGES[:1], Rate(quality=factor - 1), MAPS[:1])
    assert isinstance(finer, Stream)
    assert finer.size > 200


def test_the_floors_are_exact() -> None:
    for codec in (MAP_ONLY, both()):
        for n, answer in enumerate(codec.encode(IMAGES, Rate(bytes=20), MAPS)):
            assert isinstance(answer, Unreachable)
            lowest = Rate(bytes=answer.lowest_bytes)
            below = Rate(bytes=answer.lowest_bytes - 1)
            one = slice(n, n + 1)
            (stream,) = codec.encode(IMAGES[one], lowest, MAPS[one])
            assert isinstance(stream, Stream)
            assert stream.size <= answer.lowest_bytes
            (refused,) = codec.encode(IMAGES[one], below, MAPS[one])
            assert isinstance(refused, Unreachable)


def test_a_missing_or_wrong_packet_is_an_outage() -> None:
    stream = streams(MAP_ONLY, Rate(bytes=400))[0]
    pieces = [packet.data for packet in stream.packets]
    assert len(pieces) > 2
    cut = Received(stream.session, (pieces[0], None, *pieces[2:]))
    wrong = Received(stream.session, (b"\x03" + bytes(95), *pieces[1:]))
    empty = Received(stream.session, ())
    decoded = MAP_ONLY.decode([cut, wrong, empty])
    assert decoded.outage.tolist() == [True] * 3
    assert decoded.images[0, :, 0, 0].tolist() == pytest.approx(OUTAGE_COLOUR)
    assert decoded.segmentation is not None
    assert (decoded.segmentation == NO_LABEL).all()


def test_bpg_and_map_share_the_budget_as_stated() -> None:
    codec = both()
    for share in (0.2, 0.5):
        codec = load_codec("bpg+map", map_share=share)
        for stream in streams(codec, Rate(bytes=1500)):
            parts = [sum(len(p.data) for p in stream.packets if p.priority == k) for k in (0, 1)]
            assert 16 + sum(parts) == stream.size <= 1500
            assert 0 < parts[0] <= share * 1484
            assert parts[1] > (0.75 - share) * 1484  # a quantiser step is up to 20 % of the bytes


def test_bpg_and_map_lose_one_without_the_other() -> None:
    codec = both()
    stream = streams(codec, Rate(bytes=1500))[0]
    pieces = [p.data for p in stream.packets]
    first = next(n for n, p in enumerate(stream.packets) if p.priority == 1)
    whole = Received.whole(stream)
    no_map = Received(stream.session, (None, *pieces[1:]))
    no_picture = Received(stream.session, (*pieces[:-1], None))
    nothing = Received(stream.session, (None, *pieces[1:first], None, *pieces[first + 1 :]))
    decoded = codec.decode([whole, no_map, no_picture, nothing])
    assert decoded.outage.tolist() == [False, False, False, True]
    assert torch.equal(decoded.images[0], decoded.images[1])
    assert decoded.segmentation is not None
    assert torch.equal(decoded.segmentation[0], decoded.segmentation[2])
    assert (decoded.segmentation[1] == NO_LABEL).all()
    error = (decoded.images[0] - IMAGES[0]).square().mean()
    assert error < (decoded.images[2] - IMAGES[0]).square().mean() < 0.1


def test_the_map_gives_way_where_bpg_would_not_fit() -> None:
    codec = load_codec("bpg+map", map_share=0.9) if both() else None
    assert codec is not None
    (answer, _) = codec.encode(IMAGES, Rate(bytes=20), MAPS)
    assert isinstance(answer, Unreachable)
    (stream,) = codec.encode(IMAGES[:1], Rate(bytes=answer.lowest_bytes + 5), MAPS[:1])
    assert isinstance(stream, Stream)


def test_files_are_their_streams_and_damage_is_refused() -> None:
    for codec in (MAP_ONLY, both()):
        for stream in streams(codec, Rate(bytes=1500)):
            data = stream.to_bytes()
            assert codec.parse(data) == stream
            flipped = bytearray(data)
            flipped[len(data) // 2] ^= 1
            for bad in (b"", b"SQM", data[:-1], data + b"x", bytes(flipped), b"X" + data[1:]):
                with pytest.raises(DataError):
                    codec.parse(bad)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="a factor: a whole number from 1 to 128"):
        MAP_ONLY.encode(IMAGES, Rate(quality=0.5), MAPS)
    with pytest.raises(ConfigError, match="map_share"):
        load_codec("bpg+map", map_share=1.5)
    with pytest.raises(ConfigError, match="no quality of its own"):
        both().encode(IMAGES, Rate(quality=3), MAPS)
    with pytest.raises(DataError, match="a map must be"):
        MAP_ONLY.encode(IMAGES, Rate(bytes=100), MAPS[:, 1:])


def test_without_a_map_the_segmenter_makes_one() -> None:
    class Road:
        name = "road"

        def segment(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), *images.shape[2:]), 3)

    codec = load_codec("map_only", segmenter=Road())
    (stream, _) = codec.encode(IMAGES, Rate(bytes=100))
    assert isinstance(stream, Stream)
    decoded = codec.decode([Received.whole(stream)])
    assert decoded.segmentation is not None
    assert (decoded.segmentation == 3).all()


def test_the_most_frequent_class_stands_for_a_cell() -> None:
    given_map = torch.tensor([[[1, 1, 2], [1, 2, 2], [0, 0, 5]]])
    assert shrink(given_map, 2).tolist() == [[[1, 2], [0, 5]]]
    assert torch.equal(shrink(given_map, 1), given_map)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_maps_of_any_size_come_back(height: int, width: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 11, (height, width), dtype=np.uint8)
    assert np.array_equal(decode_ids(encode_ids(ids))[..., 1], ids)


@given(st.binary(max_size=80))
@settings(max_examples=40, deadline=None)
def test_wrong_bytes_never_raise(data: bytes) -> None:
    session = streams_of_400[0].session
    decoded = MAP_ONLY.decode([Received(session, (data,))])
    assert decoded.images.shape == (1, 3, 96, 128)


streams_of_400 = streams(MAP_ONLY, Rate(bytes=400))
