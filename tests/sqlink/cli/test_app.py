"""The command line does what it says, and says in one line what it cannot do."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from sqlink.bitstream import Tables
from sqlink.cli.app import app
from sqlink.codecs.base import (
    CODECS,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    register,
)
from sqlink.codecs.sqgan.session import SESSION_BYTES
from sqlink.data.classes import PALETTE
from sqlink.data.pictures import load_map, load_picture, save_map, save_picture
from sqlink.data.streets import Streets
from sqlink.errors import DataError
from sqlink.model.config import STREETS
from sqlink.model.sqgan import SQGAN
from sqlink.weights import manifest

IMAGE = Streets(seed=2, count=1, height=64, width=80)[0].image
J2K = ("--codec", "jpeg2000")
BUDGET = ("--bytes", "600")


class Mapped:
    """A codec with a map: a header, the grey level, and the class of a picture's first pixel.

    Quality 0 is below what it reaches.
    """

    name = "mapped"
    suffix = ".mapped"
    carries_map = True

    def __init__(self, packet_bytes: int = 96) -> None:
        self.packet_bytes = packet_bytes

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        height, width = images.shape[2:]
        if rate.quality == 0:
            return [Unreachable(self.name, height, width, 3, 7)] * len(images)
        header = b"MAP" + height.to_bytes(2, "big") + width.to_bytes(2, "big")
        session = Session(self.name, height, width, header)
        answers: list[Stream | Unreachable] = []
        for n, image in enumerate(images):
            label = 1 if segmentation is None else int(segmentation[n, 0, 0])
            data = bytes([round(float(image.mean()) * 255)]), bytes([label])
            packets = Packet(data[0], 0, {"index": 8}), Packet(data[1], 1, {"index": 8})
            answers.append(Stream(session, packets))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        (one,) = received
        shape = (1, one.session.height, one.session.width)
        grey = 0 if one.packets[0] is None else one.packets[0][0]
        label = 255 if one.packets[1] is None else one.packets[1][0]
        images = torch.full((1, 3, *shape[1:]), grey / 255)
        return Decoded(images, torch.full(shape, label), torch.tensor([one.packets[0] is None]))

    def parse(self, data: bytes) -> Stream:
        if len(data) != 9 or data[:3] != b"MAP":
            raise DataError("the stream is cut short or damaged")
        height, width = (int.from_bytes(data[at : at + 2], "big") for at in (3, 5))
        packets = tuple(Packet(data[7 + n : 8 + n], n, {"index": 8}) for n in range(2))
        return Stream(Session(self.name, height, width, data[:7]), packets)


if "mapped" not in CODECS.names():
    register("mapped")(Mapped)


def sqlink(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; returns its output, or its one line of error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    if code == 0:
        return result.stdout
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("sqlink: error: ")
    return result.stderr


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A picture file that this package did not write."""
    path = tmp_path / "in" / "street.png"
    path.parent.mkdir()
    pixels = (IMAGE * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)
    return path


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_encode_and_decode_a_picture(street: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = sqlink("encode", street, "-o", out, *J2K, *BUDGET)
    size = (out / "street.j2k").stat().st_size
    assert size <= 600
    assert said == f"{out / 'street.j2k'} {size} bytes {8 * size / (64 * 80):.4f} bpp\n"
    sqlink("decode", out / "street.j2k", "-o", out)
    assert files(out) == ["street.j2k", "street.png"]
    decoded = load_picture(out / "street.png")
    assert decoded.shape == IMAGE.shape
    assert ((decoded - IMAGE) ** 2).mean() < 0.01
    sqlink("decode", out / "street.j2k", "-o", out)


def test_several_pictures_of_several_sizes(street: Path, tmp_path: Path) -> None:
    small = street.with_name("small.jpg")
    Image.open(street).resize((40, 33)).save(small)
    out = tmp_path / "out"
    assert len(sqlink("encode", street, small, "-o", out, *J2K, *BUDGET).splitlines()) == 2
    sqlink("decode", out / "street.j2k", out / "small.j2k", "-o", out)
    assert load_picture(out / "small.png").shape == (3, 33, 40)


def test_a_map_is_written_where_the_stream_carries_one(street: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.png"
    save_map(torch.full((64, 80), 4), labels)
    given = ("--codec", "mapped", "--segmentation", labels)
    sqlink("encode", street, "-o", tmp_path, *given)
    sqlink("decode", tmp_path / "street.mapped", "-o", tmp_path / "out")
    assert files(tmp_path / "out") == ["street.map.png", "street.png"]
    assert (load_map(tmp_path / "out" / "street.map.png") == 4).all()
    with Image.open(tmp_path / "out" / "street.map.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == PALETTE[4]
    sqlink("transmit", street, "-o", tmp_path / "sent", "--channel", "lossless", *given)
    assert (load_map(tmp_path / "sent" / "street.map.png") == 4).all()


def test_transmit_prints_a_ledger_that_adds_up(street: Path, tmp_path: Path) -> None:
    command = ("transmit", street, "-o", tmp_path / "out", "--channel", "iid", *J2K, *BUDGET)
    said = sqlink(*command, "--loss", 0, "--seed", 3).splitlines()
    size = int(said[0].split()[1])
    assert f"packets {-(-size // 96)} delivered 0 lost" in said[0]
    bits = {line.split()[0]: int(line.split()[1]) for line in said[1:-1]}
    assert bits.pop("total") == sum(bits.values()) == 8 * size
    assert bits["header"] > 0
    lost = sqlink(*command, "--loss", 1)
    assert "0 delivered" in lost
    assert "nothing could be decoded" in lost
    assert files(tmp_path / "out") == ["street.png", "street.side.png"]


def test_transmit_says_what_the_picture_is_worth(street: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("transmit", street, "-o", out, "--channel", "iid", *J2K, *BUDGET, "--seed", 1)
    plain = sqlink(*command, "--condition", "loss=0").splitlines()[-1]
    received, original = load_picture(out / "street.png"), load_picture(street)
    psnr_db = -10 * ((received - original) ** 2).mean().log10()
    assert f"PSNR {float(psnr_db):.2f} dB" in plain
    assert "consistency " in plain
    sheet = load_picture(out / "street.side.png")
    assert sheet.shape == (3, 2 * 64 + 8, 2 * 80 + 8)
    assert torch.equal(sheet[:, :64, :80], original)
    assert torch.equal(sheet[:, :64, 88:], received)
    labels = tmp_path / "labels.png"
    save_map(torch.full((64, 80), 4), labels)
    told = sqlink(*command, "--loss", 0, "--labels", labels).splitlines()[-1]
    assert "mIoU " in told
    (out / "street.side.png").unlink()
    assert "PSNR" not in sqlink(*command, "--loss", 0, "--no-measure")
    assert files(out) == ["street.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--condition", "loss"), "--condition loss: give NAME=VALUE, such as snr_db=5"),
        (("--condition", "loss=few"), "--condition loss=few: give NAME=VALUE"),
        (("--loss", 0, "--condition", "loss=0"), "--condition loss is given twice"),
        (("--condition", "snr_db=3", "--loss", 0), "does not take --snr-db"),
        (("--condition", "delay=3", "--loss", 0), "does not take --condition delay"),
        (("--loss", 0, "--labels", "a.png", "--labels", "b.png"), "2 labels for 1 picture"),
    ],
)
def test_wrong_conditions_and_labels_are_one_line(
    street: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    out = tmp_path / "out"
    line = sqlink("transmit", street, "-o", out, "--channel", "iid", *J2K, *options, code=2)
    assert message in line
    assert not out.exists()


def test_transmit_pays_for_the_codecs_packets(street: Path, tmp_path: Path) -> None:
    """A packet of 48 bytes with its CRC takes half the uses of one of 96, and a bit."""
    command = ("transmit", street, "-o", tmp_path / "out", "--channel", "awgn", *J2K, *BUDGET)
    small = sqlink(*command, "--snr-db", 20, "--packet-bytes", 48)
    packets = int(small.split("packets ")[1].split()[0])
    assert f", {packets * (8 * 48 + 24)} channel uses\n" in small
    asked = sqlink(*command[:-2], "--snr-db", 20, "--packet-bytes", 48, "--channel-uses", 3000)
    assert f", {7 * (8 * 48 + 24)} channel uses of 3000 asked" in asked
    given = tmp_path / "wide.yaml"
    given.write_text("coded: {over: awgn, packet_bytes: 128}")
    where = ("--channel", given, "--snr-db", 20)
    line = sqlink(*command[:-6], *where, *J2K, *BUDGET, code=2)
    assert "built for packets of 128 bytes, but would carry packets of 96" in line


def test_transmit_tells_offered_sent_and_delivered_apart(street: Path, tmp_path: Path) -> None:
    given = tmp_path / "limit.yaml"
    given.write_text("[{rate_limit: {bytes: 300}}, {iid_erasure: {loss: 0}}]")
    said = sqlink("transmit", street, "-o", tmp_path, "--channel", given, *J2K, *BUDGET)
    assert " bytes offered 288 sent 288 delivered" in said


def test_a_codecs_own_options_are_given_by_name(street: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("encode", street, "-o", out, *J2K, "--bytes", 1500)
    sqlink(*command)
    plain = (out / "street.j2k").read_bytes()
    sqlink(*command, "--codec-option", "layers=6")
    assert (out / "street.j2k").read_bytes() != plain
    sent = ("transmit", street, "-o", out, "--channel", "lossless", *J2K, "--bytes", 1500)
    sqlink(*sent, "--codec-option", "layers=6")
    there = (out / "street.png").read_bytes()
    sqlink("decode", out / "street.j2k", "-o", tmp_path / "back")
    assert (tmp_path / "back" / "street.png").read_bytes() == there
    given = ("--codec-option", "realism=0.5")
    line = sqlink("decode", out / "street.j2k", "-o", tmp_path / "none", *given, code=2)
    assert "codec 'jpeg2000' has no option 'realism'" in line


def test_names_that_no_file_system_takes_are_one_line(street: Path, tmp_path: Path) -> None:
    long = "n" * 300
    sqlink("encode", long, "-o", tmp_path / "out", *J2K, *BUDGET, code=2)
    sqlink("encode", street, "-o", tmp_path / long, *J2K, *BUDGET, code=2)
    sqlink("compare", long, "-o", tmp_path / "out", code=2)


def test_a_stem_of_245_letters_works_and_a_longer_one_is_refused(
    street: Path, tmp_path: Path
) -> None:
    for length, code in ((245, 0), (250, 2)):
        picture = street.rename(street.with_name("n" * length + ".png"))
        out = tmp_path / str(length)
        sent = ("transmit", picture, "-o", out, "--channel", "lossless", *J2K, *BUDGET)
        said = sqlink(*sent, code=code)
        assert out.exists() == (code == 0)
        street = picture
    assert "rename the picture" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["layers"], "--codec-option layers: give NAME=VALUE, such as packing=single"),
        (["layers=2", "layers=3"], "--codec-option layers is given twice"),
        (["packet_bytes=64"], "--codec-option packet_bytes=64: give it as --packet-bytes"),
        (["layers=[1"], "--codec-option layers [1: line 1: not valid YAML"),
        (["layers=x"], "jpeg2000: layers='x' must be an integer from 1 to 32"),
        (["layer=3"], "codec 'jpeg2000' has no option 'layer': did you mean 'layers'"),
        (["name=x"], "codec 'jpeg2000' has no option 'name'"),
        (["weights=x"], "codec 'jpeg2000' has no option 'weights'"),
    ],
)
def test_wrong_codec_options_are_one_line(
    street: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    given = [part for option in options for part in ("--codec-option", option)]
    line = sqlink("encode", street, "-o", tmp_path / "out", *J2K, *BUDGET, *given, code=2)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_seed_decides_what_is_lost(street: Path, tmp_path: Path) -> None:
    def run(seed: int) -> bytes:
        options = ("--channel", "iid", "--loss", 0.2, "--seed", seed, *J2K, "--bytes", 1500)
        sqlink("transmit", street, "-o", tmp_path / "out", *options)
        return (tmp_path / "out" / "street.png").read_bytes()

    assert run(1) == run(1)
    assert len({run(seed) for seed in range(6)}) > 1


def test_a_channel_may_come_from_a_file(street: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{iid_erasure: {loss: 1.0}}")
    channel = ("--channel", tmp_path / "c.yaml")
    said = sqlink("transmit", street, "-o", tmp_path, *channel, *J2K, *BUDGET)
    assert "0 delivered" in said


BAD_PICTURES = {
    "text.png": (b"no picture", "is not a picture"),
    "empty.jpg": (b"", "is not a picture"),
    "missing.png": (None, "does not exist"),
    "tiny.png": ((1, 1), "1x1: at least 16x16"),
    "huge.png": ((20000, 20000), "over the limit of 64000000"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
@pytest.mark.parametrize("command", ["encode", "transmit"])
def test_bad_pictures_stop_all_before_anything_is_written(
    street: Path, tmp_path: Path, name: str, command: str
) -> None:
    content, says = BAD_PICTURES[name]
    bad, out = tmp_path / name, tmp_path / "out"
    if isinstance(content, bytes):
        bad.write_bytes(content)
    elif content is not None:
        header = Image.new("1", (16, 16))
        header.save(bad)
        data = bytearray(bad.read_bytes())
        data[16:24] = content[0].to_bytes(4, "big") + content[1].to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        bad.write_bytes(data)
    channel = ("--channel", "lossless") if command == "transmit" else ()
    line = sqlink(command, street, bad, "-o", out, *J2K, *channel, code=2)
    assert says in line
    assert name in line
    assert files(out) == []


def test_damaged_files_are_named_in_one_line(street: Path, tmp_path: Path) -> None:
    sqlink("encode", street, "-o", tmp_path, *J2K, *BUDGET)
    whole = (tmp_path / "street.j2k").read_bytes()
    flipped = bytearray(whole)
    flipped[5] ^= 1
    for name, data in {"cut": whole[:-40], "flipped": bytes(flipped), "empty": b""}.items():
        (tmp_path / f"{name}.j2k").write_bytes(data)
        line = sqlink("decode", tmp_path / f"{name}.j2k", "-o", tmp_path / "out", code=2)
        assert f"{name}.j2k: " in line
    assert "no codec" in sqlink("decode", street, "-o", tmp_path / "out", code=2)
    (tmp_path / "a.mapped").write_bytes(b"MAP")
    assert "cut short" in sqlink("decode", tmp_path / "a.mapped", "-o", tmp_path / "out", code=2)
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--codec", "jpg2000"), "did you mean 'jpeg2000'"),
        ((*J2K, "--bpp", "0.1", "--bytes", "9"), "--bpp and --bytes exclude each other"),
        ((*J2K, "--bpp", "-1"), "must be above 0"),
        ((*J2K, "--bpp", "inf"), "must be at most"),
        ((*J2K, "--quality", "inf"), "must be at most"),
        ((*J2K, "--bytes", "20"), "its lowest is"),
        (("--codec", "mapped", "--quality", "0"), "its lowest is 7 bytes"),
        ((*J2K, "--weights", "x"), "no option 'weights'"),
        (("--codec", "sqgan", "--device", "gpu"), "use cpu, cuda or cuda:N"),
        (("--codec", "sqgan", "--weights", "no/such.safetensors"), "no sqgan weights"),
        ((*J2K, "--segmentation", "missing.png"), "missing.png does not exist"),
        ((*J2K, "--max-pixels", "100"), "over the limit of 100"),
    ],
)
def test_wrong_options_are_one_line(
    street: Path, tmp_path: Path, arguments: Sequence[str], says: str
) -> None:
    assert says in sqlink("encode", street, "-o", tmp_path / "out", *arguments, code=2)
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--channel", "awng"), "did you mean 'awgn'"),
        (("--channel", "missing.yaml"), "missing.yaml"),
        (("--channel", "awgn"), "needs snr_db: give --snr-db"),
        (("--channel", "iid", "--loss", "0.1", "--snr-db", "3"), "does not take --snr-db"),
        (("--channel", "iid", "--loss", "1.5"), "loss"),
        (("--channel", "iid", "--loss", "0", "--channel-uses", "5"), "counts no symbols"),
    ],
)
def test_channels_that_do_not_fit_are_one_line(
    street: Path, tmp_path: Path, arguments: Sequence[str], says: str
) -> None:
    rate = () if "--channel-uses" in arguments else BUDGET
    line = sqlink("transmit", street, "-o", tmp_path / "out", *J2K, *rate, *arguments, code=2)
    assert says in line
    assert files(tmp_path / "out") == []


