"""Export refinements, and assemble weights of a base, a refinement and the coder's tables.

refinement.safetensors ─┐
the base's weights ─────┴─ tokens of pictures ─ tables fitted ─ weights for the codec
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from channels.atomic_write import whole_file
from sqlink.bitstream.refinement_table import ZERO, units_of
from sqlink.bitstream.tables import REFINEMENTS, Tables
from sqlink.data.base import open_dataset
from sqlink.model.refinement import Coefficients, Refinement, RefinementConfig
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN, Analysis
from sqlink.training.config import Source
from sqlink.training.refinement_tables import PictureTokens, fit_refinement_tables
from sqlink.weights.manifest import Loaded

_PREFIX = "refinement."
"""Prefix of a refinement's tensors in whole weights."""
FEW_OF_MAP = 0.02
"""Share of the map's tokens that `faithful` sends."""
_ROWS_APART = 2
"""Distance of the tables' rows that one picture gives tokens for."""


def export(network: Refinement, path: Path) -> None:
    """Write a refinement in half precision."""
    from safetensors.torch import save_file

    tensors = {k: v.half().contiguous() for k, v in network.state_dict().items()}
    with whole_file(path) as aside:
        save_file(tensors, aside, {"kind": "refinement", "refinement": network.config.to_json()})


def load_refinement(path: Path) -> dict[str, Tensor]:
    """Load the tensors that `export` wrote, or the refinement's of whole weights, float32."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    own = {k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)}
    return {k: v.float() for k, v in (own or tensors).items()}


def assemble(
    base: str,
    refinement: Path,
    sources: Sequence[Source],
    output: Path,
    pictures: int = 120,
    steps: int | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Write the base's weights with a trained refinement and tables that are fitted to its tokens.

    sources: of the pictures that tables are fitted to, `pictures` in all, by the sources' shares.
    """
    from sqlink.model.sqgan import load_model
    from sqlink.segmentation import load_segmenter
    from sqlink.weights.manifest import load, save

    loaded = without_refinement(load(base, "sqgan"))
    model, tx = load_model(loaded, base), load_segmenter("tx")
    with safe_open(refinement, framework="pt") as file:
        config = RefinementConfig.from_json((file.metadata() or {})["refinement"])
    model.refine(config).load_state_dict(load_refinement(refinement))
    model.eval().requires_grad_(False)
    total = sum(source.share for source in sources)
    found: list[PictureTokens] = []
    seen = 0
    for source in sources:
        data = open_dataset(source.name, **source.options)
        count = min(len(data), max(1, round(pictures * source.share / total)))
        for number in torch.linspace(0, len(data) - 1, count).long().tolist():
            image = data[number].image[None]
            analysis = model.analyse(image, tx.segment(image))
            # A transmitter that wants fidelity sends hardly any of the map: every second picture.
            few = keep_most_relevant(analysis.map_scores, torch.tensor([FEW_OF_MAP]))
            of_map = torch.where(few | (seen // _ROWS_APART % 2 == 0), analysis.map_indices, -1)
            assert analysis.finer is not None
            coefficients = model.coefficients(analysis.finer, analysis.image_indices, of_map)
            rows = range(0, len(config.steps), config.steps_per_row)
            for row in range(seen % _ROWS_APART, len(rows), _ROWS_APART):
                found.append(picture_tokens(model, analysis, coefficients, rows[row], row))
            seen += 1
        report(f"{len(found)} sets of tokens")
    tables = Tables.from_tensors(loaded.tensors)
    codes = model.config.map_codes, model.config.image_codes
    fitted = fit_refinement_tables(found, (config.values8, config.values4), codes, steps, report)
    tables = replace(tables, refinements=fitted)
    own = {k: v for k, v in loaded.tensors.items() if not k.startswith("tables.")}
    own |= {f"{_PREFIX}{k}": v for k, v in load_refinement(refinement).items()}
    facts = {k: v for k, v in loaded.metadata.items() if not k.startswith("rate_")}
    save(output, own | tables.to_tensors(), facts | {"refinement": config.to_json()})
    return output


def picture_tokens(
    model: SQGAN, analysis: Analysis, coefficients: Coefficients, step: int, row: int
) -> PictureTokens:
    """Return one picture's tokens at a quantiser's step, for a row of the tables.

    A unit's worth is its gain in LPIPS.
    """
    layers = model.layers(coefficients, step)
    first, second = (units_of(layer.digits[0].cpu().numpy() + np.int16(ZERO)) for layer in layers)
    gains8, gains4 = (F.avg_pool2d(layer.gains[:, 1:2], 2)[0, 0].cpu().numpy() for layer in layers)
    return PictureTokens(
        row,
        analysis.map_indices[0].cpu().numpy(),
        analysis.image_indices[0].cpu().numpy(),
        (first, second),
        (gains8, gains4),
    )


def without_refinement(loaded: Loaded) -> Loaded:
    """Return the base alone: the refinement to be trained stands apart."""
    own = _PREFIX, *(f"tables.{stream}." for stream in REFINEMENTS)
    tensors = {k: v for k, v in loaded.tensors.items() if not k.startswith(own)}
    facts = {k: v for k, v in loaded.metadata.items() if k != "refinement"}
    return replace(loaded, tensors=tensors, metadata=facts)
