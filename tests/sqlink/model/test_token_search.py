"""The search for tokens: it makes the distance smaller, and moves nothing that is not sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.errors import DataError
from sqlink.metrics.lpips import LPIPS
from sqlink.metrics.trunks import squeezenet_features
from sqlink.model.refinement import BaseFeatures, BlockCosines, Digits, quantised
from sqlink.model.token_search import PerceptualDistance, TokenSearch

COSINES8, COSINES4 = BlockCosines(5, 16), BlockCosines(3, 8)
STEP = 0.2
NONE4 = torch.zeros(1, 3, 16, 16)


class Squared:
    """The squared error."""

    def to(self, originals: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda shown: (shown - originals).square().mean((1, 2, 3)).sum()


def picture() -> Tensor:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return 0.2 + 0.6 * F.interpolate(noise, (64, 64), mode="bilinear")


def wanted() -> Tensor:
    """What the search is to come near to: the picture with less contrast."""
    return 0.2 + 0.6 * picture()


class Drawer:
    """A receiver whose base shows a hundredth of a vector as the grey of a place of 16x16 pixels;
    codes are whole numbers.
    """

    def __init__(self, image: Tensor, came: tuple[Tensor, Tensor]) -> None:
        with torch.inference_mode(False):  # gradients go through it
            self.image = image.clone()
            self.came = came[0].clone(), came[1].clone()

    def nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        codes = vectors.round().clamp(0, 100)
        return codes[..., 0].long(), codes

    def base(self, vectors: Tensor) -> BaseFeatures:
        grey = F.interpolate(vectors.permute(0, 3, 1, 2) / 100, scale_factor=16.0)
        none = torch.zeros(1, 1, 8, 8)
        return none, none, grey.expand(1, 3, -1, -1)

    def missing(self, picture: Tensor) -> Tensor:
        return COSINES8.analysed(self.image - picture) / STEP

    def decoded(self, base: BaseFeatures, digits8: Tensor, digits4: Tensor) -> Tensor:
        first, second = (
            digits * came.unsqueeze(1)
            for digits, came in zip((digits8, digits4), self.came, strict=True)
        )
        return base[2] + COSINES8.drawn(STEP * first) + COSINES4.drawn(STEP * second)

    def rounded(self, values: Tensor) -> Tensor:
        return quantised(values, torch.ones(1), 0.33)


@dataclass(frozen=True)
class Result:
    """Tokens before and after the search, and the distances of their pictures."""

    before: Digits
    indices: Tensor
    digits8: Tensor
    digits4: Tensor
    distances: tuple[float, float]


def searched(
    came: tuple[Tensor, Tensor], passes: int, price: float, base_rate: float = 0.0
) -> Result:
    image, vectors = picture(), torch.full((1, 4, 4, 1), 50.0)
    drawer = Drawer(image, came)
    z8 = drawer.missing(drawer.base(vectors)[2])
    rest = image - drawer.decoded(drawer.base(vectors), drawer.rounded(z8), NONE4)
    z4 = COSINES4.analysed(rest) / STEP
    gains = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16)
    before = Digits(drawer.rounded(z8), drawer.rounded(z4), *gains, z8, z4)
    search = TokenSearch(Squared(), passes, price, base_rate=base_rate)
    found = search.tokens(drawer, wanted(), vectors, before)
    digits8, digits4 = drawer.rounded(found.rounded8), drawer.rounded(found.rounded4)
    codes = found.indices.unsqueeze(-1).float()
    far, near = (
        float((drawer.decoded(drawer.base(shown), first, second) - wanted()).square().mean())
        for shown, first, second in (
            (vectors, before.digits8, before.digits4),
            (codes, digits8, digits4),
        )
    )
    return Result(before, found.indices, digits8, digits4, (far, near))


def everywhere() -> tuple[Tensor, Tensor]:
    return torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1, 16, 16, dtype=torch.bool)


def nowhere() -> tuple[Tensor, Tensor]:
    first, second = everywhere()
    return ~first, ~second


def test_digits_come_nearer_to_what_is_wanted() -> None:
    found = searched(everywhere(), 60, 0.0)
    assert found.distances[1] < 0.9 * found.distances[0]
    assert all(torch.equal(own, own.round()) for own in (found.digits8, found.digits4))
    assert (found.indices == 50).all()


def test_codes_come_nearer_with_digits_or_without() -> None:
    found = searched(everywhere(), 60, 0.0, 1.0)
    assert found.distances[1] < 0.9 * found.distances[0]
    assert (found.indices != 50).any()
    alone = searched(nowhere(), 60, 0.0, 1.0)
    nearest = F.avg_pool2d(wanted().mean(1), 16).mul(100).round().long()
    missed = (alone.indices - nearest).abs().float().mean()
    assert missed < 0.2 * (50 - nearest).abs().float().mean()


def test_bits_have_a_price() -> None:
    cheap, dear = (searched(everywhere(), 30, price) for price in (0.0, 1.0))
    assert int(dear.digits8.count_nonzero()) < int(cheap.digits8.count_nonzero())
    assert int(dear.digits4.count_nonzero()) < int(cheap.digits4.count_nonzero())


def test_what_is_not_sent_stays() -> None:
    came8, came4 = nowhere()
    came8[0, :4] = True
    found = searched((came8, came4), 10, 1.0)
    assert torch.equal(found.digits4, found.before.digits4)
    assert torch.equal(found.digits8[:, :, 4:], found.before.digits8[:, :, 4:])
    assert not torch.equal(found.digits8[:, :, :4], found.before.digits8[:, :, :4])


def test_no_pass_changes_nothing_and_every_run_is_the_same() -> None:
    found = searched(everywhere(), 0, 1.0, 1.0)
    assert torch.equal(found.digits8, found.before.digits8)
    assert torch.equal(found.digits4, found.before.digits4)
    assert (found.indices == 50).all()
    with torch.inference_mode():  # as a caller may be
        one = searched(everywhere(), 5, 1.0, 1.0)
    other = searched(everywhere(), 5, 1.0, 1.0)
    for name in ("indices", "digits8", "digits4"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_passes_are_told() -> None:
    told: list[tuple[int, int]] = []
    drawer, vectors = Drawer(picture(), nowhere()), torch.full((1, 4, 4, 1), 50.0)
    digits = torch.zeros(1, 5, 8, 8), torch.zeros(1, 3, 16, 16)
    found = Digits(*digits, torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16), *digits)
    search = TokenSearch(Squared(), 3, tell=lambda done, passes: told.append((done, passes)))
    search.tokens(drawer, wanted(), vectors, found)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_picture_too_small_for_lpips_is_named() -> None:
    heads = [torch.ones(1, width, 1, 1) for width in (64, 128, 256, 384, 384, 512, 512)]
    distance = PerceptualDistance(LPIPS(squeezenet_features(), heads))
    with pytest.raises(DataError, match=r"search_passes: LPIPS needs .* got 48x16: leave it at 0"):
        distance.to(torch.zeros(1, 3, 16, 48))
    picture = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    assert float(distance.to(picture)(picture)) == 0 < float(distance.to(picture)(1 - picture))
