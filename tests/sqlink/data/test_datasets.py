"""CamVid and folders: order, splits, blocks, and one clear line for what is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlink.data import open_dataset
from sqlink.data.base import DataSet
from sqlink.data.blocks import blocks_of
from sqlink.data.camvid import CamVid
from sqlink.data.folder import Folder
from sqlink.errors import ConfigError, DataError


def picture(path: Path, height: int = 20, width: int = 24, tone: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), tone, np.uint8)).save(path)


def labels(path: Path, height: int = 20, width: int = 24, value: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width), value, np.uint8)).save(path)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Six train frames of two drives, PNG and JPEG, and two of val."""
    for k, number in enumerate((30, 60, 90, 400)):
        picture(tmp_path / f"train/0006R0_f{number:05d}.png", tone=40 * k)
        labels(tmp_path / f"trainannot/0006R0_f{number:05d}.png", value=k)
    for number in (30, 60):
        picture(tmp_path / f"train/0001TP_{number:06d}.jpg")
        labels(tmp_path / f"trainannot/0001TP_{number:06d}.png", value=11)
        picture(tmp_path / f"val/0016E5_{number:05d}.png")
        labels(tmp_path / f"valannot/0016E5_{number:05d}.png")
    (tmp_path / "dev.txt").write_text("0006R0_f00060\n0001TP_000030\n")
    return tmp_path


def test_camvid_reads_png_and_jpeg_in_the_order_of_names(camvid: Path) -> None:
    data = open_dataset("camvid", root=camvid, split="train")
    assert isinstance(data, DataSet)
    assert list(data.names) == sorted(data.names)
    assert len(data) == 6
    assert data[2].image.shape == (3, 20, 24)
    assert data[3].segmentation is not None
    assert data[3].segmentation.unique().tolist() == [1]


def test_void_is_read_as_no_label(camvid: Path) -> None:
    first = CamVid(camvid)[0]
    assert first.segmentation is not None
    assert first.segmentation.unique().tolist() == [255]


def test_lists_name_frames_of_train_or_of_any_split(camvid: Path, tmp_path: Path) -> None:
    assert list(CamVid(camvid, "dev").names) == ["0001TP_000030", "0006R0_f00060"]
    own = tmp_path / "own.txt"
    own.write_text("0016E5_00060\n0006R0_f00030\n")
    assert list(CamVid(camvid, str(own)).names) == ["0006R0_f00030", "0016E5_00060"]


def test_blocks_end_with_the_drive_and_at_gaps(camvid: Path) -> None:
    data = CamVid(camvid)
    assert list(data.blocks) == [
        "0001TP_000030",
        "0001TP_000030",
        "0006R0_f00030",
        "0006R0_f00030",
        "0006R0_f00030",
        "0006R0_f00400",
    ]
    assert data[5].block == "0006R0_f00400"


@pytest.mark.parametrize("frames", range(1, 40))
def test_long_runs_are_cut_into_blocks_of_at_most_five(frames: int) -> None:
    blocks = blocks_of([f"drive_{30 * k:06d}" for k in range(frames)])
    sizes = list(Counter(blocks).values())
    assert sum(sizes) == frames
    assert max(sizes) <= 5
    assert max(sizes) - min(sizes) <= 1


def test_names_without_numbers_are_blocks_of_their_own() -> None:
    assert blocks_of(["harbour", "market"]) == ["harbour", "market"]


def test_development_split_has_twelve_blocks(shared: Path) -> None:
    data = CamVid(shared / "data/camvid", "dev")
    assert len(data) == 47
    assert len(set(data.blocks)) == 12
    fit = CamVid(shared / "data/camvid", "fit")
    assert not set(fit.names) & set(data.names)
    sample = data[0]
    assert sample.image.shape == (3, 360, 480)
    assert sample.segmentation is not None
    assert sample.segmentation.shape == (360, 480)


