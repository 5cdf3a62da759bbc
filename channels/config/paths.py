"""Paths in a YAML file, which are relative to the folder of that file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLACES = frozenset({"root", "maps", "file", "folder", "camvid", "lpips_weights"})
"""Keys whose values are always paths."""

FILES = frozenset({"weights", "start", "task", "split", "fit", "dev", "table", "tables"})
"""Keys whose values are a name or a path; a path has a separator or one of SUFFIXES."""

SUFFIXES = frozenset({".safetensors", ".yaml", ".yml", ".txt", ".csv", ".json", ".npz", ".pt"})

OUTPUTS = frozenset({"output"})
"""Keys whose values are output paths, relative to the working directory."""


def beside(value: Any, folder: Path, key: str = "") -> Any:
    """Make the relative paths in `value`, at any depth, relative to `folder`.

    key: the key of `value`. Under a key that this module does not name, a text is a path if it has
    a separator or a suffix and names something in `folder`. Output paths, and texts that begin with
    an environment variable, stay as they are.

    >>> beside({"root": "pictures", "name": "folder", "weights": "streets"}, Path("study"))
    {'root': 'study/pictures', 'name': 'folder', 'weights': 'streets'}
    """
    if isinstance(value, Mapping):
        return {name: beside(inner, folder, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [beside(inner, folder, key) for inner in value]
    if not isinstance(value, str) or not value or "\0" in value or key in OUTPUTS:
        return value
    if value.startswith("${") or os.path.isabs(value):
        return value
    looks = os.sep in value or "/" in value
    known = key in PLACES or (key in FILES and (looks or Path(value).suffix in SUFFIXES))
    path = folder / value
    if known or ((looks or Path(value).suffix) and os.path.exists(path)):
        # Descriptions are read, and looked up, by more than one reader.
        return str(path.resolve() if path.suffix.lower() in (".yaml", ".yml") else path)
    return value
