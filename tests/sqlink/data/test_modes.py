"""Pictures of every mode, through the commands: what comes out is what a person saw going in."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from sqlink.cli.app import app
from sqlink.data.pictures import load_picture

HEIGHT, WIDTH = 33, 50
DOWN, ACROSS = np.mgrid[0:HEIGHT, 0:WIDTH]
RAMP = (DOWN / (HEIGHT - 1)).astype(np.float32)
COLOURS = np.stack((RAMP, ACROSS / (WIDTH - 1), 1 - RAMP), 2).astype(np.float32)
ALPHA = np.where(ACROSS < WIDTH // 2, 0.25, 1.0).astype(np.float32)

Pixels = NDArray[np.float32]


def eight(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return (values * 255).round().astype(np.uint8)


def deep_png(path: Path) -> None:
    """RGB of 16 bits a sample, which Pillow reads and cannot write."""
    rows = (COLOURS * 65535).round().astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = (
        (b"IHDR", struct.pack(">2I5B", WIDTH, HEIGHT, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def made(folder: Path) -> dict[str, Pixels]:
    """A file of every mode, and what a person sees in it, float32 [H, W, 3]."""
    grey, seen = RAMP[..., None].repeat(3, 2), dict[str, Pixels]()
    over_white = ALPHA[..., None]

    def add(name: str, picture: Image.Image, shown: Pixels, **options: object) -> None:
        picture.save(folder / name, **options)  # type: ignore[arg-type]
        seen[name] = shown

    rgb = Image.fromarray(eight(COLOURS))
    with_alpha = np.dstack((eight(COLOURS), eight(ALPHA)))
    grey_alpha = np.dstack((eight(RAMP), eight(ALPHA)))
    deep = (RAMP * 65535).round().astype(np.uint16)
    halves = (ACROSS < 20).astype(np.float32)
    add("grey.png", Image.fromarray(eight(RAMP)), grey)
    add("grey-alpha.png", Image.fromarray(grey_alpha), 1 - over_white * (1 - grey))
    add("rgba.png", Image.fromarray(with_alpha), 1 - over_white * (1 - COLOURS))
    add("deep.png", Image.fromarray(deep), grey)
    add("deep.tif", Image.fromarray(deep), grey)
    add("float.tif", Image.fromarray(RAMP), grey)
    add("bits.png", Image.fromarray(eight(halves)).convert("1"), halves[..., None].repeat(3, 2))
    palette = Image.fromarray((ACROSS // 25).astype(np.uint8))
    palette.putpalette([255, 0, 0, 0, 128, 255])
    colours = np.array([[1, 0, 0], [0, 128 / 255, 1]], np.float32)
    add("palette.png", palette, colours[ACROSS // 25])
    clear = palette.copy()
    white = np.array([[1, 1, 1], [0, 128 / 255, 1]], np.float32)
    add("clear.png", clear, white[ACROSS // 25], transparency=0)
    add("cmyk.jpg", rgb.convert("CMYK"), COLOURS, quality=100, subsampling=0)
    add("cmyk.tif", rgb.convert("CMYK"), COLOURS)
    exif = Image.Exif()
    exif[0x0112] = 6
    add("turned.jpg", rgb, np.rot90(COLOURS, -1), exif=exif, quality=100, subsampling=0)
    deep_png(folder / "deep-rgb.png")
    seen["deep-rgb.png"] = COLOURS
    return seen


def test_every_mode_goes_through_as_it_is_seen(tmp_path: Path) -> None:
    """JPEG2000 with bits to spare, so that what differs was read wrongly and not coded coarsely."""
    given, coded, out = (tmp_path / part for part in ("given", "coded", "out"))
    given.mkdir()
    for number, (name, shown) in enumerate(made(given).items()):
        path = (given / name).rename(given / f"{number}{Path(name).suffix}")
        command = ["encode", str(path), "-o", str(coded), "--codec", "jpeg2000", "--bpp", "20"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (name, result.output)
        result = CliRunner().invoke(app, ["decode", str(coded / f"{number}.j2k"), "-o", str(out)])
        assert result.exit_code == 0, (name, result.output)
        decoded = load_picture(out / f"{number}.png").permute(1, 2, 0).numpy()
        assert decoded.shape == shown.shape, name
        assert float(np.abs(decoded - shown).mean()) < 0.012, name
        assert float(np.abs(decoded - shown).max()) < 0.1, name


def test_a_map_goes_with_the_picture_as_its_camera_turned_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(eight(COLOURS)).save(tmp_path / "a.jpg", exif=exif)
    ids = np.full((WIDTH, HEIGHT), 3, np.uint8)
    Image.fromarray(ids).save(tmp_path / "upright.png")
    Image.fromarray(ids.T.copy()).save(tmp_path / "lying.png")
    ids[2, 2:5] = (12, 40, 11)
    Image.fromarray(ids).save(tmp_path / "unknown.png")
    command = ["encode", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out"), "--codec"]
    command += ["jpeg2000", "--bpp", "4", "--segmentation"]

    def error(name: str) -> str:
        result = CliRunner().invoke(app, [*command, str(tmp_path / name)])
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "lying.png is 50x33, its picture 33x50" in error("lying.png")
    assert "holds the values 11, 12, 40, but class ids of camvid are 0..10" in error("unknown.png")
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [*command, str(tmp_path / "upright.png")]).exit_code == 0


@pytest.mark.parametrize("size", [(16, 16), (17, 200), (200, 17)])
def test_sizes_that_no_block_divides_come_back(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (90, 20, 200)).save(tmp_path / "a.png")
    command = ["encode", str(tmp_path / "a.png"), "-o", str(tmp_path / "c"), "--codec"]
    assert CliRunner().invoke(app, [*command, "jpeg2000", "--bpp", "8"]).exit_code == 0
    command = ["decode", str(tmp_path / "c/a.j2k"), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    decoded = load_picture(tmp_path / "out/a.png")
    assert decoded.shape == (3, size[1], size[0])
    assert decoded[0].mean() == pytest.approx(90 / 255, abs=0.02)
