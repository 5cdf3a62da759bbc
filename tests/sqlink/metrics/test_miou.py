"""Metrics of maps: what they compare, and their values against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlink.data.classes import CAMVID, NO_LABEL
from sqlink.errors import ConfigError
from sqlink.metrics import MapMetric, load_metric

MAPS = {
    "miou": "image",
    "miou_map": "map",
    "map_fidelity": "sent",
    "consistency": "original",
    "pixel_accuracy": "image",
    "task_miou": "image",
    "relevant_miou": "image",
}


def _maps(seed: int = 0, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps seen, and labels with some pixels without one and two classes that never occur."""
    randomness = np.random.default_rng(seed)
    labels = randomness.integers(0, 9, size=(n, 24, 32))
    seen = np.where(randomness.random(labels.shape) < 0.6, labels, randomness.integers(0, 11))
    labels[randomness.random(labels.shape) < 0.1] = NO_LABEL
    return torch.from_numpy(seen), torch.from_numpy(labels)


def _of(name: str, seen: torch.Tensor, labels: torch.Tensor, **options: object) -> float:
    metric = load_metric(name, **options)
    assert isinstance(metric, MapMetric)
    counts = metric.counts(seen, labels)
    assert counts.shape == (len(seen), *metric.shape)
    return float(metric.value(counts.sum(dim=0).double()))


def _ious(seen: torch.Tensor, labels: torch.Tensor) -> dict[int, float]:
    """IoU of each class that occurs in the labels, pixel by pixel."""
    there = labels != NO_LABEL
    s, t = seen[there].numpy(), labels[there].numpy()
    return {
        c: float(((s == c) & (t == c)).sum() / ((s == c) | (t == c)).sum()) for c in np.unique(t)
    }


@pytest.mark.parametrize(("name", "compares"), MAPS.items())
def test_each_compares_what_it_says(name: str, compares: str) -> None:
    metric = load_metric(name)
    assert isinstance(metric, MapMetric)
    assert (metric.name, metric.compares, metric.higher_is_better) == (name, compares, True)


def test_means_and_shares_are_those_counted_by_hand() -> None:
    seen, labels = _maps()
    ious = _ious(seen, labels)
    there = labels != NO_LABEL
    assert _of("consistency", seen, labels) == pytest.approx(np.mean(list(ious.values())))
    share = float((seen == labels)[there].double().mean())
    assert _of("pixel_accuracy", seen, labels) == pytest.approx(share)
    weights = dict.fromkeys(CAMVID.names, 0.5) | {
        "pole": 1.0,
        "sign": 1.0,
        "pedestrian": 0.85,
        "bicyclist": 0.85,
        "tree": 0.3,
        "sky": 0.2,
    }
    own = {c: weights[CAMVID.names[c]] for c in ious}
    expected = sum(own[c] * ious[c] for c in ious) / sum(own.values())
    assert _of("task_miou", seen, labels, task="driving") == pytest.approx(expected, rel=1e-6)


def test_relevant_classes_are_the_tasks_or_those_named() -> None:
    seen, labels = _maps(1)
    ious = _ious(seen, labels)
    of = {CAMVID.names[c]: value for c, value in ious.items()}
    driving = [of[name] for name in ("sign", "pole") if name in of]
    assert "pedestrian" not in of
    assert _of("relevant_miou", seen, labels) == pytest.approx(np.mean(driving))
    assert _of("relevant_miou", seen, labels, classes=["car"]) == pytest.approx(of["car"])


def test_without_labels_there_is_no_value() -> None:
    seen, labels = _maps()
    nothing = torch.full_like(labels, NO_LABEL)
    for name in MAPS:
        assert np.isnan(_of(name, seen, nothing))


def test_unknown_tasks_and_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="driving"):
        load_metric("task_miou", task="drivin")
    with pytest.raises(ConfigError, match="'caar' is not a class of camvid: did you mean 'car'"):
        load_metric("relevant_miou", classes=["caar"])
    with pytest.raises(ConfigError, match="no class is named"):
        load_metric("relevant_miou", classes=[])