def test_camvid_says_what_is_wrong_and_how_to_mend_it(camvid: Path, tmp_path: Path) -> None:
    def read_all(root: Path, split: str) -> None:
        list(CamVid(root, split))

    def fails(match: str, root: Path = camvid, split: str = "train", read: bool = False) -> None:
        with pytest.raises(DataError, match=match) as caught:
            read_all(root, split) if read else CamVid(root, split)
        assert "\n" not in str(caught.value)

    fails("set root", root=tmp_path / "nowhere")
    fails("does not exist", split="test")
    (camvid / "test").mkdir()
    fails("holds no PNG or JPEG", split="test")
    fails("no list", split="fit")
    (camvid / "fit.txt").write_text("\n")
    fails("names no frame", split="fit")
    (camvid / "fit.txt").write_text("0006R0_f00030\n0006R0_f99999\n")
    fails("0006R0_f99999", split="fit")
    (camvid / "fit.txt").write_bytes(b"\xff\xfe\x00")
    fails("cannot be read", split="fit")

    labels(camvid / "trainannot/0006R0_f00030.png", height=18)
    fails("24x18 but .* is 24x20", read=True)
    labels(camvid / "trainannot/0006R0_f00030.png", value=77)
    fails("holds the value 77", read=True)
    picture(camvid / "trainannot/0006R0_f00030.png")
    fails(r"shows the colour \(90, 90, 90\)", read=True)
    (camvid / "trainannot/0006R0_f00030.png").write_bytes(b"no picture")
    fails("cannot be read as a PNG", read=True)
    (camvid / "trainannot/0006R0_f00030.png").unlink()
    fails("has no map")


