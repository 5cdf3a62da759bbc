"""DeepJSCC as a codec: any size, any number of symbols, and no cliff."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from channels.config.builder import build
from channels.random import Randomness
from sqlink.analogue import load_symbol_codec
from sqlink.analogue.base import SymbolCodec
from sqlink.analogue.symbol_link import SymbolLink
from sqlink.data import open_dataset
from sqlink.errors import ConfigError, WeightsError
from sqlink.model.deepjscc import DeepJSCC, DeepJSCCConfig
from sqlink.weights.manifest import save


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> SymbolCodec:
    """The linear path of the streets' own KLT, untrained beyond it."""
    torch.manual_seed(0)
    network = DeepJSCC(DeepJSCCConfig(latents=12, width=8, fine=8))
    street = open_dataset("streets", seed=5, count=1, height=96, width=128)[0].image[None]
    network.start_from_klt(street)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(path, network.state_dict(), {"kind": "deepjscc", "config": network.config.to_json()})
    return load_symbol_codec("deepjscc", weights=path)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 23), (40, 64), (33, 96)])
@pytest.mark.parametrize("symbols", [1, 7, 24])
def test_any_size_and_number_of_symbols_crosses_at_unit_power(
    codec: SymbolCodec, height: int, width: int, symbols: int
) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    snr = torch.tensor([0.0, 20.0])
    sent = codec.encode(images, symbols, snr)
    assert sent.shape == (2, symbols)
    assert sent.dtype == torch.complex64
    torch.testing.assert_close(sent.abs().square().mean(dim=1), torch.ones(2))
    decoded = codec.decode(sent, torch.full((2, symbols), 0.01), snr, height, width)
    assert decoded.images.shape == images.shape
    assert bool(((decoded.images >= 0) & (decoded.images <= 1)).all())
    assert not bool(decoded.outage.any())


def test_padding_is_paid_for(codec: SymbolCodec) -> None:
    assert codec.most_symbols(16, 16) == 96 + 13
    assert codec.most_symbols(33, 16) == 2 * 96 + 16


def test_the_error_falls_with_the_snr_and_does_not_jump(codec: SymbolCodec) -> None:
    street = open_dataset("streets", seed=5, count=1, height=96, width=128)[0].image[None]
    link = SymbolLink(build("awgn"), 96)
    frame = link.frame(1100, codec.most_symbols(96, 128))
    levels = torch.arange(-2.0, 22.1, 2.0)
    images = street.expand(len(levels), -1, -1, -1)
    symbols = codec.encode(images, frame.total, torch.full_like(levels, 10.0))
    keys = Randomness.derive(0, [("point", "street", 0)] * len(levels))
    seen, variance, _ = link.transmit(symbols, frame, levels, keys)
    decoded = codec.decode(seen, variance, torch.full_like(levels, 10.0), 96, 128)
    error = (decoded.images - images).square().mean(dim=(1, 2, 3))
    steps = error[1:] / error[:-1]
    assert bool((steps < 1.0).all())
    assert bool((steps > 0.5).all())  # 2 dB of SNR never more than 3 dB of error


def test_symbols_that_are_no_numbers_or_drown_in_noise_still_give_a_picture(
    codec: SymbolCodec,
) -> None:
    received = torch.full((1, 40), complex(float("nan"), 0.0))
    received[0, :20] = 1e20
    variance = torch.full((1, 40), float("inf"))
    decoded = codec.decode(received, variance, torch.tensor([0.0]), 32, 48)
    assert bool(decoded.images.isfinite().all())


def test_what_does_not_depend_on_the_batch(codec: SymbolCodec) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    snr = torch.tensor([0.0, 5.0, 10.0])
    whole = codec.encode(images, 50, snr)
    alone = torch.cat([codec.encode(images[n : n + 1], 50, snr[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)


def test_mistakes_are_refused_in_one_line(codec: SymbolCodec, tmp_path: Path) -> None:
    images, snr = torch.zeros(1, 3, 16, 16), torch.tensor([0.0])
    with pytest.raises(ConfigError, match="takes 1 to 109 symbols, not 110"):
        codec.encode(images, 110, snr)
    with pytest.raises(ConfigError, match="did you mean 'deepjscc'"):
        load_symbol_codec("deepjsc")
    with pytest.raises(ConfigError, match="weight"):
        load_symbol_codec("deepjscc", weight="x")
    path = tmp_path / "other.safetensors"
    save(path, {"a": torch.zeros(2)}, {"kind": "deepjscc", "config": '{"latents": 4}'})
    with pytest.raises(WeightsError, match="has no DeepJSCC") as error:
        load_symbol_codec("deepjscc", weights=path)
    assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match="no deepjscc weights"):
        load_symbol_codec("deepjscc", weights=tmp_path / "none.safetensors")
