"""The physical channel under a link: bits by QAM over a symbol channel, or bits over a bit
channel.
"""

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
    """Return a device's name with its number, as Sionna expects it."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def hard_decisions(llr: Tensor) -> Tensor:
    """Replace LLRs float32 [R, L] by hard decisions: the sign, and one magnitude log((1 - p) / p) a
    packet.

    p: the share of wrong decisions that the packet's receiver expects.
    """
    wrong = torch.sigmoid(-llr.abs()).mean(dim=-1, keepdim=True).clamp(1e-9, 0.5)
    return torch.sign(llr) * torch.log((1 - wrong) / wrong)


class SymbolAir:
    """Bits by QAM over a symbol channel; `level` is the SNR in dB."""

    def __init__(self, over: SymbolChannel, modulation: str) -> None:
        self.over, self.modulation = over, modulation
        self.order = BITS_PER_SYMBOL[modulation]
        self.streams = over.streams if isinstance(over, Piloted) else 1
        self.needs: tuple[str, ...] = ("snr_db",)

    def level(self, owner: str, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        return condition(owner, conditions, "snr_db", links, *SNR_RANGE_DB, device)

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Return the resource elements of so many data symbols, and how many of them are pilots."""
        return self.over.occupied(symbols) if isinstance(self.over, Piloted) else (symbols, 0)

    def send(
        self, bits: Tensor, sent: Tensor, level: Tensor, randomness: Randomness, timing: Timing
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Send bits: float32 [R, L] of the R slots of `sent`, bool [g, P].

        Returns symbols complex64 [R, S] and noise variances float32 [R, 1] or [R, S], and the gain
        float32 [g, P].
        """
        rows = modem(self.modulation, device_name(bits.device)).map(bits)  # [R, S]
        symbols = rows.new_zeros(*sent.shape, rows.shape[-1])
        symbols[sent] = rows
        seen = self.over.apply(symbols, level, randomness, timing)
        return (seen.symbols[sent], seen.noise_variance[sent]), seen.gain

    def llr(self, symbols: Tensor, noise_variance: Tensor) -> Tensor:
        """Demap what `send` returned, for some rows, to LLRs float32 [R, L]."""
        return modem(self.modulation, device_name(symbols.device)).demap(symbols, noise_variance)

    def statistics(self, level: Tensor, gain_db: Tensor) -> dict[str, Tensor]:
        return {"snr_db": level + gain_db}


class BitAir:
    """Bits over a bit channel without modulation; `level` is its probability."""

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
        """Send bits as `SymbolAir.send` does; returns LLRs float32 [R, L]."""
        whole = bits.new_zeros(*sent.shape, bits.shape[-1])
        whole[sent] = bits
        llr = self.over.apply_bits(whole, level, randomness, timing)
        return (llr[sent],), torch.ones(sent.shape, device=bits.device)

    def llr(self, *rows: Tensor) -> Tensor:
        return rows[0]

    def statistics(self, level: Tensor, gain_db: Tensor) -> dict[str, Tensor]:
        return {}


def air_over(owner: str, over: object, modulation: object) -> SymbolAir | BitAir:
    """Build what `over` names, with the modulation; None: QPSK, and the only choice over a bit
    channel.
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
