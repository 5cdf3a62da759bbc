"""The integer tables of all streams, as the weights bring them; see `context_model` and
`refinement_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sqlink.bitstream.context_model import StreamTable
from sqlink.bitstream.refinement_table import RefinementTable

BASE = ("map", "image")
REFINEMENTS = ("refine8", "refine4")
STREAMS = BASE + REFINEMENTS
"""Names of the streams, in the order in which they are sent: the map's and the picture's base
tokens, and the units of the refinement at 1/8 and at 1/4.
"""


@dataclass(frozen=True)
class Tables:
    """The tables of all streams. refinements: none, or those of both layers."""

    map: StreamTable
    image: StreamTable
    refinements: tuple[RefinementTable, ...] = ()

    @property
    def streams(self) -> int:
        """Number of streams: 2, or 4."""
        return len(BASE) + len(self.refinements)

    def of(self, stream: int) -> StreamTable:
        """Return the table of stream 0 (map) or 1 (image)."""
        return self.image if stream else self.map

    def refining(self, stream: int) -> RefinementTable:
        """Return the table of stream 2 (at 1/8) or 3 (at 1/4)."""
        return self.refinements[stream - len(BASE)]

    def to_tensors(self) -> dict[str, Tensor]:
        """Return integer tensors for the weights file: `tables.map.*` and so on."""
        tensors = self.map.to_tensors("tables.map") | self.image.to_tensors("tables.image")
        for stream, table in zip(REFINEMENTS, self.refinements, strict=False):
            tensors |= table.to_tensors(f"tables.{stream}")
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Tables:
        """Read them from a weights file. Raises WeightsError if they are missing or wrong."""
        map_ = StreamTable.from_tensors(tensors, "tables.map", None)
        image = StreamTable.from_tensors(tensors, "tables.image", map_.size)
        refinements: tuple[RefinementTable, ...] = ()
        if any(name.startswith(f"tables.{REFINEMENTS[0]}.") for name in tensors):
            refinements = tuple(
                RefinementTable.from_tensors(tensors, f"tables.{name}") for name in REFINEMENTS
            )
        return cls(map_, image, refinements)

    @classmethod
    def uniform(cls, map_codes: int, image_codes: int) -> Tables:
        """Return tables for an untrained model, with equally likely indices."""
        return cls(StreamTable.even(map_codes), StreamTable.even(image_codes, map_codes))
