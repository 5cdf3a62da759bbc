"""What the two networks are: their sizes, their shapes, and that folding changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sqlink.segmentation.blocks import ConvNorm, fold
from sqlink.segmentation.builtin import NETWORKS

LIMITS = {"tx": (1.0e6, 1.6e9), "judge": (1.5e6, 4.0e9)}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_is_light_enough_for_its_place(name: str) -> None:
    parameters, macs = LIMITS[name]
    network = NETWORKS[name]().eval()
    assert sum(p.numel() for p in network.parameters()) <= parameters
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, 3, 384, 480))
    assert counter.get_total_flops() / 2 <= macs


@pytest.mark.parametrize(("name", "step"), [("tx", 4), ("judge", 2)])
def test_logits_are_of_eleven_classes_at_the_output_step(name: str, step: int) -> None:
    network = NETWORKS[name]().eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 11, 64 // step, 96 // step)


def test_the_judge_is_not_built_like_the_transmitter() -> None:
    tx, judge = NETWORKS["tx"](), NETWORKS["judge"]()
    assert type(tx) is not type(judge)
    shapes = [{tuple(p.shape) for p in n.parameters() if p.ndim == 4} for n in (tx, judge)]
    assert shapes[0] != shapes[1]
    assert set(tx.state_dict()) != set(judge.state_dict())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_folding_keeps_the_function_and_leaves_no_normalisation(name: str) -> None:
    torch_state = torch.random.get_rng_state()
    network = NETWORKS[name]()
    draws = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=draws) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=draws) + 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draws)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=draws)
    network.eval()
    images = torch.rand(2, 3, 64, 64, generator=draws)
    with torch.inference_mode():
        before = network(images)
    fold(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    with torch.inference_mode():
        after = network(images)
    assert before.std() > 1e-3
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    torch.random.set_rng_state(torch_state)


def test_folding_twice_is_folding_once() -> None:
    block = ConvNorm(4, 6)
    fold(block)
    weight = block.conv.weight.clone()
    fold(block)
    assert torch.equal(block.conv.weight, weight)
