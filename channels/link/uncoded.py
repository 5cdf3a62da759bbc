"""Links without a code: hard decisions, and a packet with any bit error is lost."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import register
from channels.link.air import BitAir
from channels.link.base import Arrival, BaseLink, to_bits, to_bytes


@register("uncoded")
class UncodedLink(BaseLink):
    """An uncoded link: QAM with hard decisions, or a bit channel; any bit error loses the packet.

    over, modulation, symbol_rate_hz: as for `coded`. Error detection is ideal and free, so
    the link is a bound for links without coding. `delivered` and `correct` differ only if the
    receiver guesses an erased bit correctly.
    """

    name = "uncoded"
    _knows_the_truth = True

    def __init__(
        self,
        over: object = "awgn",
        modulation: str | None = None,
        symbol_rate_hz: float | None = None,
    ) -> None:
        super().__init__(over, modulation, symbol_rate_hz)

    def _symbols(self, lengths: Tensor) -> Tensor:
        return (8 * lengths + self.order - 1) // self.order

    def _ledger(self, lengths: Tensor, attempts: Tensor) -> dict[str, Tensor]:
        payload = 8 * lengths.sum(dim=1)
        sent = self._symbols(lengths).sum(dim=1) * self.order
        return {"payload": payload, "padding": sent - payload}

    def _bits(self, payload: Tensor, attempt: int) -> Tensor:
        bits = to_bits(payload)
        return torch.nn.functional.pad(bits, (0, -bits.shape[1] % self.order))

    def _receive(
        self, rows: tuple[Tensor, ...], lengths: Tensor, kept: Tensor | None, attempt: int
    ) -> Arrival:
        llr = self._air.llr(*rows)
        bits = (llr > 0).to(torch.float32)
        whole = bits.shape[1] - bits.shape[1] % 8
        accepted = torch.ones(len(bits), dtype=torch.bool, device=bits.device)
        if isinstance(self._air, BitAir):  # the receiver knows that an erased bit is lost
            beyond = torch.arange(llr.shape[1], device=llr.device) >= 8 * lengths[:, None]
            accepted = ((llr != 0) | beyond).all(dim=1)
        return Arrival(to_bytes(bits[:, :whole]), accepted)
