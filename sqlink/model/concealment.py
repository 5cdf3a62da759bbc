"""Concealment: what a receiver shows where it knows that packets were lost.

    units that came ── predicted from four neighbours, again and again ── units that did not come
    the decoder at realism 1 ── + differences of low rank, learned on losses ── decoder for losses

A unit of the layer at 1/8 that is masked has little to say; one that was lost may have much. Where
packets of a picture were lost, both decoders begin with a linear prediction of what did not come,
and that of realism 1 has weights of its own. Pictures whose packets all came are not concealed.

Low-rank differences: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TIMES = 8
"""How often units are predicted, so that neighbours of lost units that are lost too have values."""
NEIGHBOURS = ((0, 1), (2, 1), (1, 0), (1, 2))
"""Above, below, left and right, as offsets into a grid padded by one."""


def units_of_tokens(tokens: Tensor) -> Tensor:
    """Return units [N, 4 D, h, w] of tokens [N, D, 2 h, 2 w], the long waves first."""
    units: Tensor = F.pixel_unshuffle(tokens, 2).unflatten(1, (-1, 4)).transpose(1, 2)
    return units.flatten(1, 2)


def tokens_of_units(units: Tensor) -> Tensor:
    """Invert `units_of_tokens`.

    >>> tokens = torch.arange(48.0).view(1, 3, 4, 4)
    >>> torch.equal(tokens_of_units(units_of_tokens(tokens)), tokens)
    True
    """
    tokens: Tensor = units.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(tokens, 2)


def neighbours(units: Tensor) -> Tensor:
    """Return each unit's four neighbours: [N, K, h, w] to [N, 4, K, h, w], 0 beyond the border."""
    height, width = units.shape[2:]
    padded = F.pad(units, (1, 1, 1, 1))
    return torch.stack([padded[:, :, y : y + height, x : x + width] for y, x in NEIGHBOURS], dim=1)


class NeighbourPrediction(nn.Module):
    """Linear prediction of the first coefficients of a unit from those of its four neighbours.

    coefficients: how many of a unit's, K. `weights` is [4, K, K]: of each neighbour's, for each.
    """

    weights: Tensor

    def __init__(self, coefficients: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(4, coefficients, coefficients))

    def forward(self, values: Tensor, came: Tensor) -> Tensor:
        """Predict the units that did not come.

        values: float32 [N, D, 2 h, 2 w], coefficients of tokens; came: bool [N, 2 h, 2 w]. Returns
        [N, D, 2 h, 2 w], 0 where tokens came.
        """
        there = F.max_pool2d(came.unsqueeze(1).float(), 2)
        known = units_of_tokens(values * came.unsqueeze(1))
        count = self.weights.shape[1]
        kept = known[:, :count]
        found = kept
        with torch.autocast(values.device.type, enabled=False):
            for _ in range(_TIMES):
                next_ = torch.einsum("nakhw,akc->nchw", neighbours(found), self.weights)
                found = there * kept + (1 - there) * next_
        rest = torch.zeros_like(known[:, count:])
        return tokens_of_units(torch.cat(((1 - there) * found, rest), 1))

    @torch.no_grad()
    def fit(self, seen: Iterator[tuple[Tensor, Tensor]], ridge: float = 100.0) -> None:
        """Fit the weights by least squares to tokens of pictures, as `forward` takes them.

        Units count that came and whose four neighbours came.
        """
        count = self.weights.shape[1]
        square = ridge * torch.eye(4 * count, dtype=torch.float64)
        product = torch.zeros(4 * count, count, dtype=torch.float64)
        for values, came in seen:
            units = units_of_tokens(values * came.unsqueeze(1))[:, :count].double()
            there = F.max_pool2d(came.unsqueeze(1).double(), 2)
            around = neighbours(there).amin(1) * there
            chosen = around[:, 0] > 0
            given = neighbours(units).flatten(1, 2).permute(0, 2, 3, 1)[chosen]
            square += given.T @ given
            product += given.T @ units.permute(0, 2, 3, 1)[chosen]
        self.weights.copy_(torch.linalg.solve(square, product).unflatten(0, (4, count)))


class LowRankDifferences(nn.Module):
    """Differences of the weights of a network's convolutions, each a product of two factors.

    rank: of the products. Drawn, one factor is 0: the differences then are none.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        self.bias = nn.ParameterDict()
        for name, layer in _convolutions(network):
            key = name.replace(".", "_")
            inputs = layer.weight[0].numel()
            self.down[key] = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
            self.up[key] = nn.Parameter(torch.zeros(len(layer.weight), rank))
            self.bias[key] = nn.Parameter(torch.zeros(len(layer.weight)))

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the network's changed parameters by name."""
        changed: dict[str, Tensor] = {}
        for name, layer in _convolutions(network):
            key = name.replace(".", "_")
            difference = (self.up[key] @ self.down[key]).view_as(layer.weight)
            changed[f"{name}.weight"] = layer.weight + difference
            assert layer.bias is not None
            changed[f"{name}.bias"] = layer.bias + self.bias[key]
        return changed


def _convolutions(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    return (
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)
    )
