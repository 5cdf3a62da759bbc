"""Half-resolution variants reach below their codec's floor, and keep every size."""

from __future__ import annotations

import math

import pytest
import torch

from sqlink.codecs import codec_for_suffix, load_codec, takes_option
from sqlink.codecs.base import Codec, Described, Rate, Received, Stream, Unreachable
from sqlink.codecs.half_resolution import doubled, halved
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError

IMAGE = Streets(seed=5, count=1, height=96, width=128)[0].image[None]
NAMES = ("jpeg_half", "webp_half", "avif_half", "bpg_half", "heic_half", "jpegxl_half")


def half(name: str = "jpeg_half") -> Codec:
    pytest.importorskip(
        {"bpg_half": "av", "heic_half": "pillow_heif", "jpegxl_half": "imagecodecs"}.get(
            name, "PIL"
        )
    )
    return load_codec(name)


def sent(codec: Codec, image: torch.Tensor, size: int) -> Stream:
    (found,) = codec.encode(image, Rate(bytes=size))
    assert isinstance(found, Stream), found
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_lower_than_its_codec(name: str) -> None:
    codec = half(name)
    lowest = []
    for one in (codec, load_codec(name.removesuffix("_half"))):
        (answer,) = one.encode(IMAGE, Rate(bytes=10))
        assert isinstance(answer, Unreachable)
        lowest.append(answer.lowest_bytes)
    assert lowest[0] < lowest[1]
    assert sent(codec, IMAGE, lowest[0]).size <= lowest[0]
    assert codec_for_suffix(codec.suffix) == name
    assert isinstance(codec, Codec)
    assert isinstance(codec, Described)
    assert codec.describe()["parameters"].endswith("at half the sides: area down, bicubic up")


@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 47), (31, 32), (40, 31)])
def test_every_size_comes_back_and_is_parsed(height: int, width: int) -> None:
    image = IMAGE[:, :, :height, :width].contiguous()
    stream = sent(half(), image, 3000)
    assert sum(stream.ledger.values()) == 8 * stream.size
    assert stream.ledger["session"] == 8
    assert half().parse(stream.to_bytes()) == stream
    decoded = half().decode([Received.whole(stream)])
    assert decoded.images.shape == image.shape
    assert -10 * math.log10(float(((decoded.images - image) ** 2).mean())) > 18
    lost = Received(stream.session, (None, *[p.data for p in stream.packets[1:]]))
    assert half().decode([lost]).outage.tolist() == [True]


def test_an_answer_is_the_codecs_own_file_of_the_half_picture() -> None:
    stream = sent(half(), IMAGE, 3001)
    (own,) = load_codec("jpeg").encode(halved(IMAGE), Rate(bytes=3000))
    assert isinstance(own, Stream)
    assert stream.to_bytes() == b"\0" + own.to_bytes()


def test_halving_takes_means_and_doubling_gives_constants_back() -> None:
    image = torch.rand(1, 3, 6, 8)
    torch.testing.assert_close(
        halved(image)[0, 0, 1, 2], image[0, 0, 2:4, 4:6].mean(), rtol=0, atol=1e-6
    )
    flat = torch.full((1, 3, 5, 7), 0.25)
    torch.testing.assert_close(doubled(halved(flat), 5, 7), flat, rtol=0, atol=1e-6)


def test_options_are_the_codecs_own() -> None:
    assert takes_option("avif_half", "speed")
    assert not takes_option("bpg_half", "device")
    with pytest.raises(ConfigError, match="no option 'speed'"):
        load_codec("bpg_half", speed=3)


def test_what_is_too_small_or_damaged_is_refused() -> None:
    with pytest.raises(DataError, match="needs 31 pixels a side"):
        half().encode(IMAGE[:, :, :30], Rate(bytes=500))
    for bad in (b"", b"\x04abc", b"\0"):
        with pytest.raises(DataError):
            half().parse(bad)
