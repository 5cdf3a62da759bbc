"""The reference pages say what the code does: they are what `docs/generate.py` writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAMES = ("parameters.md", "command_line.md", "sweep_file.md", "columns.md")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_page_is_up_to_date(name: str, generator: ModuleType) -> None:
    assert set(NAMES) == set(generator.PAGES)
    written = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert written == generator.PAGES[name]().rstrip() + "\n", "run: python docs/generate.py"


def test_no_page_that_is_written_by_hand_is_too_long() -> None:
    long = {
        page.relative_to(DOCS).as_posix(): lines
        for page in DOCS.glob("**/*.md")
        if page.name not in NAMES
        and (lines := len(page.read_text(encoding="utf-8").splitlines())) > 250
    }
    assert not long
