"""The codec `bpg`: genuine files, the budget, all or nothing, and bytes of every kind."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

pytest.importorskip("av", reason="PyAV is not installed: pip install sqlink[bpg]")

from sqlink.codecs import load_codec
from sqlink.codecs.base import OUTAGE_COLOUR, Codec, Rate, Received, Stream, Unreachable
from sqlink.codecs.bpg import decode_bpg, encode_bpg
from sqlink.codecs.bpg.codec import BPG
from sqlink.codecs.bpg.conformance import (
    QPS,
    bd_rate,
    own_curve,
    psnr,
    read_picture,
    reference_curves,
    vectors,
)
from sqlink.codecs.bpg.conformance import main as conformance
from sqlink.codecs.bpg.hevc import nal_units
from sqlink.codecs.fractional_qp import LADDER, STEPS
from sqlink.errors import ConfigError, DataError, MissingExtraError


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with edges and a little noise, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 32.0
    image = np.stack([np.sin(y + k) + np.cos(1.3 * x - k) for k in range(3)], -1) * 50 + 128
    image[height // 3 : height // 2, width // 4 : width // 2] += 60
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def tensor(*images: np.ndarray) -> Tensor:
    return torch.stack([torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i in images])


def refusal(codec: Codec, data: bytes) -> str:
    """Why a file is refused; empty if it is parsed, into the same bytes."""
    try:
        stream = codec.parse(data)
    except DataError as error:
        return str(error)
    assert stream.to_bytes() == data
    return ""


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("bpg")


@pytest.fixture(scope="module")
def stream(codec: Codec) -> Stream:
    (answer,) = codec.encode(tensor(scene(64, 96)), Rate(quality=32))
    assert isinstance(answer, Stream)
    return answer


@pytest.mark.shared
def test_every_reference_file_decodes_to_the_reference_pixels(shared: Path) -> None:
    outcome = {name: wrong for name, wrong, _ in vectors(shared)}
    assert len(outcome) == 13
    assert outcome == dict.fromkeys(outcome, 0)


@pytest.mark.shared
@pytest.mark.slow
def test_rate_is_that_of_the_reference_encoder(shared: Path) -> None:
    """BD-rate to libbpg-x265 at most +3 % on three frames of its table."""
    curves = list(reference_curves(shared).items())
    deltas = []
    for frame, reference in curves[:: len(curves) // 3 + 1]:
        own = own_curve(read_picture(shared / "data" / "camvid" / "val" / frame), QPS[1:])
        deltas.append(bd_rate(reference["x265"], own))
    assert len(deltas) == 3
    assert -10 < sum(deltas) / 3 <= 3.0


@pytest.mark.shared
def test_the_header_is_the_one_the_reference_encoder_writes(shared: Path) -> None:
    """Save for the length of the data, which libbpg leaves out."""
    reference = (shared / "vectors" / "bpg" / "01-x265-420-q35-480x360.bpg").read_bytes()
    own = encode_bpg(scene(360, 480), 45)
    assert own[:10] == reference[:10]
    assert own[12:15] == reference[11:14]


def test_the_conformance_command_says_in_one_line_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} holds no vectors/bpg/*.bpg\n"


@pytest.mark.parametrize("chroma", ["420", "422", "444", "grey"])
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (8, 8), (9, 30), (16, 16), (17, 33), (40, 100), (63, 65)]
)
def test_pictures_of_any_size_come_back(height: int, width: int, chroma: str) -> None:
    image = np.repeat(scene(height, width)[..., :1], 3, -1)
    decoded = decode_bpg(encode_bpg(image, 4, chroma))
    assert decoded.shape == image.shape
    assert psnr(decoded, image) > 44


def test_pixels_are_those_of_another_decoding_of_x265s_own_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our parameter sets in place of x265's must change nothing."""
    import av

    streams: list[bytes] = []

    def record(stream: bytes) -> list[bytes]:
        streams.append(stream)
        return nal_units(stream)

    monkeypatch.setattr("sqlink.codecs.bpg.encoder.nal_units", record)
    ours = decode_bpg(encode_bpg(scene(64, 72), 20, "grey"))[..., 0]
    context = av.CodecContext.create("hevc", "r")
    frames = [*context.decode(av.Packet(streams[0])), *context.decode(None)]
    np.testing.assert_array_equal(ours, frames[0].to_ndarray()[:64, :72])


def test_more_quantisation_is_fewer_bytes_and_less_quality() -> None:
    image = scene(96, 128)
    files = [encode_bpg(image, qp) for qp in (0, 15, 30, 45, 51)]
    sizes = [len(file) for file in files]
    quality = [psnr(decode_bpg(file), image) for file in files]
    assert sizes == sorted(sizes, reverse=True)
    assert quality == sorted(quality, reverse=True)


