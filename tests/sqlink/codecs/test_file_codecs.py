"""JPEG, WebP, AVIF, HEIC, JPEG XL and VVC: budgets, losses, any size, and bytes of every kind."""

from __future__ import annotations

import importlib.util
import io
import math
import random
import subprocess
import sys
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sqlink.codecs import codec_for_suffix, load_codec
from sqlink.codecs.base import (
    OUTAGE_COLOUR,
    Codec,
    Described,
    Rate,
    Received,
    Stream,
    Unreachable,
)
from sqlink.codecs.file_codec import FileCodec
from sqlink.codecs.jpegxl import codestream_size
from sqlink.data.streets import Streets
from sqlink.errors import ConfigError, DataError, MissingExtraError

PACKAGES = {"heic": "pillow_heif", "jpegxl": "imagecodecs", "vvc": "imageio_ffmpeg"}
QUICK: dict[str, dict[str, object]] = {
    "jpeg": {},
    "webp": {},
    "avif": {"speed": 8},
    "heic": {},
    "jpegxl": {"effort": 4},
    "vvc": {"preset": "faster"},
    "bpg": {},
}
BUDGETS = (900, 1500, 4000)


@pytest.fixture(params=sorted(QUICK))
def codec(request: pytest.FixtureRequest) -> FileCodec:
    return quick(request.param)


@cache
def quick(name: str) -> FileCodec:
    """A codec with its fastest encoder; skips where its library is missing."""
    pytest.importorskip(PACKAGES.get(name, "av" if name == "bpg" else "PIL"))
    if name == "vvc":
        pytest.importorskip("av")
    codec = load_codec(name, **QUICK[name])
    assert isinstance(codec, FileCodec)
    return codec


@cache
def street() -> Tensor:
    """float32 [1, 3, 96, 128]."""
    return Streets(seed=5, count=1, height=96, width=128)[0].image[None]


@cache
def answer(name: str, budget: int) -> Stream | Unreachable:
    (found,) = quick(name).encode(street(), Rate(bytes=budget))
    return found


def stream(codec: FileCodec) -> Stream:
    found = answer(codec.name, 4000)
    assert isinstance(found, Stream)
    return found


def psnr(decoded: Tensor, original: Tensor) -> float:
    return -10 * math.log10(float(((decoded - original) ** 2).mean()) + 1e-12)


def test_it_is_a_codec_by_name_and_suffix(codec: FileCodec) -> None:
    assert isinstance(codec, Codec)
    assert codec_for_suffix(codec.suffix) == codec.name


def test_it_says_its_versions_and_parameters(codec: FileCodec) -> None:
    assert isinstance(codec, Described)
    said = codec.describe()
    assert len(said["parameters"]) > 10
    assert any(any(c.isdigit() for c in v) for k, v in said.items() if k != "parameters")


