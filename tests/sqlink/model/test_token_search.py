"""The search for digits: it makes the distance smaller, and moves nothing that is not sent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.errors import DataError
from sqlink.metrics.lpips import LPIPS
from sqlink.metrics.trunks import squeezenet_features
from sqlink.model.refinement import BlockCosines, Digits, quantised
from sqlink.model.token_search import PerceptualDistance, TokenSearch

COSINES8, COSINES4 = BlockCosines(5, 16), BlockCosines(3, 8)
STEP = 0.2
ROUNDING = partial(quantised, step=torch.ones(1), round_up=0.33)


class Squared:
    """The squared error."""

    def to(self, originals: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda shown: (shown - originals).square().mean((1, 2, 3)).sum()


def picture() -> Tensor:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return 0.2 + 0.6 * F.interpolate(noise, (64, 64), mode="bilinear")


def drawn(digits8: Tensor, digits4: Tensor) -> Tensor:
    return 0.5 + COSINES8.drawn(STEP * digits8) + COSINES4.drawn(STEP * digits4)


def found(image: Tensor) -> Digits:
    z8 = COSINES8.analysed(image - 0.5) / STEP
    z4 = COSINES4.analysed(image - drawn(ROUNDING(z8), torch.zeros(1, 3, 16, 16))) / STEP
    none8, none4 = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16)
    return Digits(ROUNDING(z8), ROUNDING(z4), none8, none4, z8, z4)


def wanted() -> Tensor:
    """What the search is to come near to: the picture with less contrast."""
    return 0.2 + 0.6 * picture()


def searched(
    came: tuple[Tensor, Tensor], passes: int, price: float
) -> tuple[Digits, Tensor, Tensor]:
    before = found(picture())
    search = TokenSearch(Squared(), passes, price)
    values = search.values(drawn, wanted(), before, came, ROUNDING, nullcontext)
    return before, ROUNDING(values[0]), ROUNDING(values[1])


def everywhere() -> tuple[Tensor, Tensor]:
    return torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(1, 16, 16, dtype=torch.bool)


def error(digits8: Tensor, digits4: Tensor) -> float:
    return float((drawn(digits8, digits4) - wanted()).square().mean())


def test_digits_come_nearer_to_what_is_wanted() -> None:
    before, digits8, digits4 = searched(everywhere(), 60, 0.0)
    assert error(digits8, digits4) < 0.9 * error(before.digits8, before.digits4)
    assert all(torch.equal(own, own.round()) for own in (digits8, digits4))


def test_bits_have_a_price() -> None:
    cheap, dear = (searched(everywhere(), 30, price) for price in (0.0, 1.0))
    assert int(dear[1].count_nonzero()) < int(cheap[1].count_nonzero())
    assert int(dear[2].count_nonzero()) < int(cheap[2].count_nonzero())


def test_what_is_not_sent_stays() -> None:
    came8, came4 = (torch.zeros_like(part) for part in everywhere())
    came8[0, :4] = True
    before, digits8, digits4 = searched((came8, came4), 10, 1.0)
    assert torch.equal(digits4, before.digits4)
    assert torch.equal(digits8[:, :, 4:], before.digits8[:, :, 4:])
    assert not torch.equal(digits8[:, :, :4], before.digits8[:, :, :4])


def test_no_pass_changes_nothing_and_every_run_is_the_same() -> None:
    before, digits8, digits4 = searched(everywhere(), 0, 1.0)
    assert torch.equal(digits8, before.digits8)
    assert torch.equal(digits4, before.digits4)
    with torch.inference_mode():  # as a caller may be
        one = searched(everywhere(), 5, 1.0)
    other = searched(everywhere(), 5, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


def test_a_picture_too_small_for_lpips_is_named() -> None:
    heads = [torch.ones(1, width, 1, 1) for width in (64, 128, 256, 384, 384, 512, 512)]
    distance = PerceptualDistance(LPIPS(squeezenet_features(), heads))
    with pytest.raises(DataError, match=r"search_passes: LPIPS needs .* got 48x16: leave it at 0"):
        distance.to(torch.zeros(1, 3, 16, 48))
    picture = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    assert float(distance.to(picture)(picture)) == 0 < float(distance.to(picture)(1 - picture))