@pytest.mark.parametrize(("height", "width"), [(64, 72), (16, 16), (17, 33)])
def test_the_answer_fits_and_the_next_finer_setting_does_not(height: int, width: int) -> None:
    image = scene(height, width)
    codec = BPG()
    low, high = len(encode_bpg(image, LADDER[0])), len(encode_bpg(image, LADDER[-1]))
    for fraction in (0.0, 0.02, 0.3, 0.7, 2.0):
        budget = int(low + fraction * (high - low))
        (answer,) = codec.encode(tensor(image), Rate(bytes=budget))
        assert isinstance(answer, Stream)
        assert answer.size <= budget
        encoded = codec.ladder(image).encoded
        chosen = max(n for n in encoded if encode_bpg(image, LADDER[n]) == answer.to_bytes())
        assert chosen == len(LADDER) - 1 or len(encode_bpg(image, LADDER[chosen + 1])) > budget


@pytest.mark.shared
def test_steps_between_whole_qps_fill_a_budget_and_keep_the_quality(shared: Path) -> None:
    """Each step is below 8 % of the bytes, and near the line between the whole QPs."""
    image = read_picture(shared / "data" / "camvid" / "val" / "0016E5_07959.png")
    files = [encode_bpg(image, qp) for qp in LADDER[LADDER.index(41) : LADDER.index(40) + 1]]
    sizes = [len(file) for file in files]
    assert all(large < 1.08 * small for small, large in pairwise(sizes))
    quality = [psnr(decode_bpg(file), image) for file in files]
    line = np.interp(np.log(sizes), np.log(sizes[::STEPS]), quality[::STEPS])
    assert max(abs(line - quality)) < 0.06


@pytest.mark.shared
@pytest.mark.parametrize(
    ("frame", "budget"),
    [
        ("val/0016E5_07979.png", 864),
        ("val/0016E5_08119.png", 864),
        ("train/0006R0_f02310.jpg", 2208),
    ],
)
def test_pictures_whose_blocks_change_together_fill_their_budget(
    shared: Path, frame: str, budget: int
) -> None:
    """The first two have steps of 13 % between eighths, or sixteenths, of a QP, the third one of
    24 % between a thirty-second and the whole QP.
    """
    image = read_picture(shared / "data" / "camvid" / frame)
    (answer,) = load_codec("bpg").encode(tensor(image), Rate(bytes=budget))
    assert isinstance(answer, Stream)
    assert 0.92 * budget <= answer.size <= budget