def test_an_answer_fits_and_the_next_finer_setting_does_not(codec: FileCodec) -> None:
    picture = (street()[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    for budget in BUDGETS:
        found = answer(codec.name, budget)
        if isinstance(found, Unreachable):
            assert found.lowest_bytes > budget
            continue
        assert 0 < found.size <= budget
        assert sum(found.ledger.values()) == 8 * found.size
        ladder = codec._ladders.of(picture, codec.code)
        chosen = max(n for n, f in ladder._files.items() if f == found.to_bytes())
        assert chosen == codec.settings - 1 or ladder.size(chosen + 1) > budget


def test_more_bytes_give_a_better_picture(codec: FileCodec) -> None:
    found = [answer(codec.name, budget) for budget in (1500, 4000, 12000)]
    reached = [one for one in found if isinstance(one, Stream)]
    decoded = codec.decode([Received.whole(one) for one in reached])
    assert not decoded.outage.any()
    assert decoded.segmentation is None
    quality = [psnr(image, street()[0]) for image in decoded.images]
    assert len(quality) > 1
    assert all(fine > coarse + 0.5 for coarse, fine in pairwise(quality))
    assert quality[-1] > 26


def test_a_budget_below_the_floor_is_unreachable_and_names_the_floor(codec: FileCodec) -> None:
    found = answer(codec.name, 20)
    assert isinstance(found, Unreachable)
    (lowest,) = codec.encode(street(), Rate(bytes=found.lowest_bytes))
    assert isinstance(lowest, Stream)
    assert lowest.size <= found.lowest_bytes


def test_a_stored_file_is_parsed_back(codec: FileCodec) -> None:
    found = stream(codec)
    assert codec.parse(found.to_bytes()) == found


def test_a_stored_file_cut_short_or_foreign_is_refused_in_one_line(codec: FileCodec) -> None:
    data = stream(codec).to_bytes()
    for bad in (b"", data[:1], data[:40], data[: len(data) // 3], b"text" * 30, data[::-1]):
        with pytest.raises(DataError) as error:
            codec.parse(bad)
        assert "\n" not in str(error.value)


def test_a_size_over_the_limit_is_refused(
    codec: FileCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLINK_MAX_PIXELS", "6000")
    with pytest.raises(DataError, match="128x96, 12288 pixels, over the limit of 6000"):
        codec.parse(stream(codec).to_bytes())


def test_a_missing_packet_is_an_outage_unless_what_came_decodes(codec: FileCodec) -> None:
    whole = Received.whole(stream(codec))
    for lost in (0, len(whole.packets) // 2, len(whole.packets) - 1):
        packets = (*whole.packets[:lost], None, *whole.packets[lost + 1 :])
        decoded = codec.decode([whole, Received(whole.session, packets)])
        assert decoded.outage.tolist() == [False, lost == 0 or not codec.cut_decodes]
        if decoded.outage[1]:
            assert decoded.images[1, :, 0, 0].tolist() == pytest.approx(OUTAGE_COLOUR)
    assert codec.decode([Received(whole.session, ())]).outage.tolist() == [True]


def test_a_picture_of_another_size_than_the_sessions_is_an_outage(codec: FileCodec) -> None:
    other = Received(
        stream(codec).session,
        Received.whole(small_stream(codec.name)).packets,
    )
    assert codec.decode([other]).outage.tolist() == [True]


@cache
def small_stream(name: str) -> Stream:
    image = torch.nn.functional.interpolate(street(), (17, 33), mode="bilinear")
    (found,) = quick(name).encode(image, Rate(bytes=3000))
    assert isinstance(found, Stream)
    return found


@pytest.mark.parametrize(("height", "width"), [(17, 33), (16, 16), (40, 21)])
def test_small_and_odd_pictures_come_back(codec: FileCodec, height: int, width: int) -> None:
    image = torch.nn.functional.interpolate(street(), (height, width), mode="bilinear")
    (found,) = codec.encode(image, Rate(bytes=3000))
    assert isinstance(found, Stream)
    decoded = codec.decode([Received.whole(found)])
    assert decoded.images.shape == image.shape
    assert psnr(decoded.images, image) > 24
    assert codec.parse(found.to_bytes()) == found


def refusal(codec: Codec, data: bytes) -> str:
    """Why a file is refused; empty if it is parsed."""
    try:
        codec.parse(data)
    except DataError as error:
        return str(error)
    return ""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flipped, overwritten, inserted, removed, cut, doubled: one to eight changes."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(max(len(damaged), 1))
        kind = rng.randrange(6)
        if kind == 0 and damaged:
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and damaged:
            damaged[at] = rng.choice((0, 255, rng.randrange(256)))
        elif kind == 2:
            damaged[at:at] = rng.randbytes(rng.randint(1, 9))
        elif kind == 3:
            del damaged[at : at + rng.randint(1, 9)]
        elif kind == 4 and rng.random() < 0.3:
            damaged = damaged[:at]
        elif kind == 5:
            damaged[at : at + 16] = damaged[: rng.randint(1, 16)]
    return bytes(damaged)


def test_hostile_bytes_are_a_picture_or_an_outage(codec: FileCodec) -> None:
    """Headers are hit as often as the rest, though they are few bytes."""
    data, session = stream(codec).to_bytes(), stream(codec).session
    rng = random.Random(codec.name)
    for turn in range(50):
        split = len(data) if turn % 2 else 150
        damaged = mutated(data[:split], rng) + data[split:]
        decoded = codec.decode([Received(session, (damaged,))])
        assert decoded.images.shape == (1, 3, 96, 128)
        assert decoded.images.isfinite().all()
        assert "\n" not in refusal(codec, damaged)


def test_wrong_options_qualities_and_sizes_are_refused(codec: FileCodec) -> None:
    with pytest.raises(ConfigError, match="packet_bytes"):
        load_codec(codec.name, packet_bytes=0)
    for quality in (-1, 1000, 20.03 if codec.name != "jpegxl" else 0):
        with pytest.raises(ConfigError, match=f"{codec.name} quality="):
            codec.encode(street(), Rate(quality=quality))
    with pytest.raises(DataError, match="at least 16x16"):
        codec.encode(street()[:, :, :8], Rate(bytes=500))


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_without_its_package_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(PACKAGES[name]) is not None:
        load_codec(name)
    from sqlink.codecs import vvc

    vvc.ffmpeg.cache_clear()
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MissingExtraError, match=rf"pip install sqlink\[{name}\]"):
        load_codec(name)


def test_avif_without_libavif_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    with pytest.raises(MissingExtraError, match="pip install 'pillow>=12'"):
        load_codec("avif")


@pytest.mark.parametrize("quality", [1, 7, 25, 50, 75, 100])
def test_jpeg_of_a_whole_quality_is_libjpegs_own_file(quality: int) -> None:
    (found,) = quick("jpeg").encode(street(), Rate(quality=quality))
    assert isinstance(found, Stream)
    pixels = (street()[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True
    )
    assert found.to_bytes() == file.getvalue()


def test_jpeg_cut_further_back_shows_a_better_picture() -> None:
    found = stream(quick("jpeg"))
    quality = []
    for came in (14, 24, 34, len(found.packets)):
        packets = tuple(p.data if n < came else None for n, p in enumerate(found.packets))
        decoded = quick("jpeg").decode([Received(found.session, packets)])
        assert not decoded.outage.any()
        quality.append(psnr(decoded.images, street()))
    assert quality == sorted(quality)
    assert quality[0] > 12
    assert [p.priority for p in found.packets] == list(range(len(found.packets)))


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_pixels_are_those_of_pillow_reading_the_file(name: str) -> None:
    found = stream(quick(name))
    decoded = quick(name).decode([Received.whole(found)]).images[0]
    expected = np.asarray(Image.open(io.BytesIO(found.to_bytes())).convert("RGB"))
    np.testing.assert_array_equal((decoded.permute(1, 2, 0) * 255).round().numpy(), expected)


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (17, 33), (360, 480), (128, 128), (200, 3000), (64, 128)]
)
def test_the_size_in_a_jpeg_xl_codestream_is_the_pictures(height: int, width: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    picture = np.zeros((height, width, 3), np.uint8)
    file = imagecodecs.jpegxl_encode(picture, distance=20, effort=1, usecontainer=False)
    assert codestream_size(bytes(file)) == (height, width)


def test_vvc_codes_better_than_jpeg_does() -> None:
    quality = {}
    for name in ("vvc", "jpeg"):
        found = answer(name, 4000) if name == "jpeg" else (quick(name) and answer(name, 4000))
        assert isinstance(found, Stream)
        quality[name] = psnr(quick(name).decode([Received.whole(found)]).images, street())
    assert quality["vvc"] > quality["jpeg"] + 1


def test_the_workers_decoders_need_not_load_pytorch() -> None:
    modules = ", ".join(f"sqlink.codecs.{n}" for n in ("jpeg", "webp", "avif", "heic", "vvc"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
