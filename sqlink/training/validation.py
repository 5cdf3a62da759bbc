"""What a network in training makes of pictures that it does not learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sqlink.data.classes import NO_LABEL
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN, Analysis
from sqlink.training.augmentation import ResidentPictures


@dataclass(frozen=True)
class Validated:
    """Held-out pictures before and after the codec.

    images, rebuilt: float32 [N, 3, H, W]. sent, maps: int64 [N, H, W], the map sent and the map
    decoded.
    """

    images: Tensor
    sent: Tensor
    rebuilt: Tensor
    maps: Tensor
    found: Analysis

    def figures(self) -> dict[str, float]:
        """Return PSNR in dB, the mean over pictures, and the share of the map's pixels kept."""
        known = self.sent != NO_LABEL
        error = (self.rebuilt - self.images).square().mean((1, 2, 3))
        return {
            "val_psnr_db": float((-10 * error.log10()).mean()),
            "val_map_accuracy": float((self.maps == self.sent)[known].float().mean()),
        }


@torch.inference_mode()
def validate(
    network: SQGAN, held_out: ResidentPictures, fraction: float = 0.4, limit: int = 8
) -> Validated:
    """Pass up to `limit` pictures, spread over the set, through a network without loss.

    fraction: of the tokens of each stream that are kept.
    """
    device = held_out.images.device
    chosen = torch.linspace(0, len(held_out) - 1, limit).long().to(device)
    images = held_out.images[chosen].float() / 255
    sent = held_out.sent_maps[chosen].long()
    height, width = sent.shape[-2:]
    found = network.analyse(images, sent)
    share = torch.full((len(chosen),), fraction, device=device)
    masked = [
        torch.where(keep_most_relevant(scores, share), indices, -1)
        for indices, scores in (
            (found.image_indices, found.image_scores),
            (found.map_indices, found.map_scores),
        )
    ]
    rebuilt, maps = network.synthesise(masked[0], masked[1], height, width)
    return Validated(images, sent, rebuilt, maps, found)
