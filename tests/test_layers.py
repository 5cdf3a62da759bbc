"""The three packages import in one direction, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("channels", "sqlink", "experiments")
"""Each may import those before it."""

FRONT_DOOR = "sqlink.cli"
"""The command line alone may import `experiments`."""

Imports = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            found[name.removesuffix(".__init__")] = path
    return found


def named(node: ast.stmt, known: Mapping[str, Path]) -> Iterator[str]:
    """Modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in known else node.module


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """Every statement, those within functions among them, but those that only types need."""
    for node in ast.iter_child_nodes(tree):
        if is_for_types(node):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from statements(node)


@pytest.fixture(scope="module")
def imports() -> Imports:
    """What each module imports of the three packages, when it is loaded or later."""
    known = modules()
    return {
        name: {
            target
            for node in statements(ast.parse(path.read_text(encoding="utf-8")))
            for target in named(node, known)
            if target in known and target != name
        }
        for name, path in known.items()
    }


def circles(graph: Imports) -> list[list[str]]:
    """Modules that stay when those that import nothing of what is left are taken away, over and
    over: those in a circle, and those that import one.
    """
    left = {name: set(targets) for name, targets in graph.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return [sorted(left)] if left else []


def test_nothing_imports_a_layer_above_its_own(imports: Imports) -> None:
    rank = {layer: number for number, layer in enumerate(LAYERS)}
    against = [
        f"{name} imports {target}"
        for name, targets in imports.items()
        for target in targets
        if rank[target.split(".")[0]] > rank[name.split(".")[0]]
        and not f"{name}.".startswith(f"{FRONT_DOOR}.")
    ]
    assert against == []


def test_no_modules_import_each_other_in_a_circle(imports: Imports) -> None:
    """A module's own packages do not count: Python loads them before it in any case."""
    graph = {
        name: {target for target in targets if not name.startswith(f"{target}.")}
        for name, targets in imports.items()
    }
    assert circles(graph) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": set()}) == [["a", "b"]]