def test_maps_that_do_not_fit_are_one_line(street: Path, tmp_path: Path) -> None:
    command = ("encode", street, "-o", tmp_path / "out", "--codec", "mapped", "--segmentation")
    save_map(torch.zeros(16, 16, dtype=torch.int64), tmp_path / "small.png")
    assert "16x16, its picture 80x64" in sqlink(*command, tmp_path / "small.png", code=2)
    assert "is not a map" in sqlink(*command, street, code=2)
    two = (*command, tmp_path / "small.png", "--segmentation", tmp_path / "small.png")
    assert "2 maps for 1 picture" in sqlink(*two, code=2)


def test_a_codec_without_a_map_says_that_it_uses_none(street: Path, tmp_path: Path) -> None:
    save_map(torch.zeros(64, 80, dtype=torch.int64), tmp_path / "map.png")
    command = ["encode", street, "-o", tmp_path, *J2K, *BUDGET]
    command += ["--segmentation", tmp_path / "map.png"]
    result = CliRunner().invoke(app, [str(argument) for argument in command])
    assert result.exit_code == 0
    assert "jpeg2000 carries no map" in result.stderr


def test_names_that_clash_are_refused(street: Path, tmp_path: Path) -> None:
    other = tmp_path / "street.jpg"
    Image.open(street).save(other)
    line = sqlink("encode", street, other, "-o", tmp_path / "out", *J2K, code=2)
    assert "would both be written to" in line
    assert files(tmp_path / "out") == []


