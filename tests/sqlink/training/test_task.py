"""Tasks: what the package's files say, for both class sets, and one line for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from sqlink.data.classes import CAMVID, CITYSCAPES, ClassSet
from sqlink.errors import ConfigError
from sqlink.training.task import Task, load_task, task_names


def by_name(weights: tuple[float, ...], classes: ClassSet) -> dict[str, float]:
    return dict(zip(classes.names, weights, strict=True))


@pytest.mark.parametrize("classes", [CAMVID, CITYSCAPES], ids=lambda c: c.name)
@pytest.mark.parametrize("name", ["driving", "pedestrians", "signs", "uniform"])
def test_every_task_speaks_of_both_class_sets(name: str, classes: ClassSet) -> None:
    assert task_names() == ["driving", "pedestrians", "signs", "uniform"]
    task = load_task(name, classes)
    assert task.name == name
    map_weights, image_weights = task.tensors()
    assert map_weights.shape == image_weights.shape == (len(classes),)
    assert map_weights.dtype == torch.float32
    assert not set(task.blended) & set(task.pasted)
    assert Task.from_json(task.to_json()) == task
    assert json.loads(task.to_json())["name"] == name


def test_driving_on_cityscapes_has_the_weights_of_the_paper() -> None:
    task = load_task("driving", CITYSCAPES)
    maps, images = by_name(task.map_weights, CITYSCAPES), by_name(task.image_weights, CITYSCAPES)
    assert (maps["traffic light"], maps["rider"], maps["car"], maps["sky"]) == (1, 0.85, 0.5, 0.2)
    assert (images["traffic sign"], images["person"], images["road"]) == (1, 0.55, 0.15)
    assert images["vegetation"] == images["sky"] == 0


def test_tasks_put_their_own_classes_first() -> None:
    for name, first in {"signs": {"sign"}, "pedestrians": {"pedestrian", "bicyclist"}}.items():
        task = load_task(name, CAMVID)
        for weights in (task.map_weights, task.image_weights):
            best = {n for n, w in by_name(weights, CAMVID).items() if w == max(weights)}
            assert best == first
        assert first <= {CAMVID.names[i] for i in task.pasted}
    uniform = load_task("uniform", CAMVID)
    assert set(uniform.map_weights + uniform.image_weights) == {1.0}
    assert uniform.blended == uniform.pasted == ()


def test_a_task_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cars.yaml"
    path.write_text("camvid: {map: {default: 0.1, classes: {car: 1.0}}, blended: [sky]}\n")
    task = load_task(str(path), CAMVID)
    assert task.name == "cars"
    assert by_name(task.map_weights, CAMVID)["car"] == 1.0
    assert by_name(task.map_weights, CAMVID)["sky"] == 0.1
    assert task.blended == (CAMVID.index("sky"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "camvid: {map: {classes: {pedestrain: 1.0, trees: 0.5}}}",
            r"camvid\.map\.classes: 'pedestrain', 'trees': no classes of camvid; "
            "did you mean 'pedestrian'",
        ),
        ("camvid: {blended: [person]}", r"camvid\.blended: 'person': no class of camvid"),
        ("{camvid: {}, cityscapes: {pasted: [sign]}}", r"cityscapes\.pasted: 'sign': no class"),
        ("camvid: {image: {classes: {car: 1.5}}}", r"image\.classes\.car: .*less than or equal"),
        ("camvid: {map: {default: -0.1}}", r"map\.default: .*greater than or equal"),
        ("camvid: {blend_share: 2.0}", "blend_share"),
        ("camvid: {map: {default: 0.0}}", r"camvid\.map: every weight is 0"),
        ("camvid: {pasted: [sign, sign]}", r"camvid\.pasted: 'sign' is named twice"),
        ("camvid: {past: [sign]}", "unknown key 'past': did you mean 'pasted'"),
        ("camvids: {}", "unknown key 'camvids': did you mean 'camvid'"),
        ("cityscapes: {}", "nothing of the classes of camvid, only of cityscapes: add a section"),
        ("[1]", "should be a mapping"),
    ],
)
def test_mistakes_in_a_task_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_task(path, CAMVID)
    assert str(caught.value).startswith("own.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_task_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown task 'drivin': did you mean 'driving'"):
        load_task("drivin", CAMVID)
    with pytest.raises(ConfigError, match="no such file"):
        load_task(tmp_path / "none.yaml", CAMVID)
    with pytest.raises(ConfigError, match="record of a task"):
        Task.from_json("{}")


def test_the_task_shown_in_the_documents_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guide" / "training.md").read_text("utf-8")
    (text,) = re.findall(r"^```yaml\n(camvid:.*?)^```$", page, re.M | re.S)
    (tmp_path / "cars.yaml").write_text(text)
    assert load_task(tmp_path / "cars.yaml", CAMVID).pasted == (CAMVID.index("sign"),)
