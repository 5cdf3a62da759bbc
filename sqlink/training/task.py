"""Tasks: how much each class matters to what the received picture is for.

    task file ── load_task(name or path, classes) ──> weights of the losses, blended, pasted classes

A task file has a section for each class set it speaks of; `driving`, `signs`, `pedestrians` and
`uniform` come with the package and speak of both. See docs/guide/training.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from channels.registry import nearest
from sqlink.data.classes import CLASS_SETS, ClassSet, class_set
from sqlink.errors import ConfigError
from sqlink.settings import Section, load_settings, parse_settings

Relevance = Annotated[float, Field(ge=0, le=1)]


class Weights(Section):
    """Weight of each class in a loss, by name; only their ratios matter."""

    default: Relevance = 1.0
    classes: dict[str, Relevance] = Field(default_factory=dict)


class TaskSection(Section):
    """What a task says of one class set.

    map: weights of the map's cross-entropy. image: weights of the picture's L1. blended: classes
    whose details do not matter, which the discriminator is shown with `blend_share` of the
    real picture mixed in. pasted: rare classes, of which more is pasted into training pictures.
    """

    map: Weights = Weights()
    image: Weights = Weights()
    blended: list[str] = Field(default_factory=list)
    blend_share: Relevance = 0.5
    pasted: list[str] = Field(default_factory=list)


class TaskFile(Section):
    """A section for each class set that the task speaks of."""

    camvid: TaskSection | None = None
    cityscapes: TaskSection | None = None

    def sections(self) -> dict[str, TaskSection | None]:
        """Return the sections by the names of their class sets."""
        return {"camvid": self.camvid, "cityscapes": self.cityscapes}


@dataclass(frozen=True)
class Task:
    """A task for the classes of one class set.

    map_weights, image_weights: in [0, 1], one for each class id. blended, pasted: class ids.
    """

    name: str
    classes: ClassSet
    map_weights: tuple[float, ...]
    image_weights: tuple[float, ...]
    blended: tuple[int, ...]
    blend_share: float
    pasted: tuple[int, ...]

    def tensors(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return weights of the map's and of the picture's loss, float32 [classes] each."""
        return (
            torch.tensor(self.map_weights, device=device),
            torch.tensor(self.image_weights, device=device),
        )

    def to_json(self) -> str:
        """Return the whole task, classes by name, for the record of weights."""
        names = self.classes.names
        return json.dumps(
            {
                "name": self.name,
                "classes": self.classes.name,
                "map": dict(zip(names, self.map_weights, strict=True)),
                "image": dict(zip(names, self.image_weights, strict=True)),
                "blended": [names[i] for i in self.blended],
                "blend_share": self.blend_share,
                "pasted": [names[i] for i in self.pasted],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read what `to_json` wrote. Raises ConfigError for anything else."""
        try:
            said: dict[str, Any] = json.loads(text)
            classes = class_set(said["classes"])
            return cls(
                name=str(said["name"]),
                classes=classes,
                map_weights=tuple(float(said["map"][name]) for name in classes.names),
                image_weights=tuple(float(said["image"][name]) for name in classes.names),
                blended=tuple(classes.index(name) for name in said["blended"]),
                blend_share=float(said["blend_share"]),
                pasted=tuple(classes.index(name) for name in said["pasted"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"the record of a task cannot be read: {error}") from None


def task_names() -> list[str]:
    """List the tasks that come with the package, sorted."""
    folder = files("sqlink.training.tasks")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name[-5:] == ".yaml")


def load_task(task: str | Path, classes: ClassSet) -> Task:
    """Load the task called `task`, or of the file `task`, for `classes`.

    A text that holds a path separator or ends in .yaml or .yml is a file. Raises ConfigError, one
    line: for an unknown task, a file that cannot be read, a key, class or weight that cannot be, a
    task that says nothing of `classes`, or one by which no class matters.

    >>> from sqlink.data.classes import CAMVID
    >>> driving = load_task("driving", CAMVID)
    >>> [CAMVID.names[i] for i in driving.pasted]
    ['sign', 'pole', 'pedestrian', 'bicyclist']
    """
    text = str(task)
    if isinstance(task, Path) or "/" in text or "\\" in text or text.endswith((".yaml", ".yml")):
        name, where = Path(task).stem, Path(task).name
        found = load_settings(task, TaskFile)
    elif text in task_names():
        name, where = text, f"{text}.yaml"
        content = (files("sqlink.training.tasks") / where).read_text(encoding="utf-8")
        found = parse_settings(content, TaskFile, where)
    else:
        raise ConfigError(
            f"unknown task '{text}': {nearest(text, task_names())}; or name a file, task.yaml"
        )
    resolved = {
        known.name: _resolve(name, section, known, where)
        for known in CLASS_SETS.values()
        if (section := found.sections()[known.name]) is not None
    }
    if classes.name not in resolved:
        said = ", ".join(resolved) or "no classes"
        raise ConfigError(
            f"{where}: says nothing of the classes of {classes.name}, only of {said}: add a "
            f"section `{classes.name}:`"
        )
    return resolved[classes.name]


def _resolve(name: str, section: TaskSection, classes: ClassSet, where: str) -> Task:
    """Replace a section's names by ids. Raises ConfigError for a name that is not a class of
    the set.
    """
    place = f"{where}: {classes.name}"
    named = {
        "map.classes": list(section.map.classes),
        "image.classes": list(section.image.classes),
        "blended": section.blended,
        "pasted": section.pasted,
    }
    for key, names in named.items():
        unknown = [one for one in names if one not in classes.names]
        if unknown:
            quoted = ", ".join(f"'{one}'" for one in unknown)
            kind = "no classes" if len(unknown) > 1 else "no class"
            raise ConfigError(
                f"{place}.{key}: {quoted}: {kind} of {classes.name}; "
                f"{nearest(unknown[0], list(classes.names))}"
            )
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise ConfigError(f"{place}.{key}: '{twice[0]}' is named twice")
    weights = []
    for key, part in (("map", section.map), ("image", section.image)):
        weights.append(tuple(part.classes.get(one, part.default) for one in classes.names))
        if not any(weights[-1]):
            raise ConfigError(f"{place}.{key}: every weight is 0; give a class one above 0")
    return Task(
        name=name,
        classes=classes,
        map_weights=weights[0],
        image_weights=weights[1],
        blended=tuple(classes.index(one) for one in section.blended),
        blend_share=section.blend_share,
        pasted=tuple(classes.index(one) for one in section.pasted),
    )
