"""IDD Lite: its layout, its coarse classes, what they stand for, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sqlink.data.base import DataSet, open_dataset, require_classes
from sqlink.data.classes import (
    CAMVID,
    IDD,
    classes_of,
)
from sqlink.data.idd import CAMVID_SETS, camvid_sets
from sqlink.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures to train on, one to report on; all ids and one place with none."""
    ids = np.kron(np.array([[0, 1, 2, 3], [4, 5, 6, 255]], np.uint8), np.ones((12, 10), np.uint8))
    pixels = np.repeat(ids[..., None] // 2, 3, axis=2)
    for split, names in (("train", ("b_2", "a_1", "c_3")), ("dev", ("d_4",))):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
        for name in names:
            Image.fromarray(pixels).save(tmp_path / split / f"{name}.jpg", quality=95)
            Image.fromarray(ids).save(tmp_path / f"{split}annot" / f"{name}.png")
    return tmp_path


def test_pictures_come_by_name_with_their_coarse_classes(root: Path) -> None:
    data = open_dataset("idd", root=root)
    assert isinstance(data, DataSet)
    assert list(data.names) == ["a_1", "b_2", "c_3"]
    assert list(data.blocks) == list(data.names)
    sample = data[2]
    assert sample.image.shape == (3, 24, 40)
    assert sample.segmentation is not None
    assert sample.segmentation.dtype == torch.int64
    assert sample.segmentation[::12, ::10].tolist() == [[0, 1, 2, 3], [4, 5, 6, 255]]
    assert len(open_dataset("idd", root=root, split="dev")) == 1
    assert len(list(data)) == 3
    with pytest.raises(IndexError):
        data[3]


def test_its_classes_are_no_models(root: Path) -> None:
    data = open_dataset("idd", root=root)
    assert classes_of(data) is IDD
    with pytest.raises(DataError, match=r"7 classes of idd.*11 of camvid"):
        require_classes("idd", data, CAMVID)


def test_every_coarse_class_stands_for_classes_of_camvid() -> None:
    table = camvid_sets()
    assert table.shape == (7, 11)
    assert set(CAMVID_SETS) == set(IDD.names)
    assert bool((table.sum(1) >= 1).all())
    assert bool((table.sum(0) >= 1).all())  # and none of CamVid's is left out
    living = table[IDD.index("living things")]
    assert living.nonzero()[:, 0].tolist() == [9, 10]


def test_what_is_wrong_gets_one_line(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"split='val'"):
        open_dataset("idd", root=root, split="val")
    with pytest.raises(DataError, match="is not a folder"):
        open_dataset("idd", root=root / "none")
    wrong = np.full((24, 40), 9, np.uint8)
    Image.fromarray(wrong).save(root / "trainannot" / "a_1.png")
    with pytest.raises(DataError, match=r"holds the value 9: IDD Lite's maps hold 0 to 6"):
        open_dataset("idd", root=root)[0]
    Image.fromarray(wrong[:20] * 0).save(root / "trainannot" / "a_1.png")
    with pytest.raises(DataError, match=r"is 40x20 but .* is 40x24"):
        open_dataset("idd", root=root)[0]
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(root / "trainannot" / "a_1.png")
    with pytest.raises(DataError, match="its mode is RGB"):
        open_dataset("idd", root=root)[0]
    (root / "trainannot" / "a_1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="is not a picture"):
        open_dataset("idd", root=root)[0]
    (root / "trainannot" / "a_1.png").unlink()
    with pytest.raises(DataError, match="has no map"):
        open_dataset("idd", root=root)
    for path in (root / "dev").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="holds no JPEG or PNG"):
        open_dataset("idd", root=root, split="dev")
