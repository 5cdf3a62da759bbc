"""Cityscapes: the official layout, its train ids, scaling, and one line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sqlink.data import open_dataset
from sqlink.data.base import DataSet, require_classes
from sqlink.data.cityscapes import Cityscapes, scaled
from sqlink.data.classes import (
    CAMVID,
    CITYSCAPES,
    class_set_of_size,
    classes_of,
)
from sqlink.errors import ConfigError, DataError

# gtFine's label ids in the order of their train ids, as the data set's authors publish them.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def frame(
    root: Path, split: str, name: str, ids: NDArray[np.uint8], pixels: NDArray[np.uint8]
) -> None:
    city = name.split("_")[0]
    for part, ending, content in (
        ("leftImg8bit", "leftImg8bit", pixels),
        ("gtFine", "gtFine_labelIds", ids),
    ):
        path = root / part / split / city / f"{name}_{ending}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Seven frames of aachen, two of bremen; one of ulm to validate on."""
    ids = np.kron(np.array([[7, 8, 0], [26, 33, 23]], np.uint8), np.ones((16, 16), np.uint8))
    pixels = np.repeat(ids[..., None] * 7, 3, axis=2)
    for number in range(7):
        frame(tmp_path, "train", f"aachen_{number:06d}_000019", ids, pixels)
    for number in range(2):
        frame(tmp_path, "train", f"bremen_{number:06d}_000019", ids, pixels)
    frame(tmp_path, "val", "ulm_000000_000019", ids, pixels)
    return tmp_path


def test_frames_come_city_by_city_with_their_train_ids(root: Path) -> None:
    data = open_dataset("cityscapes", root=root)
    assert isinstance(data, DataSet)
    assert len(data) == 9
    assert list(data.names) == sorted(data.names)
    sample = data[8]
    assert sample.name == "bremen_000001_000019"
    assert sample.image.shape == (3, 32, 48)
    assert sample.segmentation is not None
    assert sample.segmentation[::16, ::16].tolist() == [[0, 1, 255], [13, 18, 10]]
    assert classes_of(data) is CITYSCAPES
    assert len(open_dataset("cityscapes", root=root, split="val")) == 1


def test_every_label_id_has_its_official_train_id(tmp_path: Path) -> None:
    ids = np.full((16, 48), 255, np.uint8)
    ids[0, :34] = np.arange(34)
    frame(tmp_path, "val", "ulm_000000_000019", ids, np.zeros((16, 48, 3), np.uint8))
    labels = Cityscapes(tmp_path, "val")[0].segmentation
    assert labels is not None
    expected = [LABEL_IDS.index(i) if i in LABEL_IDS else 255 for i in range(34)]
    assert labels[0, :34].tolist() == expected
    assert labels[1:].unique().tolist() == [255]


def test_blocks_stay_within_a_city_and_within_five_frames(root: Path) -> None:
    blocks = Cityscapes(root).blocks
    assert [blocks.count(block) for block in dict.fromkeys(blocks)] == [3, 4, 2]
    assert blocks[7] == "bremen_000000_000019"


def test_scaling_averages_pictures_and_picks_labels(root: Path) -> None:
    sample = Cityscapes(root, "val", size=[16, 24])[0]
    assert sample.image.shape == (3, 16, 24)
    assert sample.segmentation is not None
    assert sample.segmentation[::8, ::8].tolist() == [[0, 1, 255], [13, 18, 10]]
    checks = (torch.arange(64)[:, None] + torch.arange(96)) % 2
    image, _ = scaled(checks.expand(3, -1, -1).float(), checks, (16, 24))
    assert torch.equal(image, torch.full((3, 16, 24), 0.5))
    image, labels = scaled(checks.expand(3, -1, -1).float(), checks, (25, 40))
    assert (image.mean(), image.std()) == (pytest.approx(0.5, abs=0.01), pytest.approx(0, abs=0.1))
    assert set(labels.unique().tolist()) == {0, 1}


def test_what_is_wrong_is_one_line(root: Path, tmp_path: Path) -> None:
    def fails(match: str, place: Path = root, read: bool = False) -> None:
        with pytest.raises(DataError, match=match) as caught:
            list(Cityscapes(place)) if read else Cityscapes(place)
        assert "\n" not in str(caught.value)

    fails("nowhere is not a folder: set root", tmp_path / "nowhere")
    fails("leftImg8bit/train is not a folder", root / "gtFine")
    for part in ("leftImg8bit", "gtFine"):
        (tmp_path / f"bare/{part}/train").mkdir(parents=True)
    fails(r"holds no CITY/\*_leftImg8bit.png", tmp_path / "bare")

    annotation = root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    spoil: list[tuple[str, Callable[[], object]]] = [
        (
            "holds the values 34, 77: Cityscapes' label ids are 0 to 33",
            lambda: Image.fromarray(np.array([[7, 77], [34, 34]], np.uint8)).save(annotation),
        ),
        (
            "is 16x20 but .* is 48x32",
            lambda: Image.fromarray(np.zeros((20, 16), np.uint8)).save(annotation),
        ),
        ("its mode is RGB", lambda: Image.new("RGB", (48, 32)).save(annotation)),
        ("cannot be read as a PNG", lambda: annotation.write_bytes(b"no picture")),
    ]
    for match, act in spoil:
        act()
        fails(match, read=True)
    annotation.unlink()
    fails("has no map: .*labelIds.png is missing")


@pytest.mark.parametrize("size", [[256], 256, [8, 512], [256.0, 512], "256x512", [True, 32]])
def test_sizes_that_are_none_are_refused(root: Path, size: object) -> None:
    with pytest.raises(ConfigError, match=r"must be \[height, width\]"):
        open_dataset("cityscapes", root=root, size=size)


def test_another_split_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        Cityscapes(root, "trian")


def test_classes_must_match_those_of_what_is_trained(root: Path) -> None:
    data = Cityscapes(root)
    require_classes("cityscapes", data, class_set_of_size(19))
    with pytest.raises(DataError, match=r"19 classes of cityscapes, .* the 11 of camvid") as caught:
        require_classes("cityscapes", data, CAMVID)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no class set has 7"):
        class_set_of_size(7)


def test_maps_of_a_folder_may_hold_cityscapes_classes(tmp_path: Path) -> None:
    for part in ("p", "m"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (24, 16)).save(tmp_path / "p/a.png")
    Image.fromarray(np.full((16, 24), 18, np.uint8)).save(tmp_path / "m/a.png")
    options = {"root": tmp_path / "p", "maps": tmp_path / "m"}
    sample = open_dataset("folder", classes="cityscapes", **options)[0]
    assert sample.segmentation is not None
    assert sample.segmentation.unique().tolist() == [18]
    with pytest.raises(DataError, match=r"value 18, but class ids of camvid are 0\.\.10"):
        open_dataset("folder", **options)[0]
    with pytest.raises(ConfigError, match="did you mean 'cityscapes'"):
        open_dataset("folder", classes="cityscape", **options)


def test_a_class_set_knows_its_classes() -> None:
    assert CITYSCAPES.palette[CITYSCAPES.index("car")] == (0, 0, 142)
    assert len(CITYSCAPES.palette) == len(CITYSCAPES) == len(set(CITYSCAPES.palette)) == 19
    assert CITYSCAPES.colourise(np.array([0, 19, 255])).tolist() == [
        [128, 64, 128],
        [0] * 3,
        [0] * 3,
    ]
    with pytest.raises(ConfigError, match="did you mean 'bicyclist'"):
        CAMVID.index("bicyclists")
