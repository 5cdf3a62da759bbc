"""What a run leaves behind."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch

from sqlink.codecs import load_codec
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.training import train_from_config
from sqlink.weights.manifest import load


def test_a_run_leaves_weights_that_load_and_a_log(
    tmp_path: Path, settings: Callable[..., Path]
) -> None:
    weights = train_from_config(
        settings(tmp_path, stages={"joint": {"max_steps": 3}}), lambda line: None
    )
    codec = load_codec("sqgan", weights=str(weights))
    picture = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(1, 40, 56, dtype=torch.long)
    stream = codec.encode(picture, Rate(quality=1.0), labels)[0]
    assert isinstance(stream, Stream)
    assert codec.decode([Received.whole(stream)]).images.shape == picture.shape
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 3
    assert rows[-1]["stage"] == "joint"
    assert json.loads(load(str(weights), "sqgan").metadata["task"])["name"] == "driving"
    assert not list((tmp_path / "run").glob("*.part"))
