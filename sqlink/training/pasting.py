"""Relevant-class pasting: more of the rare classes in training pictures, never in measured ones.

    resident pictures ── connected components of the task's classes ──> bank of boxes, once
    a crop ── components of other pictures, at their height in the scene, where no relevant class
              is ──> the crop, its map and the map that is sent, all three alike

Source: arXiv 2502.09520, "semantic relevant classes augmentation"; connected components by SciPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from torch import Tensor

WINDOW = (144, 80)
"""Height and width of the largest component that is pasted, pixels of the crop: poles are tall."""

LEAST_PIXELS = 32
"""Smaller components are specks and crumbs of labels."""

CANDIDATES = 3
"""Components that are tried in each crop."""

LIGHT = 0.08
"""Most that the mean light of two pictures may differ by for one to lend to the other: people at
dusk are silhouettes, which nobody sees by day."""


@dataclass(frozen=True)
class ComponentBank:
    """Where the components of the pasted classes are in resident pictures.

    pictures, classes: int64 [K], the picture and class of each component. boxes: int64 [K, 4], its
    top, left, height and width, pixels. odds: float32 [K], how often it is drawn: all classes
    alike, however rare, and all components of a class. light: float32 [M], the mean light of each
    picture, 0 to 1. relevant: bool [256], classes that are never pasted over.
    """

    pictures: Tensor
    classes: Tensor
    boxes: Tensor
    odds: Tensor
    light: Tensor
    relevant: Tensor

    def to(self, device: torch.device) -> ComponentBank:
        return ComponentBank(
            self.pictures.to(device),
            self.classes.to(device),
            self.boxes.to(device),
            self.odds.to(device),
            self.light.to(device),
            self.relevant.to(device),
        )

    def __len__(self) -> int:
        return len(self.pictures)


def component_bank(images: Tensor, maps: Tensor, classes: Sequence[int]) -> ComponentBank | None:
    """Collect the components of `classes` in resident pictures, on their device; None without any.

    images: uint8 [M, 3, H, W]; maps: uint8 [M, H, W]. Left out are specks, what would not fit the
    window, and what the picture's edge cuts off.

    >>> maps = torch.zeros(2, 32, 32, dtype=torch.uint8)
    >>> maps[1, 4:12, 6:10] = 6
    >>> component_bank(maps.unsqueeze(1).expand(-1, 3, -1, -1), maps, [6, 9]).boxes.tolist()
    [[4, 6, 8, 4]]
    """
    found: list[tuple[int, int, int, int, int, int]] = []
    for number, segmentation in enumerate(maps.cpu().numpy()):
        present = np.bincount(segmentation.ravel(), minlength=256)
        for one in classes:
            if present[one] >= LEAST_PIXELS:
                found += [(number, one, *box) for box in _boxes(segmentation == one)]
    if not found:
        return None
    table = torch.tensor(found)
    counts = torch.bincount(table[:, 1], minlength=256)
    relevant = torch.zeros(256, dtype=torch.bool)
    relevant[list(classes)] = True
    return ComponentBank(
        table[:, 0],
        table[:, 1],
        table[:, 2:],
        1 / counts[table[:, 1]].float(),
        images.flatten(1).mean(1, dtype=torch.float32).cpu() / 255,
        relevant,
    ).to(maps.device)


def _boxes(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Return top, left, height, width of the components of a mask that can be pasted."""
    components, count = label(mask, np.ones((3, 3)))
    pixels = np.bincount(components.ravel(), minlength=count + 1)
    kept = []
    for number, (rows, columns) in enumerate(find_objects(components), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        inside = (
            rows.start > 0
            and columns.start > 0
            and rows.stop < mask.shape[0]
            and columns.stop < mask.shape[1]
        )
        fits = height <= WINDOW[0] and width <= WINDOW[1]
        if inside and fits and pixels[number] >= LEAST_PIXELS:
            kept.append((rows.start, columns.start, height, width))
    return kept


def paste_components(
    images: Tensor,
    labels: Tensor,
    inputs: Tensor,
    bank: ComponentBank,
    source: tuple[Tensor, Tensor],
    chosen: Tensor,
    frame: tuple[Tensor, Tensor],
    share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Paste components of other pictures into crops; the arguments stay unchanged.

    images: float32 [B, 3, h, w]. labels, inputs: int64 [B, h, w], what crops show and what is sent.
    source: the resident pictures uint8 [M, 3, H, W] and their maps uint8 [M, H, W]. chosen: int64
    [B], the picture that each crop is of. frame: (zoom, top), float [B] each, pixels of the crop
    for a pixel of the picture, and the picture's row at the crop's upper edge. share: probability
    that anything is pasted into a crop.

    A component keeps its height in the scene and the crop's zoom, so that a sign far off is not
    pasted before the bonnet, and comes from a picture of like light; left and right are drawn, as
    is a mirroring. It is left out where it would touch a relevant class, or lie by more than half
    out of the crop.
    """
    batch, _, height, width = images.shape
    device = images.device
    rows, columns = min(WINDOW[0], height), min(WINDOW[1], width)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, device=device)

    zoom, top = (each.unsqueeze(1) for each in frame)
    heights, widths = bank.boxes[:, 2] * zoom, bank.boxes[:, 3] * zoom  # [B, K]
    middles = (bank.boxes[:, 0] - top) * zoom + heights / 2
    usable = (
        (bank.pictures != chosen.unsqueeze(1))
        & ((bank.light[bank.pictures] - bank.light[chosen].unsqueeze(1)).abs() <= LIGHT)
        & (heights <= rows)
        & (widths <= columns)
        & (middles >= 0)
        & (middles <= height)
    )
    # Where nothing is usable something must still be drawn: it is not pasted.
    odds = bank.odds * usable + 1e-12
    drawn = torch.multinomial(odds, CANDIDATES, replacement=True, generator=generator)
    wanted = usable.gather(1, drawn) & (uniform(batch, 1) < share)
    wide = widths.gather(1, drawn)
    left = (uniform(batch, CANDIDATES) * (width - wide).clamp(min=0)).round().long().flatten()
    picks, wanted = drawn.flatten(), wanted.flatten()  # [P], P = B * CANDIDATES
    zoom, top = (each.repeat_interleave(CANDIDATES) for each in frame)
    upper = ((bank.boxes[picks, 0] - top) * zoom).round().long()
    mirrored = uniform(len(picks)) < 0.5

    patches, masks = _cut(source, bank, picks, zoom, mirrored, (rows, columns))
    y = upper.unsqueeze(1) + torch.arange(rows, device=device)
    x = left.unsqueeze(1) + torch.arange(columns, device=device)
    inside = ((y >= 0) & (y < height)).unsqueeze(2) & (x < width).unsqueeze(1)
    whole = masks.sum((1, 2))
    masks &= inside
    masks &= (wanted & (2 * masks.sum((1, 2)) > whole)).view(-1, 1, 1)
    # A window no larger than the crop, wrapped around it, meets no place twice.
    places = (y % height * width).unsqueeze(2) + (x % width).unsqueeze(1)
    places = places.view(batch, CANDIDATES, -1)
    masks = masks.view(batch, CANDIDATES, -1)
    patches = patches.view(batch, CANDIDATES, 3, -1)
    ids = bank.classes[picks].view(batch, CANDIDATES, 1)
    images, labels, inputs = (each.flatten(-2).clone() for each in (images, labels, inputs))
    for candidate in range(CANDIDATES):
        where, pasted = places[:, candidate], masks[:, candidate]
        shown = labels.gather(1, where)
        pasted = pasted & ~(pasted & bank.relevant[shown]).any(1, keepdim=True)
        each = where.unsqueeze(1).expand(-1, 3, -1)
        colours = torch.where(pasted.unsqueeze(1), patches[:, candidate], images.gather(2, each))
        images.scatter_(2, each, colours)
        labels.scatter_(1, where, torch.where(pasted, ids[:, candidate], shown))
        sent = inputs.gather(1, where)
        inputs.scatter_(1, where, torch.where(pasted, ids[:, candidate], sent))
    size = (height, width)
    return images.unflatten(2, size), labels.unflatten(1, size), inputs.unflatten(1, size)


def _cut(
    source: tuple[Tensor, Tensor],
    bank: ComponentBank,
    picks: Tensor,
    zoom: Tensor,
    mirrored: Tensor,
    window: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Cut the window of each picked component at its zoom, float32 [P, 3, rows, columns] in [0, 1],
    and which of its pixels belong to the component, bool [P, rows, columns].
    """
    (pictures, maps), device, (rows, columns) = source, picks.device, window
    box, picture = bank.boxes[picks], bank.pictures[picks]
    tall, wide = (box[:, side].view(-1, 1) for side in (2, 3))
    scale = zoom.view(-1, 1)
    y = (torch.arange(rows, device=device) + 0.5) / scale - 0.5  # [P, rows], in the box
    x = (torch.arange(columns, device=device) + 0.5) / scale - 0.5
    x = torch.where(mirrored.view(-1, 1), wide - 1 - x, x)
    within = (y < tall - 0.5).unsqueeze(2) & ((x > -0.5) & (x < wide - 0.5)).unsqueeze(1)
    lines = box[:, 0].view(-1, 1) + torch.arange(min(WINDOW[0], maps.shape[1]), device=device)
    marks = box[:, 1].view(-1, 1) + torch.arange(min(WINDOW[1], maps.shape[2]), device=device)
    lines = lines.clamp(max=maps.shape[1] - 1)
    marks = marks.clamp(max=maps.shape[2] - 1)
    flat = (lines * maps.shape[2]).unsqueeze(2) + marks.unsqueeze(1)  # [P, rows, columns]
    flat += (picture * maps[0].numel()).view(-1, 1, 1)
    colour = flat + (2 * picture * maps[0].numel()).view(-1, 1, 1)
    steps = torch.arange(3, device=device).view(1, 3, 1, 1) * maps[0].numel()
    drawn = torch.cat(
        (
            pictures.view(-1)[colour.unsqueeze(1) + steps],
            (maps.view(-1)[flat] == bank.classes[picks].view(-1, 1, 1)).unsqueeze(1) * 255,
        ),
        1,
    )
    high, broad = flat.shape[1:]
    grid = torch.stack(
        torch.broadcast_tensors(
            ((2 * x + 1) / broad - 1).unsqueeze(1), ((2 * y + 1) / high - 1).unsqueeze(2)
        ),
        3,
    )
    drawn = F.grid_sample(drawn.float() / 255, grid, padding_mode="border", align_corners=False)
    return drawn[:, :3], (drawn[:, 3] > 0.5) & within
