"""The integer tables of both streams, as the weights bring them; see `contexts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sqlink.bitstream.context_model import StreamTable

STREAMS = ("map", "image")
"""Names of the two streams, in the order in which they are sent."""


@dataclass(frozen=True)
class Tables:
    """Both streams' tables."""

    map: StreamTable
    image: StreamTable

    def of(self, stream: int) -> StreamTable:
        """The table of stream 0 (map) or 1 (image)."""
        return self.image if stream else self.map

    def to_tensors(self) -> dict[str, Tensor]:
        """Integer tensors for the weights file: `tables.map.*` and `tables.image.*`."""
        return {
            name: tensor
            for number, stream in enumerate(STREAMS)
            for name, tensor in self.of(number).to_tensors(f"tables.{stream}").items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Tables:
        """Read them from a weights file. Raises WeightsError if they are missing or wrong."""
        map_ = StreamTable.from_tensors(tensors, "tables.map", None)
        return cls(map_, StreamTable.from_tensors(tensors, "tables.image", map_.size))

    @classmethod
    def uniform(cls, map_codes: int, image_codes: int) -> Tables:
        """Tables for an untrained model: every index alike."""
        return cls(StreamTable.even(map_codes), StreamTable.even(image_codes, map_codes))
