"""A gallery shows a codec beside baselines in the same bytes, or says how many they needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from channels.errors import ConfigError, SQLinkError
from experiments.gallery import EDGE, GAP, HEAD, Tile, draw_gallery, load_gallery, of_folder, sheet
from sqlink.data import open_dataset
from sqlink.data.pictures import save_picture

GALLERY = """
data: {name: streets, options: {seed: 3, count: 5, height: 64, width: 96}}
every: 2
codec: map_only
baselines: jpeg2000
bpp: [0.15, 0.5]
"""
WIDTH, HEIGHT = 96, 64


def write(folder: Path, text: str) -> Path:
    path = folder / "gallery.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sheet_a_picture_and_a_page_a_rate(tmp_path: Path) -> None:
    gallery = load_gallery(write(tmp_path, GALLERY))
    written = draw_gallery(gallery, tmp_path / "out")
    assert [path.name for path in written] == [
        "index.html",
        "page.bpp=0.15.png",
        "page.bpp=0.5.png",
        "street-3.png",
        "street-5.png",
        "street-7.png",
    ]
    text = written[0].read_text(encoding="utf-8")
    assert all(f'src="{path.name}"' in text for path in written[1:])
    assert "3 pictures of 'streets', one in 2, by number" in text
    with Image.open(written[3]) as page:
        pixels = np.asarray(page)
    original = open_dataset("streets", seed=3, count=1, height=64, width=96)[0].image
    shown = pixels[HEAD : HEAD + HEIGHT, GAP : GAP + WIDTH]
    assert np.array_equal(shown, (original * 255).round().byte().permute(1, 2, 0).numpy())
    # At 0.15 bpp, 115 bytes, JPEG2000 has no room for its header: a frame around its lowest.
    corner = pixels[HEAD + EDGE // 2, GAP + 2 * (WIDTH + GAP) + EDGE // 2]
    assert tuple(corner) == (0xD9, 0x82, 0x00)


def test_pictures_of_a_folder_at_rates_of_ones_own(tmp_path: Path) -> None:
    scene = open_dataset("streets", seed=4, count=1, height=64, width=96)[0]
    save_picture(scene.image, tmp_path / "street.png")
    gallery = of_folder(tmp_path).at([0.3])
    assert (gallery.bpp, gallery.data.name) == ([0.3], "folder")
    with pytest.raises(ConfigError, match="must be above 0"):
        gallery.at([0.0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("every: 2", "every: 0", "gallery.yaml: every: should be greater than 0"),
        ("every: 2", "evry: 2", "unknown key 'evry': did you mean 'every'"),
        ("jpeg2000", "jpg2000", "did you mean 'jpeg2000'"),
        ("[0.15, 0.5]", "0.01", "map_only cannot code 96x64 in 7 bytes"),
        ("codec:", "device: gpu\ncodec:", "'gpu' is not a device"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(SQLinkError, match=message) as caught:
        draw_gallery(load_gallery(write(tmp_path, GALLERY.replace(old, new))), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pages_are_scaled_and_sheets_are_not() -> None:
    tile = Tile(np.full((40, 80, 3), 9, np.uint8), "name", "text, that, is, much, too, long")
    assert sheet("t", [[tile, tile]]).width == 2 * 80 + 3 * GAP
    assert sheet("t", [[tile, tile]], 0.5).width == 2 * 40 + 3 * GAP
