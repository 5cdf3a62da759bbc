"""The quality of a picture received, as a line of numbers and as a picture.

original, received, labels ── QualityMeter.line ──> PSNR, LPIPS if available, mIoU or consistency
                           ── side_by_side ──> NAME.side.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sqlink.metrics.lpips import Lpips
    from sqlink.segmentation.base import Segmenter

GAP = 8
"""White space between two pictures, in pixels."""


class QualityMeter:
    """A meter for one picture after another; networks are loaded with the first picture."""

    def seen(self, image: Tensor) -> Tensor:
        """Return the judge's map, int64 [H, W], of a picture float32 [3, H, W]."""
        return self._judge.segment(image[None])[0]

    def line(
        self,
        image: Tensor,
        original: Tensor,
        seen: Tensor,
        seen_before: Tensor,
        labels: Tensor | None,
    ) -> str:
        """Return PSNR, LPIPS if its weights are found, and mIoU as text.

        image, original: float32 [3, H, W]. seen, seen_before: int64 [H, W], the judge's maps of
        both. labels: the true map, int64 [H, W], 255 for "no label"; without it the line has the
        `consistency`, the mIoU between both maps.
        """
        from sqlink.metrics.psnr import psnr
        from sqlink.metrics.semantic import confusion, miou

        said = [f"PSNR {float(psnr(image[None], original[None])[0]):.2f} dB"]
        lpips = self._lpips
        if lpips is not None and lpips.unavailable(*image.shape[1:]) is None:
            said.append(f"LPIPS {float(lpips(image[None], original[None])[0]):.4f}")
        truth = seen_before if labels is None else labels
        found = float(miou(confusion(seen[None], truth[None])[0]))
        if labels is None:
            said.append(f"consistency {found:.1%}")
        else:
            clean = float(miou(confusion(seen_before[None], truth[None])[0]))
            said.append(f"mIoU {found:.1%} (original {clean:.1%})")
        return ", ".join(said)

    @cached_property
    def _judge(self) -> Segmenter:
        from sqlink.segmentation import load_segmenter

        return load_segmenter("judge")

    @cached_property
    def _lpips(self) -> Lpips | None:
        """LPIPS; None, with a line on standard error, if its weights are missing."""
        from sqlink.errors import WeightsError
        from sqlink.metrics.lpips import Lpips

        try:
            return Lpips()
        except WeightsError as error:
            print(f"note: LPIPS is not measured: {error}", file=sys.stderr)
            return None


def side_by_side(path: Path, pictures: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
    """Write pictures float32 [3, H, W] in a row, and maps int64 [H, W] in the row below."""
    from PIL import Image

    from sqlink.data.classes import CAMVID
    from sqlink.data.pictures import write_aside

    height, width = pictures[0].shape[1:]
    across = max(len(pictures), len(maps))
    sheet = Image.new("RGB", (across * (width + GAP) - GAP, 2 * (height + GAP) - GAP), "white")
    for n, picture in enumerate(pictures):
        pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        sheet.paste(Image.fromarray(pixels), (n * (width + GAP), 0))
    for n, labels in enumerate(maps):
        colours = CAMVID.colourise(labels.cpu().numpy())
        sheet.paste(Image.fromarray(colours), (n * (width + GAP), height + GAP))
    write_aside(sheet, path)
