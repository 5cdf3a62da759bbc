"""Costs agree with counts made another way; the command prints a table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sqlink.model.config import PAPER, ModelConfig
from sqlink.model.cost import LiveMemory, cost, main
from sqlink.model.residual import SelfAttention
from sqlink.model.sqgan import SQGAN


def test_flops_are_those_of_the_layers_seen_at_work(tiny: ModelConfig) -> None:
    """Convolutions, linear layers, attention and codebooks, counted by hooks on a real run."""
    network, seen = SQGAN(tiny).eval(), [0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            each = module.weight[0].numel()
            seen[0] += 2 * out.numel() * each
        elif isinstance(module, nn.Linear):
            seen[0] += 2 * out.numel() * module.in_features
        elif isinstance(module, SelfAttention):
            _, channels, height, width = inputs[0].shape
            seen[0] += 4 * channels * (height * width) ** 2

    for module in network.modules():
        module.register_forward_hook(count)
    images, maps = torch.rand(1, 3, 48, 64), torch.zeros(1, 48, 64, dtype=torch.long)
    with torch.backends.mkldnn.flags(enabled=False):  # what is fused calls no layer
        found = network.analyse(images, maps)
        network.synthesise(found.image_indices, found.map_indices, 48, 64)
    seen[0] += 2 * 12 * tiny.code_dim * (tiny.image_codes + tiny.map_codes)
    told = cost(tiny, 48, 64)
    assert told.encoder_flops + told.decoder_flops == pytest.approx(seen[0], rel=1e-6)
    state = network.state_dict()
    moving = sum(v.numel() for k, v in state.items() if k.endswith((".counts", ".sums")))
    assert told.parameters == sum(v.numel() for v in state.values()) - moving


def test_memory_is_what_is_alive() -> None:
    with LiveMemory() as memory:
        first = torch.ones(1000)
        second = first * 2
        view = second[:500]
        del second
        assert memory.live == 8000
        del view, first
    assert (memory.live, memory.peak) == (0, 8000)


def test_training_keeps_what_autograd_saves() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 3, padding=1))
    saved: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in layers.parameters()}
    images = torch.rand(1, 3, 32, 32)

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own and place != images.untyped_storage().data_ptr():
            saved[place] = tensor.untyped_storage().nbytes()
        return tensor

    with LiveMemory() as memory, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = layers(images)
        held = memory.live
    assert held == sum(saved.values()) + out.untyped_storage().nbytes()


def test_attention_is_counted() -> None:
    attention = SelfAttention(32, 8).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        attention(torch.rand(1, 32, 8, 8), torch.ones(1, 64))
    projections = 2 * 64 * 32 * (96 + 32)
    assert counter.get_total_flops() == projections + 4 * 32 * 64**2


def test_the_papers_cost_is_that_of_its_size() -> None:
    found = cost(PAPER, 64, 64)
    assert 150e6 < found.parameters < 220e6
    assert found.decoder_flops > found.encoder_flops > 15e9
    assert found.training_bytes > 3 * found.inference_bytes


def test_the_command_prints_a_table_or_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlink.model.cost.SIZES", ((32, 48), (16, 16)))
    assert main(["streets"]) == 0
    out = capsys.readouterr().out
    assert "| `streets` | 32x48 |" in out
    assert "| `streets` | 16x16 |" in out
    assert main(["papers"]) == 2
    assert capsys.readouterr().err.strip().splitlines() == [
        "sqlink.model.cost: unknown model 'papers': did you mean 'paper'? known: paper, streets"
    ]
