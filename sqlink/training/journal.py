"""Write what a run shows: `log.csv`, TensorBoard events, and sheets of samples.

output/log.csv              a row each time the run is held against the held-out pictures
output/tensorboard/         the same figures and sheets, where `tensorboard` is installed
output/samples/000123.jpg   original, rebuilt, map sent, map decoded, relevance; a column each
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from channels.atomic_write import whole_file
from sqlink.data.classes import ClassSet


class Journal:
    """Writes under `output`, which need not exist yet."""

    def __init__(self, output: Path, report: Callable[[str], None]) -> None:
        self.output = output
        self.report = report
        self._events: Any = None

    def write(self, step: int, figures: dict[str, float | str]) -> None:
        """Report a row of figures, and add it to the table and to TensorBoard's scalars."""
        row = {k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()}
        self.report("  ".join(f"{name}={value}" for name, value in row.items()))
        path = self.output / "log.csv"
        self.output.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        rows.append(row)
        names = list(dict.fromkeys(name for r in rows for name in r))
        with whole_file(path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        events = self._tensorboard()
        if events is not None:
            for name, value in row.items():
                if not isinstance(value, str):
                    events.add_scalar(name, value, step)
            events.flush()

    def draw(self, step: int, sheet: Tensor) -> None:
        """Save a sheet of samples, uint8 [H, W, 3]."""
        from PIL import Image

        folder = self.output / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.ascontiguousarray(sheet.numpy()))
        with whole_file(folder / f"{step:06d}.jpg") as aside:
            picture.save(aside, format="JPEG", quality=92)
        events = self._tensorboard()
        if events is not None:
            events.add_image("samples", sheet, step, dataformats="HWC")
            events.flush()

    def _tensorboard(self) -> Any:
        if self._events is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self.report("no TensorBoard events: `pip install tensorboard` for them")
                self._events = False
            else:
                self._events = SummaryWriter(str(self.output / "tensorboard"))
        return self._events or None


def sample_sheet(
    originals: Tensor,
    rebuilt: Tensor,
    sent: Tensor,
    decoded: Tensor,
    scores: tuple[Tensor, Tensor],
    classes: ClassSet,
    columns: int = 4,
) -> Tensor:
    """Draw a sheet uint8 [6 * H, columns * W, 3]: rows as in `output/samples`; relevance of the
    picture's tokens, then of the map's, each from its lowest (black) to its highest (white).

    originals, rebuilt: float32 [N, 3, H, W]. sent, decoded: int64 [N, H, W]. scores: [N, h, w].
    """
    height, width = originals.shape[-2:]
    palette = torch.from_numpy(classes.colours())
    rows = [originals, rebuilt]
    rows += [palette[m.cpu()].permute(0, 3, 1, 2) / 255 for m in (sent, decoded)]
    for of_stream in scores:
        rows_of_tokens = of_stream.shape[-2]
        grey = F.interpolate(
            of_stream.unsqueeze(1).float(), scale_factor=-(-height // rows_of_tokens)
        )
        grey = grey[..., :height, :width]
        low, high = grey.amin((1, 2, 3), True), grey.amax((1, 2, 3), True)
        rows.append(((grey - low) / (high - low + 1e-9)).expand(-1, 3, -1, -1))
    sheet = torch.cat([torch.cat(list(row.cpu()[:columns]), dim=-1) for row in rows], dim=-2)
    return (sheet.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
