"""Pictures come in as a person sees them, or with one line; files appear whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sqlink.data.classes import NO_LABEL, PALETTE
from sqlink.data.pictures import (
    MAX_PIXELS_VARIABLE,
    check_picture,
    is_ours,
    load_map,
    load_picture,
    pixel_limit,
    save_map,
    save_picture,
)
from sqlink.errors import ConfigError, DataError

RAMP = np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)


def saved(folder: Path, name: str, picture: Image.Image, **options: object) -> Path:
    picture.save(folder / name, **options)  # type: ignore[arg-type]
    return folder / name


def test_rgb_is_what_the_file_holds(tmp_path: Path) -> None:
    image = load_picture(saved(tmp_path, "a.png", Image.fromarray(RAMP)))
    assert image.dtype == torch.float32
    assert image.shape == (3, 20, 30)
    assert np.array_equal((image * 255).round().permute(1, 2, 0).numpy(), RAMP)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "YCbCr"])
def test_every_mode_shows_as_pillow_would_show_it(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RAMP).convert(mode)
    name = "a.tif" if mode in ("CMYK", "YCbCr") else "a.png"
    image = load_picture(saved(tmp_path, name, picture))
    shown = np.asarray(picture.convert("RGB")) / 255
    assert image.permute(1, 2, 0).numpy() == pytest.approx(shown, abs=1 / 255)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    red = np.zeros((16, 16, 4), dtype=np.uint8)
    red[..., 0], red[:, 8:, 3] = 255, 255
    image = load_picture(saved(tmp_path, "a.png", Image.fromarray(red)))
    assert image[:, 0, 0].tolist() == [1, 1, 1]
    assert image[:, 0, 15].tolist() == [1, 0, 0]


def test_a_palette_with_a_transparent_colour_lies_over_white(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((16, 16), dtype=np.uint8))
    picture.putpalette([255, 0, 0])
    image = load_picture(saved(tmp_path, "a.png", picture, transparency=0))
    assert image.min() == 1


def test_sixteen_bits_are_scaled_to_one(tmp_path: Path) -> None:
    deep = np.full((16, 16), 65535, dtype=np.uint16)
    deep[0, 0] = 32768
    image = load_picture(saved(tmp_path, "a.png", Image.fromarray(deep)))
    assert image[0, 0, 0] == pytest.approx(32768 / 65535)
    assert image[2, 5, 5] == 1


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, "a.png", Image.fromarray(RAMP), exif=exif)
    image = load_picture(path)
    assert image.shape == (3, 30, 20)
    assert check_picture(path) == (30, 20)
    turned = np.rot90(RAMP, -1) / 255
    assert image.permute(1, 2, 0).numpy() == pytest.approx(turned, abs=1e-6)


def test_no_picture_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = saved(tmp_path, "whole.png", Image.fromarray(RAMP)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, says in {
        "text.png": "is not a picture",
        "empty.png": "is not a picture",
        "cut.png": "cut short",
        "missing.png": "does not exist",
        ".": "is a folder",
    }.items():
        with pytest.raises(DataError, match=says) as caught:
            load_picture(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_program_disguised_as_a_picture_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n")
    with pytest.raises(DataError, match="is not a picture"):
        load_picture(tmp_path / "a.png")


def test_too_small_and_too_large_pictures_name_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = saved(tmp_path, "tiny.png", Image.new("RGB", (1, 1)))
    with pytest.raises(DataError, match="1x1: at least 16x16"):
        load_picture(tiny)
    huge = saved(tmp_path, "huge.png", Image.new("1", (20000, 20000)))
    with pytest.raises(DataError, match=r"20000x20000.*64000000.*--max-pixels 400000000"):
        load_picture(huge)
    with pixel_limit(400_000_000):
        assert check_picture(huge) == (20000, 20000)
    small = saved(tmp_path, "small.png", Image.fromarray(RAMP))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "599")
    with pytest.raises(DataError, match="over the limit of 599"):
        load_picture(small)
    with pixel_limit(600):
        load_picture(small)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(ConfigError, match="must be a number of pixels"):
        load_picture(small)


def test_pictures_and_maps_come_back(tmp_path: Path) -> None:
    image = torch.from_numpy(RAMP).permute(2, 0, 1).float() / 255
    save_picture(image, tmp_path / "sub" / "a.png")
    assert torch.allclose(load_picture(tmp_path / "sub" / "a.png"), image)
    labels = (torch.arange(20 * 30) % 11).reshape(20, 30)
    labels[3, 4] = NO_LABEL
    save_map(labels, tmp_path / "a.map.png")
    assert torch.equal(load_map(tmp_path / "a.map.png"), labels)
    with Image.open(tmp_path / "a.map.png") as picture:
        assert picture.convert("RGB").getpixel((3, 0)) == PALETTE[3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.map.png", "sub"]


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path: Path) -> None:
    stem = "n" * 245
    save_picture(torch.zeros(3, 16, 16), tmp_path / f"{stem}.png")
    save_map(torch.zeros(16, 16, dtype=torch.int64), tmp_path / f"{stem}.map.png")
    assert load_picture(tmp_path / f"{stem}.png").shape == (3, 16, 16)
    assert load_map(tmp_path / f"{stem}.map.png").shape == (16, 16)


def test_our_own_files_are_known_again(tmp_path: Path) -> None:
    save_picture(torch.zeros(3, 16, 16), tmp_path / "ours.png")
    theirs = saved(tmp_path, "theirs.png", Image.new("RGB", (16, 16)))
    assert is_ours(tmp_path / "ours.png")
    assert not is_ours(theirs)
    assert not is_ours(tmp_path / "missing.png")


def test_what_holds_no_class_ids_is_no_map(tmp_path: Path) -> None:
    colours = saved(tmp_path, "rgb.png", Image.fromarray(RAMP))
    with pytest.raises(DataError, match="its mode is RGB"):
        load_map(colours)
    ids = np.zeros((16, 16), dtype=np.uint8)
    ids[2, 2] = 11
    with pytest.raises(DataError, match="holds the value 11"):
        load_map(saved(tmp_path, "eleven.png", Image.fromarray(ids)))


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        save_picture(torch.zeros(3, 16, 16), tmp_path / "file" / "a.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        save_picture(torch.zeros(3, 16, 16), tmp_path / "taken.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.png"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "webp", "avif", "jp2", "tif", "bmp", "gif", "tga"]
)
def test_damaged_bytes_are_a_data_error_or_a_picture(tmp_path: Path, suffix: str) -> None:
    draws = np.random.default_rng(7)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(draws.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        hurt = whole.copy()
        places = draws.integers(0, min(hurt.size, 200), 4)
        hurt[places] = draws.integers(0, 256, 4)
        path.write_bytes(hurt.tobytes())
        with suppress(DataError):
            assert load_picture(path, max_pixels=10_000).isfinite().all()


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    samples = np.full((20, 20), 0.5, np.float32)
    samples[3, 4] = np.nan
    Image.fromarray(samples).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="finite"):
        load_picture(tmp_path / "nan.tif")