def test_grey_of_a_file_is_the_luma_of_its_picture() -> None:
    image = scene(48, 64)
    decoded = decode_bpg(encode_bpg(image, 2, "grey"))
    luma = (image @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(decoded[..., 0] - luma).max() <= 4
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


def test_chroma_of_422_is_between_420_and_444() -> None:
    """Edges of colour alone: each format keeps what its samples can."""
    image = np.full((64, 64, 3), 90, np.uint8)
    image[::2, :, 0] = 200  # rows: 4:2:0 cannot, 4:2:2 can
    errors = {c: psnr(decode_bpg(encode_bpg(image, 1, c)), image) for c in ("420", "422", "444")}
    assert errors["420"] + 10 < errors["422"] <= errors["444"] + 3


def test_a_budget_below_the_floor_is_unreachable_and_names_the_floor(codec: Codec) -> None:
    image = scene(64, 96)
    floor = len(encode_bpg(image, 51))
    (answer,) = codec.encode(tensor(image), Rate(bytes=floor - 1))
    assert answer == Unreachable("bpg", 64, 96, floor - 1, floor)
    (answer,) = codec.encode(tensor(image), Rate(bytes=floor))
    assert isinstance(answer, Stream)
    assert answer.size == floor


def test_a_quality_is_a_qp(codec: Codec, stream: Stream) -> None:
    assert stream.to_bytes() == encode_bpg(scene(64, 96), 32)
    for quality in (-1, 52, 20.5):
        with pytest.raises(ConfigError, match="is a QP"):
            codec.encode(tensor(scene(64, 96)), Rate(quality=quality))


def test_packets_are_slices_of_the_file_and_the_ledger_adds_up() -> None:
    image = scene(64, 96)
    (answer,) = load_codec("bpg", packet_bytes=50).encode(tensor(image), Rate(quality=30))
    assert isinstance(answer, Stream)
    assert {len(p.data) for p in answer.packets[:-1]} == {50}
    assert 0 < len(answer.packets[-1].data) <= 50
    assert answer.to_bytes() == encode_bpg(image, 30)
    assert answer.ledger == {"session": 0, "payload": 8 * answer.size}
    assert (answer.session.codec, answer.session.height, answer.session.width) == ("bpg", 64, 96)


def test_a_batch_comes_back_in_order(codec: Codec) -> None:
    images = [scene(48, 64, seed) for seed in range(3)]
    answers = codec.encode(tensor(*images), Rate(quality=20))
    decoded = codec.decode([Received.whole(a) for a in answers if isinstance(a, Stream)])
    assert decoded.segmentation is None
    assert not decoded.outage.any()
    for image, got in zip(images, decoded.images, strict=True):
        expected = torch.from_numpy(decode_bpg(encode_bpg(image, 20))).permute(2, 0, 1) / 255
        assert torch.equal(got, expected)


def test_one_missing_packet_is_an_outage(codec: Codec, stream: Stream) -> None:
    whole = Received.whole(stream)
    for lost in range(len(whole.packets)):
        packets = (*whole.packets[:lost], None, *whole.packets[lost + 1 :])
        decoded = codec.decode([whole, Received(stream.session, packets)])
        assert decoded.outage.tolist() == [False, True]
        colour = torch.tensor(OUTAGE_COLOUR).view(3, 1, 1).expand(3, 64, 96)
        assert torch.equal(decoded.images[1], colour)


def test_a_file_of_another_size_than_the_sessions_is_an_outage(
    codec: Codec, stream: Stream
) -> None:
    (other,) = codec.encode(tensor(scene(64, 88)), Rate(quality=32))
    assert isinstance(other, Stream)
    received = Received(stream.session, Received.whole(other).packets)
    assert codec.decode([received]).outage.tolist() == [True]
    assert codec.decode([Received(stream.session, ())]).outage.tolist() == [True]


def test_a_stored_file_is_parsed_back(codec: Codec, stream: Stream) -> None:
    assert codec.parse(stream.to_bytes()) == stream


def test_a_stored_file_cut_short_is_refused_in_one_line(codec: Codec, stream: Stream) -> None:
    data = stream.to_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(DataError) as error:
            codec.parse(data[:length])
        assert "\n" not in str(error.value)


def test_a_file_with_no_picture_in_it_is_refused(codec: Codec) -> None:
    head = bytes.fromhex("425047fb 20 00 10 10 00 03 924740")
    for units in (b"\0", bytes(100), b"\x44\x01\xc1\x71\x83\x12", b"\xff" * 50):
        with pytest.raises(DataError, match="damaged"):
            codec.parse(head + units)


def test_a_header_larger_than_the_limit_is_refused_before_decoding(
    codec: Codec, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLINK_MAX_PIXELS", "6000")
    with pytest.raises(DataError, match="96x64, 6144 pixels, over the limit of 6000"):
        codec.parse(stream.to_bytes())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@example(data=None)
def test_hostile_bytes_are_a_picture_or_an_outage(
    codec: Codec, stream: Stream, data: st.DataObject | None
) -> None:
    """Flipped, cut, overwritten and foreign bytes: never an exception other than DataError."""
    damaged = bytearray(stream.to_bytes())
    if data is None:
        damaged = bytearray(b"BPG\xfb")
    else:
        for _ in range(data.draw(st.integers(1, 8))):
            at = data.draw(st.integers(0, len(damaged) - 1))
            damaged[at] = data.draw(st.integers(0, 255))
        damaged = damaged[: data.draw(st.integers(0, 2 * len(damaged)))]
    decoded = codec.decode([Received(stream.session, (bytes(damaged),))])
    assert decoded.images.shape == (1, 3, 64, 96)
    assert decoded.images.isfinite().all()
    assert "\n" not in refusal(codec, bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_noise_after_a_good_header_is_a_picture_or_an_outage(noise: bytes) -> None:
    codec = load_codec("bpg")
    head = bytes.fromhex("425047fb 20 00 40 40 00 03 924740 4401c1718312000001 2601af")
    assert "\n" not in refusal(codec, head + noise)


@pytest.mark.parametrize(("height", "width"), [(15, 64), (1, 1)])
def test_a_picture_too_small_is_refused(codec: Codec, height: int, width: int) -> None:
    with pytest.raises(DataError, match=f"{width}x{height}"):
        codec.encode(torch.zeros(1, 3, height, width), Rate(bpp=1))


@pytest.mark.parametrize("options", [{"packet_bytes": 0}, {"chroma": "421"}, {"qp": 3}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        load_codec("bpg", **options)


@pytest.mark.parametrize(("qp", "chroma"), [(52, "420"), (-1, "420"), (30, "421"), (30.3, "420")])
def test_wrong_arguments_of_the_encoder_are_refused(qp: int, chroma: str) -> None:
    with pytest.raises(ConfigError):
        encode_bpg(scene(16, 16), qp, chroma)


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install sqlink\[bpg\]"):
        load_codec("bpg")
    with pytest.raises(MissingExtraError, match=r"pip install sqlink\[bpg\]"):
        encode_bpg(scene(16, 16), 30)


def test_the_worker_need_not_load_pytorch() -> None:
    code = (
        "import sys, sqlink.codecs.bpg.decoder as d; d.load_av(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_decodes_alike_in_the_worker_and_here(codec: Codec, tmp_path: Path) -> None:
    """And the pixels survive a PNG, the form in which they are stored."""
    data = encode_bpg(scene(50, 70), 25)
    got = codec.decode([Received.whole(codec.parse(data))]).images[0]
    stored = (got.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(stored).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "picture.png"), decode_bpg(data))
