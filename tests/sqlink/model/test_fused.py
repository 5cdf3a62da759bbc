"""Layers in one pass give what they give one after another, and gradients where they are wanted."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sqlink.model.decoder import Decoder
from sqlink.model.fused import GroupNorm, convolved, fusable, hold_weights, modulated, silu
from sqlink.model.spade import Cells, unshuffled_map


def made(channels: int = 16, height: int = 12, width: int = 20, seed: int = 0) -> Tensor:
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 24, 1),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.Conv2d(16, 24, 3, padding="same"),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.Conv2d(16, 24, 3, padding="valid"),
        nn.Conv2d(16, 24, 3, padding="same", dilation=2),
        nn.Conv2d(16, 24, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 24, 1, bias=False),
    ],
)
def test_a_convolution_is_what_its_parts_are(layer: nn.Conv2d, relu: bool, plus: bool) -> None:
    x = made()
    plain = layer(x)
    more = torch.randn_like(plain) if plus else None
    expected = plain if more is None else plain + more
    expected = expected.relu() if relu else expected
    kept = None if more is None else more.clone()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = convolved(layer, x, more, relu)
        torch.testing.assert_close(found, expected)
    if more is not None:
        torch.testing.assert_close(more, kept, rtol=0, atol=0)  # what is added is not written to


def test_a_modulation_is_one_plus_scale_and_shift() -> None:
    layer, features, normed = nn.Conv2d(6, 32, 1), made(6, seed=1), made(seed=2)
    scale, shift = layer(features).chunk(2, dim=1)
    expected, kept = normed * (1 + scale) + shift, normed.clone()
    torch.testing.assert_close(modulated(layer, features, normed), expected)
    with torch.no_grad():
        torch.testing.assert_close(modulated(layer, features, normed), expected)
    assert torch.equal(normed, kept)


def test_with_gradients_nothing_is_fused_nor_written_to() -> None:
    layer, x = nn.Conv2d(16, 16, 3, padding=1), made().requires_grad_()
    assert not fusable(x)
    normed = F.group_norm(x, 4)
    convolved(layer, silu(normed), plus=x).sum().backward()
    found = x.grad
    y = x.detach().requires_grad_()
    (y + layer(F.silu(F.group_norm(y, 4)))).sum().backward()
    assert found is not None
    assert y.grad is not None
    torch.testing.assert_close(found, y.grad)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_on_a_cpu_layers_are_fused() -> None:
    with torch.no_grad():
        assert fusable(made())
    with torch.inference_mode():
        assert fusable(made())


def test_an_empty_batch_comes_back_empty() -> None:
    decoder = Decoder(5, (16, 16), (1, 1), 4, 8).eval()
    cells = Cells.of(torch.zeros(0, 8, 24, dtype=torch.int64), 7, 2)
    with torch.no_grad():
        likeliest = decoder.likeliest(torch.zeros(0, 16, 3, 4))
        assert likeliest.shape[0] == 0
        assert cells.through(nn.Conv2d(32, 5, 1)).shape == (0, 5, 4, 12)
        assert cells.shares(2).shape == (0, 8, 2, 6)


def test_other_numbers_and_other_back_ends_go_layer_by_layer() -> None:
    with torch.no_grad():
        assert not fusable(made().double())
        assert not fusable(made().to("meta"))
        with torch.backends.mkldnn.flags(enabled=False):
            assert not fusable(made())
        with torch.autocast("cpu", torch.float16):
            assert not fusable(made())
        with FlopCounterMode(display=False):
            assert not fusable(made())


def test_in_bfloat16_layers_are_fused_and_give_what_they_give_one_after_another() -> None:
    layer, wide = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 1)
    norm, x, more = GroupNorm(4, 16), made(), made(seed=1)
    cells = Cells.of(torch.randint(0, 7, (2, 12, 20)), 7, 2)
    stem = nn.Conv2d(32, 5, 1)

    def computed() -> list[Tensor]:
        return [
            convolved(layer, x, plus=more, relu=True),
            modulated(wide, more, norm(x)),
            norm(x),
            cells.through(stem),
        ]

    expected = computed()  # in float32, with gradients
    with torch.no_grad(), torch.autocast("cpu"):
        assert fusable(x)
        assert fusable(x.bfloat16())
        found = computed()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.04)


def test_weights_are_held_in_bfloat16_only_where_they_do_not_change() -> None:
    layer, x = nn.Conv2d(16, 16, 1), made()

    def changed() -> bool:
        """Whether a change of the weights is seen, and undo it."""
        with torch.no_grad(), torch.autocast("cpu"):
            before = convolved(layer, x)
            layer.weight.mul_(2)
            after = convolved(layer, x)
            layer.weight.div_(2)
        return not torch.equal(before, after)

    assert changed()
    hold_weights(nn.Sequential(layer))
    assert not changed()
    with torch.no_grad():
        torch.testing.assert_close(convolved(layer, x), layer(x))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_cells_go_through_a_convolution_as_their_one_hot_values(factor: int) -> None:
    segmentation = torch.randint(-1, 9, (2, 8, 24), generator=torch.Generator().manual_seed(3))
    cells = Cells.of(segmentation, 7, factor)
    dense = unshuffled_map(segmentation, 7, factor)
    for layer in (nn.Conv2d(8 * factor**2, 5, 1), nn.Conv2d(8 * factor**2, 5, 3, padding=1)):
        with torch.no_grad():
            torch.testing.assert_close(cells.through(layer), layer(dense))
        assert cells.through(layer).requires_grad
    shares = F.avg_pool2d(dense, 2).unflatten(1, (8, factor**2)).mean(2)
    if factor < 4:
        assert torch.equal(cells.shares(2), shares)


def test_the_likeliest_class_is_the_first_of_the_highest() -> None:
    decoder = Decoder(5, (16, 16), (1, 1), 4, 8).eval()
    with torch.no_grad():
        z = made(16, 3, 4, seed=4)
        logits = decoder(z)
        assert torch.equal(decoder.likeliest(z), logits.argmax(1))
        decoder.conv_out.weight.zero_()
        assert decoder.conv_out.bias is not None
        decoder.conv_out.bias.zero_()
        assert not decoder.likeliest(z).any()
