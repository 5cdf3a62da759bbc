"""What a run leaves to look at."""

from __future__ import annotations

import builtins
import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from sqlink.data.classes import CAMVID
from sqlink.training.journal import Journal, sample_sheet


def test_rows_may_gain_columns_and_tensorboard_reads_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines: list[str] = []
    journal = Journal(tmp_path, lines.append)
    journal.write(1, {"step": 1, "stage": "map", "map": 0.5})
    journal.write(2, {"step": 2, "stage": "image", "l1": 0.25})
    journal.draw(2, torch.zeros(4, 6, 3, dtype=torch.uint8))
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["map"] for row in rows] == ["0.5", ""]
    assert rows[1]["l1"] == "0.25"
    assert lines[1] == "step=2  stage=image  l1=0.25"
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("l1")] == [(2, 0.25)]
    assert events.Images("samples")[0].step == 2


def test_without_tensorboard_the_table_is_written_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object, **options: object) -> object:
        if name == "torch.utils.tensorboard":
            raise ImportError(name)
        return real(name, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    lines: list[str] = []
    journal = Journal(tmp_path, lines.append)
    journal.write(1, {"step": 1, "map": 0.5})
    journal.write(2, {"step": 2, "map": 0.25})
    assert sum("pip install tensorboard" in line for line in lines) == 1
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,map", "1,0.5", "2,0.25"]


def test_a_sheet_shows_pictures_maps_and_relevance(tmp_path: Path) -> None:
    pictures = torch.full((2, 3, 20, 30), 0.5)
    maps = torch.full((2, 20, 30), 8)
    scores = torch.linspace(0, 1, 8).view(1, 2, 4).expand(2, -1, -1)
    sheet = sample_sheet(pictures, pictures, maps, maps, (scores, scores), CAMVID)
    assert sheet.shape == (6 * 20, 2 * 30, 3)
    assert sheet[2 * 20, 0].tolist() == list(CAMVID.palette[8])
    assert sheet[4 * 20, 0].tolist() == [0, 0, 0]
    assert sheet[5 * 20 - 1, 29].tolist() == [255, 255, 255] or sheet[5 * 20 - 1, 29, 0] > 100
    Journal(tmp_path, print).draw(3, sheet)
    with Image.open(tmp_path / "samples" / "000003.jpg") as image:
        assert image.size == (60, 120)
