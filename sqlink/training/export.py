"""Weights as a run leaves them: the average of the network, the coder's tables, the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from sqlink.model.sqgan import SQGAN
from sqlink.training.augmentation import ResidentPictures
from sqlink.training.context_tables import STEPS_OF_FIT, fit_tables
from sqlink.weights.manifest import save


@torch.inference_mode()
def export_weights(
    path: Path,
    network: SQGAN,
    sources: Sequence[ResidentPictures],
    record: Mapping[str, str],
    pictures_a_source: int | None = None,
) -> None:
    """Write `network` with tables fitted to the tokens of its training pictures.

    record: metadata of the file. pictures_a_source: fit quickly to that many pictures spread over
    each source; None: to all of them.
    """
    found = []
    for source in sources:
        count = min(pictures_a_source or len(source), len(source))
        chosen = torch.linspace(0, len(source) - 1, count).long().to(source.images.device)
        for part in chosen.split(8):
            images = source.images[part].float() / 255
            found.append(network.analyse(images, source.sent_maps[part].long()))
    codebooks = (network.map_quantizer.codebook, network.image_quantizer.codebook)
    pictures = sum(len(part.map_indices) for part in found)
    steps = min(2 * pictures, 50 if pictures_a_source else STEPS_OF_FIT)
    tensors = network.weights() | fit_tables(found, codebooks, steps).to_tensors()
    save(path, tensors, {"kind": "sqgan", "model": network.config.to_json(), **record})
