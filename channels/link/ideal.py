"""Ideal codes, as a bound for real codes.

    packet ── as many symbols as `coded` ── |h|^2 of a flat channel ── error probability ── one draw

No symbol is sent. The SNR of a packet is the mean SNR times its |h|^2. Under the law `capacity`
(infinite length) a packet of k bits in S symbols is delivered if the mutual information at its SNR
is above k / S; the mean loss under block fading is then the outage probability. Under the law
`finite_length` it is lost with the error probability of the best code of its length, by the normal
approximation.

Sources: Ozarow, Shamai, Wyner, "Information theoretic considerations for cellular mobile radio",
1994; Polyanskiy, Poor, Verdu, "Channel coding rate in the finite blocklength regime", 2010.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, register
from channels.config.builder import from_spec
from channels.config.checks import choice, condition, integer, number
from channels.errors import ChannelError, ConfigError
from channels.fading.base import ONE_GAIN, SNR_RANGE_DB, SYMBOL_CHANNELS, Flat, Timing
from channels.fec.crc import CRC_BITS
from channels.fec.ldpc import HIGHEST_RATE, LOWEST_RATE, layout
from channels.fec.qam import BITS_PER_SYMBOL
from channels.interpolation import interpolate
from channels.link.base import DEFAULT_PACKET_BYTES
from channels.random import Randomness
from channels.theory import GAUSSIAN, qam_information

LAWS = ("capacity", "finite_length")
INPUTS = ("qam", GAUSSIAN)

_LOWEST_DB, _HIGHEST_DB, _STEPS_PER_DB = -50, 70, 20


@lru_cache(maxsize=8)
def _table(modulation: str) -> tuple[Tensor, Tensor]:
    """Return mutual information and dispersion per symbol at SNRs in equal steps of dB, float64 [T]
    each.
    """
    grid = np.linspace(_LOWEST_DB, _HIGHEST_DB, (_HIGHEST_DB - _LOWEST_DB) * _STEPS_PER_DB + 1)
    found = qam_information(modulation, grid)
    return torch.from_numpy(found.mean), torch.from_numpy(found.variance)


def _at(table: Tensor, snr_db: Tensor) -> Tensor:
    """Interpolate a table of `_table` at SNRs in dB, float64 of any shape."""
    return interpolate(table, _LOWEST_DB, 1 / _STEPS_PER_DB, snr_db.to(torch.float64))


@register("ideal")
class IdealLink:
    """An ideal code over a flat symbol channel, with the channel uses of a real code of its rate.

    over: a flat symbol channel: `awgn`, or block fading; its fades are those under `coded`.
    modulation, code_rate, packet_bytes, crc: as for `coded`; they determine the numbers of bits,
    with the CRC, and of symbols, and the code blocks. inputs: `qam`, the equally likely points of
    the modulation, or `gaussian`, the best input. law: `finite_length`, the normal approximation
    for each code block (of some hundred symbols or more), or `capacity`, a threshold.

    Error detection is ideal: a delivered packet is correct.

    >>> IdealLink(modulation="16qam").uses_per_packet(96)
    396
    """

    name = "ideal"
    needs: tuple[str, ...] = ("snr_db",)

    def __init__(
        self,
        over: object = "awgn",
        modulation: str = "qpsk",
        code_rate: float = 0.5,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        crc: str = "crc24a",
        inputs: str = "qam",
        law: str = "finite_length",
    ) -> None:
        carrier = from_spec(SYMBOL_CHANNELS, over)
        if not isinstance(carrier, Flat):
            raise ConfigError(
                f"{self.name}: over={carrier.name!r} as set is not flat: a packet must have "
                f"one gain that the receiver knows: {ONE_GAIN}"
            )
        self.over: Flat = carrier
        self.modulation = choice(self.name, "modulation", modulation, BITS_PER_SYMBOL)
        self.bits_per_symbol = BITS_PER_SYMBOL[self.modulation]
        self.code_rate = number(self.name, "code_rate", code_rate, LOWEST_RATE, HIGHEST_RATE)
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, 65535)
        self.crc = choice(self.name, "crc", crc, CRC_BITS)
        self.inputs = choice(self.name, "inputs", inputs, INPUTS)
        self.law = choice(self.name, "law", law, LAWS)
        self.layout = layout(
            8 * self.packet_bytes + CRC_BITS[self.crc], self.code_rate, self.bits_per_symbol
        )

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets; reads the condition `snr_db`, mean Es/N0 in dB, [N], SNR_RANGE_DB.

        Raises ChannelError if a packet is too long, or the SNR is missing, NaN or out of range.
        """
        links, slots = packets.lengths.shape
        device = packets.device
        snr_db = condition(self.name, conditions, "snr_db", links, *SNR_RANGE_DB, device)
        if len(randomness) != links:
            raise ValueError(f"{len(randomness)} random streams for {links} links")
        uses = self._symbols(packets.lengths)
        streams = randomness.to(device)
        gain = self.over.gains(streams, Timing(packets.groups, packets.times_s))
        gain = gain.to(torch.float64)
        lost = self.error_probability(snr_db[:, None] + 10 * torch.log10(gain))  # [N, P]
        present = packets.present
        delivered = present & (streams.child("ideal").uniform(slots) >= lost)
        count = present.sum(dim=1)
        mean = (gain * present).sum(dim=1) / count.clamp(min=1)
        realised = torch.where(count > 0, snr_db + 10 * torch.log10(mean), snr_db)
        zero = torch.zeros(links, slots, dtype=torch.float64, device=device)
        return Reception(
            packets=packets.keep(delivered),
            delivered=delivered,
            correct=delivered,
            channel_uses=uses.sum(dim=1),
            delay_s=zero.masked_fill(~delivered, torch.inf),
            ledger=self._ledger(packets.lengths),
            statistics={"snr_db": realised},
        )

    def error_probability(self, snr_db: Tensor) -> Tensor:
        """Return the packet error probability at SNRs in dB, float64 of the same shape."""
        plan = self.layout
        symbols = plan.words * plan.n // self.bits_per_symbol
        means, variances = _table(GAUSSIAN if self.inputs == GAUSSIAN else self.modulation)
        margin = symbols * _at(means, snr_db) - plan.k
        if self.law == "capacity":
            return (margin < 0).to(torch.float64)
        variance = symbols * _at(variances, snr_db)
        reals = 1 if (self.inputs, self.modulation) == ("qam", "bpsk") else 2
        margin = margin + 0.5 * math.log2(reals * symbols)
        block = 0.5 * torch.erfc(margin / torch.sqrt(2 * variance.clamp(min=1e-9)))
        return -torch.expm1(plan.blocks * torch.log1p(-block))

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Return the complex symbols of one packet.

        Raises ChannelError if it is longer than `packet_bytes`.
        """
        return int(self._symbols(torch.tensor(packet_bytes)))

    def _symbols(self, lengths: Tensor) -> Tensor:
        longest = int(lengths.max()) if lengths.numel() else 0
        if longest > self.packet_bytes:
            raise ChannelError(
                f"{self.name}: a packet of {longest} bytes is too long, the code carries 1 to "
                f"{self.packet_bytes}: raise packet_bytes"
            )
        return (lengths > 0) * (self.layout.coded_bits // self.bits_per_symbol)

    def _ledger(self, lengths: Tensor) -> dict[str, Tensor]:
        count = (lengths > 0).sum(dim=1)
        payload = 8 * lengths.sum(dim=1)
        plan, parity = self.layout, CRC_BITS[self.crc]
        return {
            "payload": payload,
            "crc": count * parity,
            "fec": count * (plan.coded_bits - plan.blocks * plan.k),
            "padding": count * (plan.blocks * plan.k - parity) - payload,
        }
