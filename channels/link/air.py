"""The physical layer under a link: QAM over a symbol channel, or bits over a bit channel."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import Conditions
from channels.config.checks import choice, condition
from channels.config.description import name_and_parameters
from channels.errors import ConfigError
from channels.fading.base import SNR_RANGE_DB, SYMBOL_CHANNELS, Piloted, SymbolChannel, Timing
from channels.fading.binary import BIT_CHANNELS, BitChannel
from channels.fec.qam import BITS_PER_SYMBOL, modem
from channels.random import Randomness
from channels.registry import nearest


def device_name(device: torch.device) -> str:
    """Return the name of a device with its number, as Sionna expects it."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def hard_decisions(llr: Tensor) -> Tensor:
    """Replace LLRs, float32 [R, L], by hard decisions with one magnitude per packet.

    The magnitude is log((1 - p) / p); p is the error rate of the packet's decisions, as the
    receiver expects it from the LLRs.
    """
    wrong = torch.sigmoid(-llr.abs()).mean(dim=-1, keepdim=True).clamp(1e-9, 0.5)
    return torch.sign(llr) * torch.log((1 - wrong) / wrong)


class SymbolAir:
    """QAM over a symbol channel; `level` is the SNR in dB."""

    def __init__(self, over: SymbolChannel, modulation: str) -> None:
        self.over, self.modulation = over, modulation
        self.order = BITS_PER_SYMBOL[modulation]
        self.streams = over.streams if isinstance(over, Piloted) else 1
        self.needs: tuple[str, ...] = ("snr_db",)

    def level(self, owner: str, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        return condition(owner, conditions, "snr_db", links, *SNR_RANGE_DB, device)

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Return the resource elements of `symbols` data symbols, and the pilots among them."""
        return self.over.occupied(symbols) if isinstance(self.over, Piloted) else (symbols, 0)

    def send(
        self, bits: Tensor, sent: Tensor, level: Tensor, randomness: Randomness, timing: Timing
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Send the bits of the R slots in `sent`: float32 [R, L]; sent: bool [g, P].

        Returns the equalised symbols, complex64 [R, S], their noise variances, float32 [R, 1] or
        [R, S], and the gain, float32 [g, P].
        """
        rows = modem(self.modulation, device_name(bits.device)).map(bits)  # [R, S]
        symbols = rows.new_zeros(*sent.shape, rows.shape[-1])
        symbols[sent] = rows
        seen = self.over.apply(symbols, level, randomness, timing)
        return (seen.symbols[sent], seen.noise_variance[sent]), seen.gain

    def llr(self, symbols: Tensor, noise_variance: Tensor) -> Tensor:
        """Demap rows of the symbols and noise variances of `send` to LLRs, float32 [R, L]."""
        return modem(self.modulation, device_name(symbols.device)).demap(symbols, noise_variance)

    def statistics(self, level: Tensor, gain_db: Tensor) -> dict[str, Tensor]:
        return {"snr_db": level + gain_db}


class BitAir:
    """Bits over a bit channel; `level` is its error or erasure probability."""

    def __init__(self, over: BitChannel) -> None:
        self.over = over
        self.order = self.streams = 1
        self.needs = over.needs

    def level(self, owner: str, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        return self.over.probability(conditions, links, device)

    def occupied(self, symbols: int) -> tuple[int, int]:
        return symbols, 0

    def send(
        self, bits: Tensor, sent: Tensor, level: Tensor, randomness: Randomness, timing: Timing
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Send bits as `SymbolAir.send` does, but return LLRs, float32 [R, L]."""
        whole = bits.new_zeros(*sent.shape, bits.shape[-1])
        whole[sent] = bits
        llr = self.over.apply_bits(whole, level, randomness, timing)
        return (llr[sent],), torch.ones(sent.shape, device=bits.device)

    def llr(self, *rows: Tensor) -> Tensor:
        return rows[0]

    def statistics(self, level: Tensor, gain_db: Tensor) -> dict[str, Tensor]:
        return {}


def air_over(owner: str, over: object, modulation: object) -> SymbolAir | BitAir:
    """Build the physical layer from the description `over` and the modulation.

    modulation: None for QPSK; it must be None over a bit channel. Raises ConfigError.
    """
    name, parameters = name_and_parameters("symbol channel", over)
    if name in BIT_CHANNELS.names():
        if modulation is not None:
            raise ConfigError(
                f"{owner}: modulation={modulation!r} must be left out over {name}, a bit channel"
            )
        return BitAir(BIT_CHANNELS.make(name, parameters))
    if name not in SYMBOL_CHANNELS.names():
        known = [*SYMBOL_CHANNELS.names(), *BIT_CHANNELS.names()]
        raise ConfigError(f"unknown symbol or bit channel '{name}': {nearest(name, known)}")
    chosen = "qpsk" if modulation is None else modulation
    key = choice(owner, "modulation", chosen, BITS_PER_SYMBOL)
    return SymbolAir(SYMBOL_CHANNELS.make(name, parameters), key)
