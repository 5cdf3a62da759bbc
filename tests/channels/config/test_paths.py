"""Files that a YAML names lie beside it, wherever a command is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.config.builder import load
from channels.config.paths import beside


def test_names_stay_names_and_paths_are_put_beside_the_file() -> None:
    folder = Path("study")
    written = {
        "data": {"name": "folder", "options": {"root": "pictures", "maps": "maps"}},
        "codecs": [{"name": "sqgan", "options": {"weights": "streets"}}],
        "segmenter": {"name": "tx", "options": {"weights": "own/tx.safetensors"}},
        "split": "dev",
        "modulation": "16qam",
        "output": "results/mine",
    }
    assert beside(written, folder) == {
        "data": {"name": "folder", "options": {"root": "study/pictures", "maps": "study/maps"}},
        "codecs": [{"name": "sqgan", "options": {"weights": "streets"}}],
        "segmenter": {"name": "tx", "options": {"weights": "study/own/tx.safetensors"}},
        "split": "dev",
        "modulation": "16qam",
        "output": "results/mine",
    }
    assert beside({"root": "/data/x", "maps": "${MAPS}/y"}, folder) == {
        "root": "/data/x",
        "maps": "${MAPS}/y",
    }


def test_a_trace_lies_beside_its_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links/losses.csv").write_text("0\n1\n0\n")
    (tmp_path / "links/link.yaml").write_text("trace: {file: losses.csv}")
    for place in (tmp_path, tmp_path / "links"):
        monkeypatch.chdir(place)
        assert load(tmp_path / "links/link.yaml").name == "trace"
        link = "links/link.yaml" if place == tmp_path else "link.yaml"
        assert load(link).name == "trace"
