"""Procedural street scenes with exact maps: endless pictures that need no download.

A dash camera's view of an English street, rendered from a seed in NumPy: perspective road and
markings, façades, trees, cars, people, weather and the camera's tone curve; or a street `anywhere`,
which adds nights, rain, other proportions and traffic on the right. Picture and map come from one
canvas and agree to the pixel. Two conventions follow CamVid's annotators: the crown of a bare tree
is labelled as tree where its twigs are close together, and gaps between rails or spokes are
labelled as fence or bicyclist.

The same seed gives the same bytes on every machine: pixels are computed with IEEE basic arithmetic
and square roots only, and all random numbers are Philox streams keyed by seed and purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from channels.registry import nearest
from sqlink.data.base import Sample, map_tensor, picture_tensor, register
from sqlink.data.classes import CAMVID
from sqlink.data.streets.scene import render
from sqlink.errors import ConfigError

__all__ = ["Streets", "render"]

SMALLEST, LARGEST = 16, 4096
COUNTRIES = ("england", "anywhere")


@register("streets")
class Streets:
    """Data set of `count` scenes with seeds `seed`, `seed + 1`, ...; each scene is its own block.

    height, width: 16 to 4096. country: `england`, or `anywhere`, which adds nights, rain, other
    proportions and traffic on the right. Raises ConfigError for anything else.

    >>> Streets(seed=3, count=1, height=24, width=32)[0].image.shape
    torch.Size([3, 24, 32])
    """

    classes = CAMVID

    def __init__(
        self,
        seed: int = 0,
        count: int = 100,
        height: int = 360,
        width: int = 480,
        country: str = "england",
    ) -> None:
        for name, value, low, high in (
            ("seed", seed, 0, (1 << 63) - 1),
            ("count", count, 1, 1 << 31),
            ("height", height, SMALLEST, LARGEST),
            ("width", width, SMALLEST, LARGEST),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(
                    f"streets: {name}={value!r} is not a whole number from {low} to {high}"
                )
        if country not in COUNTRIES:
            raise ConfigError(
                f"streets: country={country!r}: {nearest(str(country), list(COUNTRIES))}"
            )
        self.seed, self.count, self.height, self.width = seed, count, height, width
        self.country = country

    @property
    def names(self) -> Sequence[str]:
        return [f"street-{self.seed + index}" for index in range(self.count)]

    @property
    def blocks(self) -> Sequence[str]:
        return self.names

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"streets has samples 0 to {self.count - 1}, not {index}")
        pixels, classes = render(self.seed + index, self.height, self.width, self.country)
        name = f"street-{self.seed + index}"
        return Sample(name, picture_tensor(pixels), map_tensor(classes), name)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.count))
