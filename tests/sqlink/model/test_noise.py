"""The decoder's noise: a hash that plain integers agree with, and no lattice."""

from __future__ import annotations

import torch

from sqlink.model.noise import GAIN, NoiseInjection, noise_field


def mixed(bits: int) -> int:
    bits = ((bits ^ bits >> 16) * 0x21F0AAAD) % 2**32
    bits = ((bits ^ bits >> 15) * 0x735A2D97) % 2**32
    return bits ^ bits >> 15


def test_the_field_is_the_hash_of_row_column_and_seed() -> None:
    field = noise_field(3, 4, torch.device("cpu"), torch.tensor([0, 7]))
    for n, seed in enumerate((0, 7)):
        for row in range(3):
            for column in range(4):
                bits = mixed(mixed(mixed(seed) ^ row) ^ column)
                wanted = (bits / 2**31 - 1) * 3**0.5
                assert abs(float(field[n, 0, row, column]) - wanted) < 1e-6


def test_the_field_has_mean_0_variance_1_and_no_neighbours_in_common() -> None:
    field = noise_field(256, 256, torch.device("cpu"))[0, 0]
    assert abs(float(field.mean())) < 0.02
    assert abs(float(field.var()) - 1) < 0.02
    for step in (1, 2, 4, 8, 16):
        assert abs(float((field[:, step:] * field[:, :-step]).mean())) < 0.02
        assert abs(float((field[step:] * field[:-step]).mean())) < 0.02


def test_a_smaller_field_is_a_corner_of_a_larger_one() -> None:
    large = noise_field(20, 30, torch.device("cpu"))
    assert torch.equal(noise_field(7, 9, torch.device("cpu")), large[..., :7, :9])


def test_injection_starts_as_nothing() -> None:
    layer = NoiseInjection(3)
    x = torch.ones(2, 3, 4, 5)
    assert torch.equal(layer(x), x)
    torch.nn.init.constant_(layer.scale, 1 / GAIN)
    assert torch.allclose(layer(x) - x, noise_field(4, 5, x.device).expand_as(x), atol=1e-6)