@pytest.mark.parametrize(
    "text",
    [
        "train/0006R0_f00060.png trainannot/0006R0_f00060.png\n",
        "/SegNet/CamVid/train/0006R0_f00060.png /SegNet/CamVid/trainannot/0006R0_f00060_L.png\r\n",
        "0006R0_f00060.PNG\n",
        "..\\train\\0006R0_f00060.jpg\n\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_as_they_are_found(camvid: Path, text: str, encoding: str) -> None:
    (camvid / "dev.txt").write_bytes(text.encode(encoding))
    assert list(CamVid(camvid, "dev").names) == ["0006R0_f00060"]


def test_a_line_of_two_frames_is_no_pair(camvid: Path) -> None:
    (camvid / "dev.txt").write_text("0006R0_f00060\n0006R0_f00030 0006R0_f00090\n")
    with pytest.raises(DataError, match="line 2: '0006R0_f00030 0006R0_f00090' is not a frame"):
        CamVid(camvid, "dev")


def test_companions_of_another_system_are_no_frames(camvid: Path) -> None:
    for folder in ("train", "trainannot"):
        (camvid / folder / "._0006R0_f00030.png").write_bytes(b"\0\5\x16\7")
        (camvid / folder / "._0006R0_f00030.jpg").write_bytes(b"\0\5\x16\7")
    assert len(CamVid(camvid)) == 6


def test_maps_in_capitals_are_found(camvid: Path) -> None:
    for path in (camvid / "trainannot").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert len(list(CamVid(camvid))) == 6


def test_maps_in_the_colours_of_the_original_classes(tmp_path: Path) -> None:
    """Colours of label_colors.txt, in the layout `train_labels/NAME_L.png`."""
    picture(tmp_path / "train/0001TP_006690.png")
    colours = np.zeros((20, 24, 3), np.uint8)  # void
    rows = {
        "sky": (128, 128, 128),
        "building": (64, 192, 0),  # wall
        "road": (128, 0, 192),  # lane markings
        "pavement": (0, 0, 192),
        "car": (192, 128, 192),  # truck
        "bicyclist": (0, 128, 192),
    }
    for row, colour in enumerate(rows.values()):
        colours[row] = colour
    labelled = tmp_path / "train_labels/0001TP_006690_L.png"
    labelled.parent.mkdir()
    for picture_of_map in (
        Image.fromarray(colours),
        Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE),
        Image.fromarray(colours).convert("RGBA"),
    ):
        picture_of_map.save(labelled)
        (sample,) = CamVid(tmp_path)
        assert sample.segmentation is not None
        expected = [CamVid.classes.index(name) for name in rows]
        assert sample.segmentation[:, 0].tolist() == [*expected, *[255] * 14]


def test_a_palette_of_the_class_set_shows_ids(camvid: Path) -> None:
    labels(camvid / "trainannot/0006R0_f00030.png", value=4)
    with Image.open(camvid / "trainannot/0006R0_f00030.png") as grey:
        ids = grey.copy()
    ids.putpalette(CamVid.classes.colours().tobytes())
    ids.save(camvid / "trainannot/0006R0_f00030.png")
    found = CamVid(camvid)[2].segmentation
    assert found is not None
    assert found.unique().tolist() == [4]


def test_a_folder_of_pictures_needs_no_maps(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.webp"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    data = open_dataset("folder", root=tmp_path)
    assert isinstance(data, DataSet)
    assert list(data.names) == ["a", "b", "c"] == list(data.blocks)
    assert [sample.segmentation for sample in data] == [None, None, None]


def test_a_folder_takes_what_encode_reads_and_names_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(("a.PNG", "b.JpG", "c.gif", "d.jfif", "e.pgm", "f.TIF", "g.jpx")):
        kind = "JPEG2000" if name.endswith("jpx") else None
        Image.fromarray(np.full((20, 24, 3), number, np.uint8)).save(tmp_path / name, format=kind)
    for name in ("notes.txt", "clip.mp4", "._a.PNG", ".DS_Store", "a.map.png"):
        (tmp_path / name).write_text("no picture")
    data = Folder(tmp_path)
    assert list(data.names) == list("abcdefg")
    assert len(list(data)) == 7
    assert list(data.left_out) == ["clip.mp4", "notes.txt"]
    (said,) = (record.getMessage() for record in caplog.records)
    assert "2 of 9 files are left out" in said
    assert "clip.mp4, notes.txt" in said
    (tmp_path / "maps").mkdir()
    for name in data.names:
        labels(tmp_path / f"maps/{name}.png")
        (tmp_path / f"maps/{name}.png").rename(tmp_path / f"maps/{name}.PNG")
    assert all(sample.segmentation is not None for sample in Folder(tmp_path, tmp_path / "maps"))


def test_a_folder_takes_maps_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "p/one.png")
    picture(tmp_path / "p/two.png")
    labels(tmp_path / "m/one.png", value=2)
    labels(tmp_path / "m/two.map.png", value=8)
    data = Folder(tmp_path / "p", tmp_path / "m")
    found = [s.segmentation.unique().tolist() for s in data if s.segmentation is not None]
    assert found == [[2], [8]]


def test_a_folder_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set root"):
        Folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no picture"):
        Folder(tmp_path)
    picture(tmp_path / "p/one.png")
    with pytest.raises(DataError, match="set maps"):
        Folder(tmp_path / "p", tmp_path / "m")
    (tmp_path / "m").mkdir()
    with pytest.raises(DataError, match="has no map"):
        Folder(tmp_path / "p", tmp_path / "m")
    labels(tmp_path / "m/one.png", width=30)
    with pytest.raises(DataError, match="30x20 but"):
        Folder(tmp_path / "p", tmp_path / "m")[0]
    picture(tmp_path / "p/one.jpg")
    with pytest.raises(DataError, match="have one name"):
        Folder(tmp_path / "p")


def test_unknown_data_sets_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'camvid'"):
        open_dataset("camvids", root=tmp_path)
    with pytest.raises(ConfigError, match="split"):
        open_dataset("folder", root=tmp_path, split="train")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("camvid", {"root": 5}),
        ("camvid", {"root": ".", "split": 5}),
        ("folder", {"root": None}),
        ("folder", {"root": ".", "maps": 5}),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="is not a path"):
        open_dataset(name, **options)
