"""Training pictures that stay on the device, and the crops drawn from them in batches.

All pictures lie in one uint8 tensor; a batch is one gather and one affine resampling, drawn from a
generator seeded by the step, so that a run resumed at a step sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.training.pasting import ComponentBank, paste_components


@dataclass(frozen=True)
class ResidentPictures:
    """Pictures of one size with their maps.

    images: uint8 [M, 3, H, W]. maps: uint8 [M, H, W], what the pictures show (255 no label).
    sent_maps: uint8 [M, H, W], the map a transmitter would send (a segmenter's, or `maps` again).
    """

    images: Tensor
    maps: Tensor
    sent_maps: Tensor

    def to(self, device: torch.device) -> ResidentPictures:
        return ResidentPictures(
            self.images.to(device), self.maps.to(device), self.sent_maps.to(device)
        )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn: size (height, width), range of zoom, and jitter of light."""

    size: tuple[int, int]
    zoom: tuple[float, float] = (0.75, 1.5)
    brightness: float = 0.1
    contrast: float = 0.15
    sent_share: float = 0.5
    """Share of crops whose input map is the transmitter's rather than the labels."""
    paste_share: float = 0.5
    """Share of crops into which components of rare classes are pasted, where a bank is given."""


def step_generator(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """Make a generator for each step and rank, so that resuming changes nothing."""
    mixed = (
        seed * 0x9E3779B97F4A7C15 + step * 0xC2B2AE3D27D4EB4F + rank * 0x165667B19E3779F9
    ) % 2**63
    return torch.Generator(device=device).manual_seed(mixed)


def draw_crops(
    pictures: ResidentPictures,
    chosen: Tensor,
    settings: CropSettings,
    generator: torch.Generator,
    bank: ComponentBank | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw random zoomed, shifted, mirrored and relit crops of the pictures `chosen` (int64 [B]).

    bank: components of the same pictures to be pasted in; see `sqlink.training.pasting`.

    Returns images float32 [B, 3, h, w] in [0, 1], maps int64 [B, h, w] and input maps int64 [B, h,
    w].
    """
    device = pictures.images.device
    batch, (height, width) = len(chosen), settings.size
    full_height, full_width = pictures.maps.shape[-2:]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator, device=device)

    smallest = max(height / full_height, width / full_width)
    zoom = uniform(*settings.zoom).clamp(min=smallest)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    half_y, half_x = height / full_height / zoom, width / full_width / zoom
    centre_y = (1 - half_y) * uniform(-1, 1)
    centre_x = (1 - half_x) * uniform(-1, 1)
    zero = torch.zeros_like(zoom)
    theta = torch.stack(
        (
            torch.stack((mirror * half_x, zero, centre_x), 1),
            torch.stack((zero, half_y, centre_y), 1),
        ),
        1,
    )
    grid = F.affine_grid(theta, [batch, 3, height, width], align_corners=False)
    images = pictures.images[chosen].float() / 255
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    from_segmenter = uniform(0, 1) < settings.sent_share
    labels = pictures.maps[chosen]
    inputs = torch.where(from_segmenter.view(-1, 1, 1), pictures.sent_maps[chosen], labels)
    both = torch.stack((labels, inputs), 1).float()
    both = F.grid_sample(
        both, grid, mode="nearest", padding_mode="border", align_corners=False
    ).long()
    labels, inputs = both.unbind(1)
    if bank is not None:
        upper = (centre_y - half_y + 1) / 2 * full_height
        images, labels, inputs = paste_components(
            images,
            labels,
            inputs,
            bank,
            (pictures.images, pictures.maps),
            chosen,
            (zoom, upper),
            settings.paste_share,
            generator,
        )
    gain = 1 + uniform(-settings.contrast, settings.contrast).view(-1, 1, 1, 1)
    lift = uniform(-settings.brightness, settings.brightness).view(-1, 1, 1, 1)
    images = ((images - 0.5) * gain + 0.5 + lift).clamp(0, 1)
    return images, labels, inputs


PHASES = 16
"""Pixels by which a loss's window is shifted at random: see `draw_window`."""


def draw_window(
    size: tuple[int, int], generator: torch.Generator, halved: bool = False
) -> tuple[slice, slice, slice, slice]:
    """Draw the window in N x C x H x W pictures that losses use, `PHASES` smaller, at a random
    shift.

    Crops lie on the grid of tokens, and so would the strided layers of LPIPS, of a segmenter and of
    a discriminator: a decoder soon draws hatching in whatever phase of the grid they overlook. From
    a window shifted at random they overlook none. size: height and width, pixels; halved: half as
    wide a window, for what need not see everything. A side is not made smaller than 32.
    """
    height, width = (max(side - PHASES, min(side, 32)) for side in size)
    if halved:
        width = max(width // 2 // PHASES * PHASES, min(width, 32))
    top, left = (
        int(torch.randint(full - part + 1, (1,), generator=generator, device=generator.device))
        for full, part in ((size[0], height), (size[1], width))
    )
    return slice(None), slice(None), slice(top, top + height), slice(left, left + width)


FRACTION_MEDIAN, FRACTION_SPREAD = 0.3, 0.8


def draw_fractions(count: int, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw float32 [count]: shares of tokens that are sent, log-normal and clipped to the limits.

    As in arXiv 2502.09520, but twice as wide, so that the lowest and the highest are met too.
    """
    normal = torch.randn(count, generator=generator, device=generator.device)
    return (FRACTION_MEDIAN * (FRACTION_SPREAD * normal).exp()).clamp(*limits)
