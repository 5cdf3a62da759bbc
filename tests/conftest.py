"""What tests share: where the development data lie, when they do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
    """The folder of development data (CamVid, conformance vectors, perceptual weights), or None."""
    folder = Path(os.environ.get("SQLINK_SHARED", ROOT.parent / "shared"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data; skips the test where there is none."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("development data not found; set SQLINK_SHARED to the folder that holds it")
    return folder
