"""A Markov chain with two states, good and bad, for losses and attenuation in bursts."""

from __future__ import annotations

import torch
from torch import Tensor


def two_states(draws: Tensor, first: Tensor, enter: Tensor, stay: float) -> Tensor:
    """Return the slots in which a two-state chain is bad, bool [N, P], from uniform draws [N, P].

    first: [N], probability of the bad state in slot 0. enter: [N], probability of good -> bad.
    stay: probability of bad -> bad. A draw below both `enter` and `stay` makes its slot bad, and a
    draw above both makes it good, whatever the previous state: such a draw is decisive. A draw
    between them keeps the state (or flips it, if enter > stay). The last decisive draw determines
    the state of each slot, so that all slots are computed at once.
    """
    slots = draws.shape[1]
    low, high = enter.clamp(max=stay)[:, None], enter.clamp(min=stay)[:, None]
    becomes = draws < low
    decides = becomes | (draws >= high)
    becomes[:, :1] = draws[:, :1] < first[:, None]
    decides[:, :1] = True
    number_of = torch.arange(slots, device=draws.device).expand_as(draws)
    last = torch.where(decides, number_of, 0).cummax(dim=1).values  # [N, P]
    turns = (~decides & (enter > stay)[:, None]).cumsum(dim=1)
    since = turns - turns.gather(1, last)
    return becomes.gather(1, last) ^ (since % 2 == 1)
