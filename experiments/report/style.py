"""Style of figures: colours, markers and dashes, and printed sizes.

Curves differ in colour (Okabe and Ito's palette, for colour-blind readers), in marker and in dash,
so that they can be distinguished in grey, too. Text has 8 points at the printed width, and stays
text in SVG and PDF.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from channels.errors import ConfigError
from channels.registry import nearest

COLOURS = (
    "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5b6270", "#000000",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "X")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.6)), (0, (1.4, 1.2)), (0, (5, 1.4, 1.2, 1.4)), (0, (8, 2)), (0, (3, 1)),
    (0, (1, 2)), (0, (6, 1, 1, 1, 1, 1)),
)  # fmt: skip
INK, GREY, PALE = "#1a1a1a", "#5f5f5f", "#dddddd"

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "svg.hashsalt": "sqlink",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
"""Settings for the screen."""

_SERIF = ["Times New Roman", "Times", "STIXGeneral", "DejaVu Serif"]
_PRINT: Any = {
    "font.family": "serif",
    "font.serif": _SERIF[2:],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.titleweight": "normal",
    "axes.linewidth": 0.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "legend.fontsize": 8,
    "grid.linewidth": 0.35,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.8,
    "lines.markeredgewidth": 0.8,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Target:
    """The intended use of a figure.

    width: printed width in inches. columns: largest number of columns of panels. panel: height of a
    panel in inches. small: size of the note under the figure in points, the smallest text.
    """

    name: str
    width: float
    columns: int
    panel: float
    small: float
    rc: Any


TARGETS: Mapping[str, Target] = {
    one.name: one
    for one in (
        Target("ieee-column", 3.5, 1, 1.85, 7, _PRINT),
        Target("ieee-page", 7.16, 3, 1.75, 7, _PRINT),
        Target(
            "slide",
            12.0,
            2,
            2.9,
            12,
            {
                "font.size": 16,
                "axes.titlesize": 16,
                "axes.labelsize": 16,
                "lines.linewidth": 2.8,
                "lines.markersize": 9,
                "grid.linewidth": 0.9,
                "savefig.dpi": 150,
            },
        ),
    )
}
FORMATS = ("pdf", "svg", "png")


def target(name: str) -> Target:
    """Return a target by name. Raises ConfigError for an unknown name."""
    if name not in TARGETS:
        raise ConfigError(f"unknown --for '{name}': {nearest(name, list(TARGETS))}")
    return TARGETS[name]


@contextmanager
def styled(made_for: Target, own: Path | None = None) -> Iterator[None]:
    """Apply a target's style, and then the user's style, within a `with` block.

    own: a matplotlib style file (`.mplstyle`). Raises ConfigError, one line, if it cannot be read
    or has a setting that matplotlib does not know.
    """
    settings: Any = {**STYLE, **made_for.rc}
    if own is not None:
        settings |= _own(own)
    with matplotlib.rc_context(settings):
        yield


def _own(path: Path) -> dict[str, Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a style: {error}") from error
    found: dict[str, Any] = {}
    known: Any = matplotlib.rcParams
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip() if "#" not in line.split(":")[-1] else line.strip()
        if not text or text.startswith("#"):
            continue
        key, colon, value = (part.strip() for part in text.partition(":"))
        if not colon or key not in known:
            hint = nearest(key, list(known)) if colon else "lines are `key: value`"
            raise ConfigError(f"{path}: line {number}: no setting '{key}': {hint}")
        try:
            with matplotlib.rc_context():
                known[key] = value
                found[key] = known[key]
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{path}: line {number}: {reason}") from error
    return found
