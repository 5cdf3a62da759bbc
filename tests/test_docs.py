"""The documents keep their word: Python runs, sweeps are valid, links lead somewhere.

All ```python blocks of a page run in order in one namespace, in an empty folder. A block right
after the line `<!-- no-test -->` is shown but not run.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from experiments.sweep.schema import parse_sweep

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
_BLOCK = re.compile(r"^(?P<mark><!-- no-test -->\n)?```python\n(?P<code>.*?)^```$", re.M | re.S)
_SWEEP = re.compile(r"^```yaml\n(data:.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_MODULE = re.compile(r"python -m ((?:sqlink|channels|experiments)\.[\w.]*\w)")
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")


def blocks(text: str) -> list[tuple[int, str]]:
    """(line number of the first line, code) of each block that is to run."""
    return [
        (text.count("\n", 0, match.start("code")), match["code"])
        for match in _BLOCK.finditer(text)
        if not match["mark"]
    ]


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p.read_text("utf-8"))], ids=_name)
def test_python_in_documents_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "document"}
    for line, code in blocks(page.read_text("utf-8")):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if _SWEEP.search(p.read_text("utf-8"))], ids=_name
)
def test_sweeps_in_documents_are_valid(page: Path) -> None:
    for text in _SWEEP.findall(page.read_text("utf-8")):
        assert parse_sweep(text, _name(page)).codecs


def modules() -> list[str]:
    """Modules that documents tell to run; those of old versions in the changelog are left out."""
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    return sorted({name for page in pages for name in _MODULE.findall(page.read_text("utf-8"))})


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", modules())
def test_commands_in_documents_say_how_they_are_used(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert module in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_in_documents_lead_to_files(page: Path) -> None:
    links = _LINK.findall(_COMMENT.sub("", page.read_text("utf-8")))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_marked_blocks_are_left_out_and_lines_are_kept() -> None:
    text = "one\n```python\na = 1\n```\n<!-- no-test -->\n```python\nfails(\n```\n```sh\nls\n```\n"
    assert blocks(text) == [(2, "a = 1\n")]
