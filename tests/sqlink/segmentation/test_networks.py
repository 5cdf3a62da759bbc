"""What the two networks are: their sizes, their shapes, and that folding changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sqlink.segmentation.blocks import ConvNorm, fold
from sqlink.segmentation.builtin import NETWORKS
from sqlink.segmentation.efficientnet import EfficientNetLite

LIMITS = {"tx": (2.6e6, 2.0e9), "judge": (2.8e6, 3.1e9)}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_is_light_enough_for_its_place(name: str) -> None:
    parameters, macs = LIMITS[name]
    network = NETWORKS[name]().eval()
    assert sum(p.numel() for p in network.parameters()) <= parameters
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, 3, 384, 480))
    assert counter.get_total_flops() / 2 <= macs


@pytest.mark.parametrize(("name", "step"), [("tx", 2), ("judge", 2)])
def test_logits_are_of_eleven_classes_at_the_output_step(name: str, step: int) -> None:
    network = NETWORKS[name]().eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 11, 64 // step, 96 // step)


def test_the_judge_is_not_built_like_the_transmitter() -> None:
    tx, judge = NETWORKS["tx"](), NETWORKS["judge"]()
    assert type(tx) is not type(judge)
    assert tx.variant != judge.variant
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


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_a_frozen_layer_normalises_by_its_running_statistics(
    kernel: int, stride: int, training: bool
) -> None:
    draws = torch.Generator().manual_seed(6)
    layer = ConvNorm(6, 6, kernel, stride, groups=2, act="relu6", frozen=True, same=True)
    norm = layer.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(torch.randn(6, generator=draws))
    norm.running_var.copy_(torch.rand(6, generator=draws) + 0.5)
    images = torch.rand(2, 6, 8, 12, generator=draws)
    # TensorFlow's SAME: the padding in all, and half of it, rounded down, before.
    total = kernel - stride
    padded = F.pad(images, (total // 2, total - total // 2) * 2)
    made = F.conv2d(padded, layer.conv.weight, None, stride, groups=2)
    made = (made - norm.running_mean.view(-1, 1, 1)) / (norm.running_var + norm.eps).sqrt().view(
        -1, 1, 1
    )
    before = norm.running_mean.clone()
    layer.train(training)
    torch.testing.assert_close(layer(images), made.clamp(0, 6), rtol=1e-4, atol=1e-5)
    assert torch.equal(norm.running_mean, before)


def test_the_trunk_is_of_the_published_sizes() -> None:
    """Parameters of the networks without head and classifier, and the widths of their scales."""
    for variant, millions, widths in (
        ("efficientnet-lite0", 2.95, (16, 24, 40, 112, 320)),
        ("efficientnet-lite2", 4.35, (16, 24, 48, 120, 352)),
    ):
        trunk = EfficientNetLite(variant)
        kernels = sum(p.numel() for p in trunk.parameters())
        assert kernels / 1e6 == pytest.approx(millions, abs=0.06)
        assert trunk.widths == widths
        levels = trunk.eval()(torch.rand(1, 3, 64, 96))
        assert [tuple(x.shape[1:]) for x in levels] == [
            (width, 64 // 2**k, 96 // 2**k) for k, width in enumerate(widths, 1)
        ]