def test_a_users_picture_is_never_overwritten(street: Path, tmp_path: Path) -> None:
    before = street.read_bytes()
    sqlink("encode", street, "-o", street.parent, *J2K, *BUDGET)
    line = sqlink("decode", street.with_suffix(".j2k"), "-o", street.parent, code=2)
    assert "not written by this program" in line
    channel = ("--channel", "lossless")
    line = sqlink("transmit", street, "-o", street.parent, *J2K, *channel, code=2)
    assert "would be overwritten" in line
    assert street.read_bytes() == before


def test_a_map_that_is_given_is_never_overwritten(street: Path, tmp_path: Path) -> None:
    given = tmp_path / "out" / "street.map.png"
    save_map(torch.zeros(load_picture(street).shape[1:], dtype=torch.int64), given)
    before = given.read_bytes()
    options = ("--channel", "lossless", "--segmentation", given)
    line = sqlink("transmit", street, "-o", given.parent, *J2K, *options, code=2)
    assert "street.map.png is an input and would be overwritten" in line
    assert files(given.parent) == ["street.map.png"]
    assert given.read_bytes() == before


def test_a_picture_and_the_map_of_another_clash(street: Path, tmp_path: Path) -> None:
    sqlink("encode", street, "-o", tmp_path / "in", *J2K, *BUDGET)
    first = tmp_path / "in" / "street.j2k"
    second = first.with_name("street.map.j2k")
    second.write_bytes(first.read_bytes())
    line = sqlink("decode", first, second, "-o", tmp_path / "out", code=2)
    assert "would both be written to" in line
    assert files(tmp_path / "out") == []


