"""An empty cache of tables of error rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.link import bler_table


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tables, empty, and no shipped ones beside it."""
    monkeypatch.setenv(bler_table.CACHE, str(tmp_path))
    monkeypatch.setattr(bler_table, "_shipped", dict)
    return tmp_path / "bler"
