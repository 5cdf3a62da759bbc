"""JPEG2000 keeps within its budget, decodes what came, and bears anything."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from sqlink.codecs import codec_for_suffix, load_codec
from sqlink.codecs.base import OUTAGE_COLOUR, Codec, Rate, Received, Stream, Unreachable
from sqlink.codecs.jpeg2000.codestream import packet_ends, read_header
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError

STREETS = Streets(seed=5, count=2, height=96, width=128)
IMAGES = torch.stack([STREETS[n].image for n in range(2)])
CODEC = load_codec("jpeg2000")


def streams(rate: Rate, codec: Codec = CODEC) -> list[Stream]:
    answers = codec.encode(IMAGES, rate)
    assert all(isinstance(answer, Stream) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Stream)]


def psnr(decoded: Tensor, original: Tensor) -> float:
    return -10 * math.log10(float(((decoded - original) ** 2).mean()))


def test_it_is_a_codec_by_name_and_suffix() -> None:
    assert isinstance(CODEC, Codec)
    assert codec_for_suffix(CODEC.suffix) == "jpeg2000"
    with pytest.raises(ConfigError, match="did you mean 'jpeg2000'"):
        load_codec("jpg2000")
    with pytest.raises(ConfigError, match="did you mean 'packet_bytes'"):
        load_codec("jpeg2000", packet_byte=3)


@pytest.mark.parametrize("size", [300, 500, 1000, 4000])
def test_files_fill_the_budget_but_never_exceed_it(size: int) -> None:
    for stream in streams(Rate(bytes=size)):
        assert stream.size <= size
        assert stream.size > 0.93 * size - 20
        assert sum(stream.ledger.values()) == 8 * stream.size
        assert max(len(p.data) for p in stream.packets) == 96
        assert [p.priority for p in stream.packets] == list(range(len(stream.packets)))


def test_more_bytes_give_a_better_picture() -> None:
    measured = []
    for size in (300, 600, 1200, 4800):
        decoded = CODEC.decode([Received.whole(s) for s in streams(Rate(bytes=size))])
        assert not decoded.outage.any()
        assert decoded.segmentation is None
        measured.append([psnr(decoded.images[n], IMAGES[n]) for n in range(2)])
    assert all(
        b > a + 1 for low, high in pairwise(measured) for a, b in zip(low, high, strict=True)
    )
    assert min(measured[-1]) > 25


def test_what_it_cannot_reach_it_says() -> None:
    for answer in CODEC.encode(IMAGES, Rate(bytes=60)):
        assert isinstance(answer, Unreachable)
        assert 100 < answer.lowest_bytes < 200
        assert "its lowest is" in str(answer)


def test_quality_is_the_compression_ratio() -> None:
    for stream in streams(Rate(quality=50)):
        assert stream.size == pytest.approx(3 * 96 * 128 / 50, rel=0.1)
    with pytest.raises(ConfigError, match="at least 1"):
        CODEC.encode(IMAGES, Rate(quality=0.5))


def test_a_file_is_its_stream() -> None:
    for stream in streams(Rate(bytes=700)):
        assert CODEC.parse(stream.to_bytes()) == stream


def test_damaged_files_are_refused() -> None:
    whole = streams(Rate(bytes=700))[0].to_bytes()
    grown = whole[:4] + (1 << 20).to_bytes(4, "big") + whole[8:]
    for bad in (b"", b"text", whole[:-1], whole[:300], whole + b"x", whole[:2] + whole[4:]):
        with pytest.raises(DataError):
            CODEC.parse(bad)
    with pytest.raises(DataError):
        CODEC.parse(grown)


def test_a_lost_packet_ends_the_picture_there() -> None:
    stream = streams(Rate(bytes=1200))[0]
    header = read_header(stream.to_bytes())
    first = packet_ends(stream.to_bytes(), header)[0]
    whole = psnr(CODEC.decode([Received.whole(stream)]).images[0], IMAGES[0])
    measured = []
    for lost in range(len(stream.packets)):
        packets = [p.data if n != lost else None for n, p in enumerate(stream.packets)]
        decoded = CODEC.decode([Received(stream.session, tuple(packets))])
        assert bool(decoded.outage[0]) == (96 * lost < first)
        if decoded.outage[0]:
            assert decoded.images[0, :, 0, 0].tolist() == pytest.approx(OUTAGE_COLOUR)
        else:
            measured.append(psnr(decoded.images[0], IMAGES[0]))
    assert len(measured) > 5
    assert max(measured) <= whole
    assert measured[-1] > measured[0] + 1


def test_by_default_a_cut_stream_is_as_good_as_one_of_eight_layers() -> None:
    """And better by far than one of a single layer, at the same bytes."""
    kept: dict[int | str, float] = {}
    for layers in ("auto", 8, 1):
        measured = []
        for share in (0.5, 0.75):
            received = [
                Received(
                    s.session,
                    tuple(
                        p.data if n < share * len(s.packets) else None
                        for n, p in enumerate(s.packets)
                    ),
                )
                for s in streams(Rate(bytes=2400), load_codec("jpeg2000", layers=layers))
            ]
            measured.append(psnr(CODEC.decode(received).images, IMAGES))
        kept[layers] = sum(measured) / 2
    assert kept["auto"] > kept[8] - 0.3
    assert kept["auto"] > kept[1] + 0.3


def test_it_says_how_many_layers_it_uses_and_why() -> None:
    assert "quality layers: 4 (ordered for packets lost or cut)" in CODEC.describe()["parameters"]
    single = load_codec("jpeg2000", layers=1)
    assert "quality layers: 1 (for links without losses)" in single.describe()["parameters"]


@pytest.mark.parametrize("layers", [0, 33, "many", 1.5, True])
def test_layers_are_auto_or_a_number(layers: object) -> None:
    with pytest.raises(ConfigError, match="layers"):
        load_codec("jpeg2000", layers=layers)


def test_nothing_at_all_is_an_outage() -> None:
    session = streams(Rate(bytes=700))[0].session
    decoded = CODEC.decode([Received(session, ()), Received(session, (None, None))])
    assert decoded.outage.tolist() == [True, True]


def test_a_header_of_another_size_is_an_outage_and_no_bomb() -> None:
    stream = streams(Rate(bytes=700))[0]
    whole = stream.to_bytes()
    bomb = bytearray(whole)
    for at in (8, 12, 24, 28):
        bomb[at : at + 4] = (1 << 30).to_bytes(4, "big")
    assert read_header(bytes(bomb)).width == 1 << 30
    decoded = CODEC.decode([Received(stream.session, (bytes(bomb),))])
    assert decoded.outage.tolist() == [True]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_wrong_bytes_never_raise(draws: st.DataObject) -> None:
    stream = streams_of_700[draws.draw(st.integers(0, 1))]
    pieces: list[bytes | None] = []
    for packet in stream.packets:
        data = bytearray(packet.data)
        if draws.draw(st.booleans()):
            data[draws.draw(st.integers(0, len(data) - 1))] ^= draws.draw(st.integers(1, 255))
        pieces.append(None if draws.draw(st.integers(0, 9)) == 0 else bytes(data))
    decoded = CODEC.decode([Received(stream.session, tuple(pieces))])
    assert decoded.images.shape == (1, 3, 96, 128)
    assert torch.isfinite(decoded.images).all()


streams_of_700 = streams(Rate(bytes=700))


@pytest.mark.parametrize("shape", [(16, 16), (17, 33), (16, 500)])
def test_small_and_narrow_pictures(shape: tuple[int, int]) -> None:
    image = torch.nn.functional.interpolate(IMAGES[:1], shape, mode="bilinear")
    (stream,) = CODEC.encode(image, Rate(bytes=1500))
    assert isinstance(stream, Stream)
    decoded = CODEC.decode([Received.whole(stream)])
    assert decoded.images.shape == image.shape
    assert psnr(decoded.images, image) > 22
    assert CODEC.parse(stream.to_bytes()) == stream


def test_pictures_below_16_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="at least 16x16"):
        CODEC.encode(IMAGES[:, :, :1, :1], Rate(bytes=500))


def test_a_picture_that_openjpeg_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("broken data stream when writing image file")

    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(DataError, match="cannot code a picture of 128x96"):
        CODEC.encode(IMAGES, Rate(bytes=500))