def test_a_folder_that_is_a_file_is_refused(street: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    line = sqlink("encode", street, "-o", tmp_path / "out", *J2K, code=2)
    assert "name a folder with -o" in line


def test_segment_writes_a_map(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sky:
        name = "sky"

        def segment(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), *images.shape[2:], dtype=torch.int64)

    monkeypatch.setattr("sqlink.segmentation.load_segmenter", lambda name, **_: Sky())
    said = sqlink("segment", street, "-o", tmp_path / "out")
    assert "sky 100.0%" in said
    assert (load_map(tmp_path / "out" / "street.map.png") == 0).all()
    monkeypatch.undo()
    line = sqlink("segment", street, "-o", tmp_path, "--segmenter", "jugde", code=2)
    assert "did you mean 'judge'" in line


def test_a_sweep_with_a_wrong_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("codec: [jpeg2000]\n")
    line = sqlink("sweep", tmp_path / "s.yaml", "-o", tmp_path / "out", code=2)
    assert "codecs" in line
    assert files(tmp_path / "out") == []
    (tmp_path / "t.yaml").write_text("no_such_key: 1\n")
    assert "t.yaml" in sqlink("train", tmp_path / "t.yaml", code=2)


SMALL = """
data: {name: streets, options: {seed: 3, count: 2, height: 32, width: 48}}
codecs: [jpeg2000]
rates: {bytes: 300}
channels: {near: iid, far: {rate_limit: {bytes: 192}}}
conditions: {loss: 0}
metrics: [psnr]
examples: 0
"""


def test_results_are_listed_exported_and_pruned(tmp_path: Path) -> None:
    config, out = tmp_path / "s.yaml", tmp_path / "results" / "s"
    config.write_text(SMALL)
    planned = sqlink("sweep", config, "-o", out, "--dry-run")
    assert "2 points, 1 encoding a picture, 2 pictures: 4 rows" in planned
    assert not out.exists()
    assert "| near |" in sqlink("sweep", config, "-o", out, "--quiet")
    assert "finished  4 rows  2 pictures  jpeg2000  over near, far" in sqlink(
        "results", "ls", tmp_path / "results"
    )
    rows = tmp_path / "rows.csv"
    said = sqlink("results", "export", out, "-o", rows, "--column", "channel")
    assert said == f"{rows}: 4 rows\n"
    assert sorted(rows.read_text().split()) == ['"channel"', *['"far"'] * 2, *['"near"'] * 2]
    assert "0 rows and 0 bytes removed" in sqlink("results", "prune", out)
    assert "give I/N, such as 2/8" in sqlink("sweep", config, "--shard", "2", code=2)
    assert "no results here" in sqlink("results", "show", tmp_path, code=2)
    assert '"channels"' in sqlink("schema")


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.sweep.runner.run_sweep", interrupted)
    result = CliRunner().invoke(app, ["sweep", "any.yaml"])
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr
    assert "Traceback" not in result.output


def test_as_a_process_it_is_quick_to_help_and_short_in_error(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    light = "import sqlink.cli, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", light], env=environment).returncode == 0
    (tmp_path / "a.png").write_text("no picture")
    run = subprocess.run(
        [sys.executable, "-m", "sqlink.cli", "encode", "a.png", "-o", "out", *J2K],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("sqlink: error: a.png is not a picture that can be read")
    assert run.stderr.count("\n") == 1
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("channel awgn --packets 0", "channel: --packets 0 must be an integer, 1 or more"),
        (
            "channel awgn --packet-bytes 70000",
            "--packet-bytes 70000 must be an integer from 1 to 6",
        ),
        ("channel awgn --seed x", "channel: --seed x must be an integer"),
        ("encode a.png -o out --bpp much", "encode: --bpp much must be a number"),
        (
            "transmit a.png -o out --channel awgn --bpp 0.1 --snr-db 0:10:5",
            "transmit: --snr-db 0:10:5 must be a number: for a range use `sqlink sweep`",
        ),
        (
            "channel awgn --packts 3",
            "channel: no option --packts: did you mean '--packets'? known:",
        ),
        ("channel awgn -x", "channel: no option -x: known: --condition, --help, "),
        ("channel awgn --poisson=3", "channel: --poisson takes no value"),
        ("encode a.png -o", "encode: -o needs a value: Folder to write to"),
        (
            "channel",
            "CHANNEL.yaml|NAME is missing: give it, as in sqlink channel CHANNEL.yaml|NAME",
        ),
        ("transmit a.png -o out", "--channel is missing: give it, as in sqlink transmit --channel"),
        ("demo one two", "demo: got unexpected extra argument(s) (one two): usage: "),
        ("encod a.png", "no command 'encod': did you mean 'encode'? known: channel, "),
        ("--loud encode", "no option --loud: known: --help"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line(arguments: str, says: str) -> None:
    assert says in sqlink(*arguments.split(), code=2)


def test_every_command_says_in_one_line_what_it_does_not_know() -> None:
    for command in [info.name or info.callback.__name__ for info in app.registered_commands]:
        assert f"{command}: no option --nonsense" in sqlink(command, "--nonsense", code=2)
        assert "one line" in sqlink(command, "--one\nline", code=2)


def test_without_a_command_the_help_is_shown() -> None:
    result = CliRunner().invoke(app, [])
    assert "Usage: " in result.output
    assert "sqlink: error" not in result.output
    assert "transmit" in result.output


def test_a_foreign_package_called_channels_is_named(tmp_path: Path) -> None:
    foreign = tmp_path / "channels"
    foreign.mkdir()
    (foreign / "__init__.py").write_text('__version__ = "4.1"\n')
    run = subprocess.run(
        [sys.executable, "-m", "sqlink.cli", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "is not SQLink's" in run.stderr
    assert run.stderr.count("\n") == 1


def test_no_command_shows_the_help() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in ("encode", "decode", "transmit", "segment", "train", "sweep", "plot", "demo"):
        assert name in result.output


def test_saved_pictures_may_be_written_again(tmp_path: Path) -> None:
    save_picture(IMAGE, tmp_path / "street.png")
    sqlink("encode", tmp_path / "street.png", "-o", tmp_path / "out", *J2K, *BUDGET)
    sqlink("decode", tmp_path / "out" / "street.j2k", "-o", tmp_path)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SQ-GAN of few channels and no training: its pictures are noise, its bytes are real."""
    config = dataclasses.replace(
        STREETS,
        name="tiny",
        channels=(16, 16, 16),
        map_channels=(16, 16, 16),
        encoder_blocks=(1, 1, 1),
        decoder_blocks=(1, 1, 1),
        image_codes=64,
        map_codes=32,
        code_dim=8,
        demasker_blocks=1,
        samm_width=16,
        label_width=8,
        norm_groups=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SQGAN(config)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tensors = {**model.state_dict(), **Tables.uniform(32, 64).to_tensors()}
    manifest.save(path, tensors, {"kind": "sqgan", "model": config.to_json()})
    return path


def test_sqgan_from_picture_to_channel_and_back(
    street: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    save_map(torch.full((64, 80), 3), tmp_path / "labels.png")
    weights = ("--weights", tiny_weights)
    given = ("--segmentation", tmp_path / "labels.png", "--bytes", 60)
    said = sqlink("encode", street, "-o", tmp_path, *given, *weights)
    size = (tmp_path / "street.sqg").stat().st_size
    assert size <= 60
    assert f"street.sqg {size} bytes" in said
    sqlink("decode", tmp_path / "street.sqg", "-o", tmp_path / "out", *weights)
    assert files(tmp_path / "out") == ["street.map.png", "street.png"]
    assert load_picture(tmp_path / "out" / "street.png").shape == IMAGE.shape
    said = sqlink(
        "transmit", street, "-o", tmp_path / "sent", "--channel", "lossless", *given, *weights
    )
    named = [line.split() for line in said.splitlines()[1:]]
    bits = {words[0]: int(words[1]) for words in named if len(words) > 1 and words[1].isdigit()}
    assert bits.pop("total") == sum(bits.values()) == 8 * size
    assert bits["session"] == 8 * SESSION_BYTES
    for name in ("street.png", "street.map.png"):
        sent, stored = (tmp_path / folder / name for folder in ("sent", "out"))
        assert sent.read_bytes() == stored.read_bytes()


def test_damaged_sqgan_streams_and_weights_are_one_line(
    street: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    save_map(torch.full((64, 80), 3), tmp_path / "labels.png")
    given = ("--segmentation", tmp_path / "labels.png", "--bytes", 60)
    sqlink("encode", street, "-o", tmp_path, *given, "--weights", tiny_weights)
    whole = (tmp_path / "street.sqg").read_bytes()
    weights = ("--weights", tiny_weights)
    for at in range(len(whole)):
        if at % 7 == 0:
            flipped = bytearray(whole)
            flipped[at] ^= 1 << at % 8
            (tmp_path / "bad.sqg").write_bytes(flipped)
            line = sqlink("decode", tmp_path / "bad.sqg", "-o", tmp_path / "out", *weights, code=2)
            assert "bad.sqg: " in line
    (tmp_path / "bad.sqg").write_bytes(whole[:-1])
    line = sqlink("decode", tmp_path / "bad.sqg", "-o", tmp_path / "out", *weights, code=2)
    assert "cut short or damaged" in line
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny_weights.read_bytes()[:-9])
    line = sqlink("encode", street, "-o", tmp_path / "out", "--weights", cut, code=2)
    assert "cut.safetensors" in line
    assert files(tmp_path / "out") == []
