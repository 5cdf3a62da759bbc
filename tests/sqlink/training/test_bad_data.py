"""`sqlink train` on data that are missing, empty or of other classes ends in one line, soon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from sqlink.cli.app import app


def pair(picture: Path, labels: Path, ids: int = 3, size: tuple[int, int] = (64, 48)) -> None:
    for path in (picture, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(picture)
    Image.fromarray(np.full(size[::-1], ids, np.uint8)).save(labels)


def nowhere(root: Path) -> dict[str, object]:
    return {"name": "camvid", "options": {"root": str(root / "no")}}


def empty_split(root: Path) -> dict[str, object]:
    for part in ("leftImg8bit", "gtFine"):
        (root / part / "val").mkdir(parents=True)
    return {"name": "cityscapes", "options": {"root": str(root), "split": "val"}}


def empty_list(root: Path) -> dict[str, object]:
    pair(root / "train/a_1.png", root / "trainannot/a_1.png")
    (root / "fit.txt").write_text("\n")
    return {"name": "camvid", "options": {"root": str(root), "split": "fit"}}


def other_classes(root: Path) -> dict[str, object]:
    name = "train/ulm/ulm_000000_000019"
    pair(
        root / f"leftImg8bit/{name}_leftImg8bit.png",
        root / f"gtFine/{name}_gtFine_labelIds.png",
        ids=7,
    )
    return {"name": "cityscapes", "options": {"root": str(root)}}


def folder(root: Path) -> dict[str, object]:
    return {"name": "folder", "options": {"root": str(root / "p"), "maps": str(root / "m")}}


def unknown_ids(root: Path) -> dict[str, object]:
    pair(root / "p/a.png", root / "m/a.png", ids=33)
    return folder(root)


def one_map_missing(root: Path) -> dict[str, object]:
    pair(root / "p/a.png", root / "m/b.png")
    return folder(root)


def no_maps(root: Path) -> dict[str, object]:
    pair(root / "p/a.png", root / "m/a.png")
    return {"name": "folder", "options": {"root": str(root / "p")}}


def two_sizes(root: Path) -> dict[str, object]:
    pair(root / "p/a.png", root / "m/a.png")
    pair(root / "p/b.png", root / "m/b.png", size=(64, 32))
    return folder(root)


def no_such_data_set(root: Path) -> dict[str, object]:
    return {"name": "camvids", "options": {"root": str(root)}}


def no_such_class_set(root: Path) -> dict[str, object]:
    pair(root / "p/a.png", root / "m/a.png")
    made = folder(root)
    return made | {"options": {**made["options"], "classes": "ade20k"}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (nowhere, "no is not a folder: set root"),
        (empty_split, "holds no CITY/*_leftImg8bit.png"),
        (empty_list, "fit.txt names no frame"),
        (other_classes, "'cityscapes' has the 19 classes of cityscapes, but"),
        (unknown_ids, "a.png is not a map: it holds the value 33"),
        (one_map_missing, "a.png has no map"),
        (no_maps, "'folder': a has no map to train on"),
        (two_sizes, "training wants one size"),
        (no_such_data_set, "unknown data set 'camvids': did you mean 'camvid'"),
        (no_such_class_set, "unknown class set 'ade20k'"),
    ],
)
def test_training_on_it_ends_in_one_line(
    tmp_path: Path, source: Callable[[Path], dict[str, object]], says: str, tiny_is_known: None
) -> None:
    path = tmp_path / "train.yaml"
    values = {
        "model": "tiny",
        "output": str(tmp_path / "run"),
        "sources": [source(tmp_path / "data")],
        "recipe": {"crop": [32, 32], "losses": {"perceptual": 0.0}},
        "stages": {"joint": {"max_steps": 1}},
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["train", str(path)])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("sqlink: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
