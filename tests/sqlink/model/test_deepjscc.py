"""DeepJSCC's network: power, prefix, what is told to both ends."""

import math

import pytest
import torch
from scipy.fft import dctn
from scipy.optimize import minimize

from sqlink.model.deepjscc import (
    DeepJSCC,
    DeepJSCCConfig,
    from_symbols,
    places,
    scattered,
    sent_mask,
    spread_power,
    to_symbols,
)

SMALL = DeepJSCCConfig(latents=2, width=8, fine=8)


def network(config: DeepJSCCConfig = SMALL) -> DeepJSCC:
    torch.manual_seed(0)
    return DeepJSCC(config).eval()


def pictures(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("symbols", [1, 3, 16, 17, 64])
def test_each_picture_has_mean_power_one_a_complex_symbol(symbols: int) -> None:
    images = pictures() * torch.tensor([0.02, 1.0])[:, None, None, None]  # one of them dark
    counts = torch.tensor([symbols, symbols])
    with torch.no_grad():
        values, sent, scale = network().encode(images, torch.tensor([0.0, 20.0]), counts)
    power = to_symbols(values, symbols).abs().square().mean(dim=1)
    torch.testing.assert_close(power, torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale.abs(), torch.ones(2))
    assert not bool(values[~sent].any())


def test_power_holds_where_pictures_of_a_batch_send_differently_many() -> None:
    counts = torch.tensor([5, 40])
    with torch.no_grad():
        values, sent, _ = network().encode(pictures(), torch.tensor([10.0, 10.0]), counts)
    assert sent.sum(dim=(1, 2, 3)).tolist() == [10, 80]
    energy = values.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(energy, counts.float(), atol=1e-3, rtol=0)


def test_what_is_sent_is_a_prefix_of_coefficients_and_comes_back_in_place() -> None:
    values = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(3))
    sent = sent_mask(torch.tensor([40, 40]), 6, 3, 5)  # two coefficients and ten places
    assert sent.sum(dim=(2, 3)).tolist() == [[15, 15, 10, 0, 0, 0]] * 2
    back = from_symbols(to_symbols(values, 20), 6, 3, 5)
    assert torch.equal(back, values * sent)


def test_scattered_is_a_permutation_and_its_neighbours_are_apart() -> None:
    for count in (1, 2, 12, 180):
        assert sorted(scattered(count).tolist()) == list(range(count))
    order = scattered(180)
    assert int((order[1:] - order[:-1]).abs().min()) > 60


def test_coefficients_are_scipys_dct_and_go_back() -> None:
    net = network()
    latents = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    found = net.coefficients(latents)
    block = dctn(latents[0, 1, 4:, :4].numpy(), norm="ortho")
    torch.testing.assert_close(
        found[0, 16:, 1, 0].reshape(4, 4), torch.from_numpy(block), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(net.latents(found), latents, atol=1e-5, rtol=0)


@pytest.mark.parametrize("noise", [0.05, 0.5, 5.0])
def test_power_is_spread_as_a_numerical_optimiser_spreads_it(noise: float) -> None:
    power = torch.tensor([11.0, 1.0, 0.3, 0.2, 0.02, 0.001])
    spread = spread_power(power, torch.ones(1, 6), torch.tensor([noise]))[0]
    assert spread.sum() == pytest.approx(3.0, rel=1e-4)

    def error(shares: object) -> float:
        p = 3.0 * torch.softmax(torch.as_tensor(shares, dtype=torch.float64), 0)
        return float((power.double() * noise / (p + noise)).sum())

    best = minimize(error, [0.0] * 6, method="L-BFGS-B", options={"ftol": 1e-14, "maxiter": 5000})
    ours = float((power * noise / (spread + noise)).sum())
    assert ours == pytest.approx(best.fun, rel=1e-3)


def test_power_goes_to_what_is_sent_alone() -> None:
    power = torch.tensor([4.0, 2.0, 1.0, 0.5])
    sent = torch.tensor([[1.0, 1.0, 0.5, 0.0]])
    spread = spread_power(power, sent, torch.tensor([0.05]))
    assert (spread * sent).sum() == pytest.approx(0.5 * 2.5, rel=1e-4)
    assert spread[0, 3] == 0


def test_the_receiver_uses_nothing_of_what_was_not_sent() -> None:
    net, snr = network(), torch.tensor([10.0, 10.0])
    sent = sent_mask(torch.tensor([40, 40]), 32, 2, 2)
    variance = torch.where(sent, 0.05, math.inf)
    received = torch.randn(2, 32, 2, 2, generator=torch.Generator().manual_seed(5))
    scale, quiet = torch.ones(2, dtype=torch.complex64), torch.full((2,), 0.01)
    with torch.no_grad():
        first = net.decode(received, variance, snr, scale, quiet)
        other = net.decode(torch.where(sent, received, 99.0), variance, snr, scale, quiet)
    assert torch.equal(first, other)


def test_every_part_that_learns_has_a_finite_gradient() -> None:
    net = network()
    values, sent, scale = net.encode(pictures(), torch.tensor([0.0, 20.0]), torch.tensor([9, 50]))
    variance = torch.where(sent, 0.05, math.inf)
    rebuilt = net.decode(values, variance, torch.tensor([0.0, 20.0]), scale, torch.full((2,), 0.1))
    (rebuilt - pictures()).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_clean_channel_for_everything_leaves_the_picture() -> None:
    # All 192 values of a block of 8x8, next to no noise: the linear path alone is the identity.
    net = network(DeepJSCCConfig(latents=192, width=8, fine=8))
    generator = torch.Generator().manual_seed(6)
    coarse = torch.rand(8, 3, 16, 16, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    net.start_from_klt(images + 0.02 * torch.rand(images.shape, generator=generator))
    snr = torch.full((8,), 30.0)
    with torch.no_grad():
        values, sent, scale = net.encode(images, snr, torch.full((8,), 4 * 3072 // 2))
        variance = torch.full_like(values, 1e-9)
        rebuilt = net.decode(values, variance, snr, scale, torch.full((8,), 1e-9))
    assert bool(sent.all())
    assert (rebuilt - images).square().mean() < 1e-6


def test_the_transform_starts_orthonormal_and_its_coefficients_fall_in_power() -> None:
    net = network(DeepJSCCConfig(latents=8, width=8, fine=8))
    images = torch.nn.functional.interpolate(pictures(8, 8), size=(64, 64), mode="bilinear")
    net.start_from_klt(images)
    basis = net.transform.linear.weight.flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), atol=1e-5, rtol=0)
    assert bool((net.log_power[1:] <= net.log_power[:-1]).all())


def test_incomplete_places_count_as_whole_ones() -> None:
    assert places(16, 16) == 1
    assert places(33, 64) == 4


def test_the_default_network_has_at_most_a_million_and_a_half_parameters() -> None:
    assert sum(p.numel() for p in DeepJSCC().parameters()) <= 1_500_000
