"""Allocation of protection to packets: most expected relevance for a budget of channel uses.

    options (uses, delivery/state) ───┐
    relevance of each packet ─────────┼──> allocate ──> classes of `unequal`
    budget of channel uses ───────────┘

Packets are ordered by relevance, the most relevant first. No packet has less protection (fewer
channel uses) than a later one, and the last packets may not be sent. The channel is in one of a few
states for a whole picture, as under block fading; given the state, losses are independent.

    independent   sum_i v_i P(packet i is delivered)
    prefix        sum_i v_i P(packets 0 to i are delivered): each packet needs all earlier ones

`independent`, and `prefix` with one state, are solved exactly by dynamic programming over packets
and channel uses, as ordered knapsack problems (Kellerer, Pferschy, Pisinger, "Knapsack problems",
2004, chapters 2 and 11). For `prefix` with several states, a local search moves packets between
options; it starts from these solutions and from the best equal protection, so its result is never
worse than the best equal protection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from channels.base import Packets
from channels.config.checks import choice, integer, number
from channels.errors import ConfigError
from channels.packet.unequal import Unequal
from channels.random import Randomness

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

DEPENDENCE = ("independent", "prefix")

_CELLS = 400_000_000
"""Largest table of packets x options x channel uses; beyond it, the unit of uses is larger."""

_MOST_USES = 10**12

_CANDIDATES = 2048
"""Allocations evaluated at once."""

_GAIN = 1e-12


@dataclass(frozen=True)
class Option:
    """An option of protection for a packet.

    uses: channel uses of one packet. delivery: probability of delivery in each state. settings: the
    keys of a class of `unequal` for this option, such as code_rate, modulation, copies.
    """

    uses: int
    delivery: tuple[float, ...]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Allocation:
    """The result of `allocate`.

    choice: number of the option of each packet, or -1 if it is not sent. value: expected delivered
    relevance. uses: channel uses of all packets. equal: the best option if all packets have the
    same one and as many are sent as the budget allows; equal_value: its expected delivered
    relevance. exact: whether the choice is proven optimal; if not, it is the best one found.
    """

    options: tuple[Option, ...]
    choice: tuple[int, ...]
    value: float
    uses: int
    equal: int
    equal_value: float
    exact: bool

    def classes(self) -> list[dict[str, object]]:
        """Return the classes of `unequal` for this choice; further packets are not sent."""
        classes: list[dict[str, object]] = []
        for option in dict.fromkeys(i for i in self.choice if i >= 0):
            count = sum(i == option for i in self.choice)
            classes.append({"packets": count, **self.options[option].settings})
        return [*classes, {"copies": 0}]

    def spec(self, over: object) -> dict[str, object]:
        """Return the description of the channel `unequal`, for `channels.config.build`.

        over: as for `unequal`.
        """
        return {"unequal": {"over": over, "classes": self.classes()}}


def allocate(
    options: Sequence[Option],
    relevance: Sequence[float],
    budget: int,
    states: Sequence[float] = (1.0,),
    dependence: str = "independent",
) -> Allocation:
    """Choose an option for each packet of a picture, within a budget of channel uses.

    relevance: of each packet, not negative and not rising. states: probabilities of the states.
    dependence: "independent" or "prefix". Raises ConfigError for a value out of range, or if the
    budget is too small for one packet.

    >>> strong, weak = Option(900, (0.99,), {"code_rate": 0.3}), Option(300, (0.7,))
    >>> allocate([strong, weak], [5.0, 1.0, 1.0, 1.0], 1800).choice
    (0, 1, 1, 1)
    """
    problem = _Problem.of(options, relevance, budget, states, dependence)
    equals = [problem.equal(k) for k in range(len(problem.uses))]
    values = problem.values(np.stack(equals))
    best_equal = int(values.argmax())
    found, exact = _exactly(problem)
    starts = [found, *equals]
    if not exact:
        loose, _ = _exactly(_Problem.independent(problem))
        starts += [_climb(problem, start) for start in (loose, found, equals[best_equal])]
    weighed = problem.values(np.stack(starts))
    counts = starts[int(weighed.argmax())]
    chosen = [problem.number_of[k] for k, count in enumerate(counts[:-1]) for _ in range(count)]
    return Allocation(
        options=tuple(options),
        choice=(*chosen, *[-1] * int(counts[-1])),
        value=float(weighed.max()),
        uses=int(problem.spent(counts[None])[0]),
        equal=problem.number_of[best_equal],
        equal_value=float(values[best_equal]),
        exact=exact,
    )


@dataclass(frozen=True)
class _Problem:
    """An allocation problem: K options, from the most to the least expensive, for P packets.

    An allocation is the number of packets with each option, in the order of packets, and the number
    of those not sent: int64 [K + 1], with the sum P. number_of: the user's number of each option.
    delivery: [K + 1, S], zero for "not sent".
    """

    uses: Counts
    delivery: Array
    number_of: tuple[int, ...]
    relevance: Array
    budget: int
    states: Array
    prefix: bool

    @classmethod
    def of(
        cls,
        options: Sequence[Option],
        relevance: Sequence[float],
        budget: int,
        states: Sequence[float],
        dependence: str,
    ) -> _Problem:
        if not options or not relevance or not states:
            raise ConfigError("allocate: options, relevance and states must not be empty")
        share = [number("allocate", "states", p, 0, 1) for p in states]
        if abs(sum(share) - 1) > 1e-6:
            raise ConfigError(f"allocate: states must add up to 1, got {sum(share):g}")
        for option in options:
            integer("allocate", "uses", option.uses, 1, _MOST_USES)
            if len(option.delivery) != len(states):
                raise ConfigError(
                    f"allocate: delivery={option.delivery!r} must have one value for each of the "
                    f"{len(states)} states"
                )
            for p in option.delivery:
                number("allocate", "delivery", p, 0, 1)
        worth = [number("allocate", "relevance", v, 0, 1e300) for v in relevance]
        if any(after > before for before, after in itertools.pairwise(worth)):
            raise ConfigError("allocate: relevance must not rise: sort packets, the largest first")
        cheapest = min(option.uses for option in options)
        integer("allocate", "budget", budget, cheapest, _MOST_USES)
        prefix = choice("allocate", "dependence", dependence, DEPENDENCE) == "prefix"
        probabilities = np.array(share) / sum(share)
        delivery = np.array([option.delivery for option in options], dtype=np.float64)
        uses = np.array([option.uses for option in options], dtype=np.int64)
        order = np.lexsort((-(delivery @ probabilities), -uses))
        delivery = np.concatenate([delivery[order], np.zeros((1, len(states)))])
        return cls(
            uses[order],
            delivery,
            tuple(order.tolist()),
            np.array(worth),
            min(budget, len(worth) * int(uses.max())),
            probabilities,
            prefix,
        )

    @classmethod
    def independent(cls, problem: _Problem) -> _Problem:
        """Return the same problem without dependence between packets."""
        return cls(
            problem.uses,
            problem.delivery,
            problem.number_of,
            problem.relevance,
            problem.budget,
            problem.states,
            False,
        )

    def spent(self, counts: Counts) -> Counts:
        """Return the channel uses of allocations [C, K + 1], int64 [C]."""
        return np.asarray(counts[:, :-1] @ self.uses, dtype=np.int64)

    def values(self, counts: Counts) -> Array:
        """Return the expected relevance of allocations [C, K + 1], float64 [C]."""
        packets = np.arange(len(self.relevance))
        option = (packets[None, :, None] >= counts.cumsum(axis=1)[:, None, :-1]).sum(axis=-1)
        if not self.prefix:
            come = (self.delivery @ self.states)[option]
        else:
            come = (self.delivery[option].cumprod(axis=1) * self.states).sum(axis=-1)  # [C, P]
        # Summed row by row, not by BLAS, so that a value does not depend on the other allocations.
        return np.asarray((come * self.relevance).sum(axis=-1))

    def equal(self, option: int) -> Counts:
        """Return the allocation of one option to as many packets as the budget allows."""
        counts = np.zeros(len(self.uses) + 1, dtype=np.int64)
        counts[option] = min(len(self.relevance), self.budget // int(self.uses[option]))
        counts[-1] = len(self.relevance) - counts[option]
        return counts


def _exactly(problem: _Problem) -> tuple[Counts, bool]:
    """Return a solution by dynamic programming, and whether it is proven optimal.

    It is not proven optimal for `prefix` with several states, which uses the mean over the states,
    and for a large table, which counts channel uses in larger units.
    """
    mean = problem.delivery[:-1] @ problem.states
    packets, kinds = len(problem.relevance), len(problem.uses)
    unit = math.gcd(*problem.uses.tolist())
    coarse = -(-packets * kinds * problem.budget // _CELLS)
    exact = coarse <= unit and not (problem.prefix and len(problem.states) > 1)
    unit = max(unit, coarse)
    uses = [-(-int(u) // unit) for u in problem.uses]
    size = problem.budget // unit
    solve = _prefix_table if problem.prefix else _independent_table
    choice = solve(uses, mean, problem.relevance, size)
    return np.bincount(choice, minlength=kinds + 1).astype(np.int64), exact


def _independent_table(uses: list[int], delivery: Array, worth: Array, size: int) -> list[int]:
    """Return the option of each packet, K if it is not sent.

    best[j, b]: largest value of the first j packets, all sent, for b uses with the options up to
    the present one. Packets are processed in order, and an option follows itself or a more
    expensive one.
    """
    packets, kinds = len(worth), len(uses)
    best = np.full((packets + 1, size + 1), -np.inf)
    best[0] = 0
    taken = np.zeros((kinds, packets + 1, (size + 8) // 8), dtype=np.uint8)
    for k, cost in enumerate(uses):
        for j in range(1, packets + 1):
            if cost > size:
                break
            gained = best[j - 1, : size + 1 - cost] + worth[j - 1] * delivery[k]
            better = np.zeros(size + 1, dtype=bool)
            better[cost:] = gained > best[j, cost:]
            best[j, cost:] = np.maximum(best[j, cost:], gained)
            taken[k, j] = np.packbits(better)
    j, k, left = int(best[:, size].argmax()), kinds - 1, size
    choice = [kinds] * packets
    while j > 0:
        if taken[k, j, left >> 3] >> (7 - (left & 7)) & 1:
            choice[j - 1] = k
            left -= uses[k]
            j -= 1
        else:
            k -= 1
    return choice


def _prefix_table(uses: list[int], delivery: Array, worth: Array, size: int) -> list[int]:
    """Return the option of each packet, K if it is not sent.

    best[i, b]: largest value of packets i and later, given all earlier ones, for b uses with the
    present option and cheaper ones. The table is filled from the last packet and the cheapest
    option.
    """
    packets, kinds = len(worth), len(uses)
    best = np.zeros((packets + 1, size + 1))
    taken = np.zeros((kinds, packets, (size + 8) // 8), dtype=np.uint8)
    for k in range(kinds - 1, -1, -1):
        cost = uses[k]
        for i in range(packets - 1, -1, -1):
            if cost > size:
                break
            gained = delivery[k] * (worth[i] + best[i + 1, : size + 1 - cost])
            better = np.zeros(size + 1, dtype=bool)
            better[cost:] = gained > best[i, cost:]
            best[i, cost:] = np.maximum(best[i, cost:], gained)
            taken[k, i] = np.packbits(better)
    choice, k, left = [kinds] * packets, 0, size
    for i in range(packets):
        while k < kinds and not taken[k, i, left >> 3] >> (7 - (left & 7)) & 1:
            k += 1
        if k == kinds:
            break
        choice[i] = k
        left -= uses[k]
    return choice


def _climb(problem: _Problem, counts: Counts) -> Counts:
    """Move packets between options, one or two moves at a time, while the value rises."""
    value = float(problem.values(counts[None])[0])
    while True:
        tried = _neighbours(problem, counts)
        if not len(tried):
            return counts
        parts = np.array_split(tried, -(-len(tried) // _CANDIDATES))
        values = np.concatenate([problem.values(part) for part in parts])
        best = int(values.argmax())
        if values[best] <= value * (1 + _GAIN):
            return counts
        counts, value = tried[best], float(values[best])


def _neighbours(problem: _Problem, counts: Counts) -> Counts:
    """Return the allocations within the budget that are one or two moves away, int64 [C, K + 1].

    The first move takes 1, 2, 4 ... or all packets of an option to another option. The second move
    takes the smallest number that returns to the budget, or the largest number that it allows.
    """
    kinds = len(counts)
    cost = np.append(problem.uses, 0)
    source, target = (~np.eye(kinds, dtype=bool)).nonzero()
    step = np.eye(kinds, dtype=np.int64)[target] - np.eye(kinds, dtype=np.int64)[source]
    powers = 1 << np.arange(len(problem.relevance).bit_length())
    moved = np.minimum(powers[None], counts[source][:, None])  # [pairs, powers]
    first = (counts + moved[..., None] * step[:, None]).reshape(-1, kinds)
    first = np.unique(first, axis=0)

    slack = problem.budget - problem.spent(first)[:, None]  # [C, 1]
    extra_cost = (cost[target] - cost[source])[None]  # [1, pairs]
    unit = np.maximum(np.abs(extra_cost), 1)
    most = np.where(
        extra_cost > 0, slack // unit, np.where(slack < 0, -(slack // unit), powers[-1])
    )
    amount = np.clip(most, 0, first[:, source])
    second = (first[:, None] + amount[..., None] * step).reshape(-1, kinds)
    both = np.unique(np.concatenate([first, second]), axis=0)
    return both[problem.spent(both) <= problem.budget]


def measured_options(
    over: object,
    settings: Sequence[Mapping[str, object]],
    value: float,
    randomness: Randomness,
    packets: int = 16,
    packet_bytes: int = 96,
    states: int = 1,
    condition: str = "snr_db",
    uses: Sequence[int] | None = None,
) -> tuple[list[Option], tuple[float, ...]]:
    """Measure the delivery probabilities of options, and the states' probabilities, by simulation.

    over: the common channel. settings: the keys of a class of `unequal` for each option. value: of
    the condition. uses: channel uses of a packet with each option, instead of the channel's; needed
    if the channel counts no symbols. randomness: one stream per link; the fades and the noise are
    equal for all options. packets: number of packets per link. states: number of equal groups of
    links by their realised mean SNR (statistic `snr_db`), 1 to the number of links; about 8 suffice
    for fading that is constant over a picture. Raises ConfigError for a wrong setting, ChannelError
    if the channel refuses.
    """
    links = len(randomness)
    integer("measured_options", "packets", packets, 1, 100_000)
    integer("measured_options", "packet_bytes", packet_bytes, 1, 65535)
    integer("measured_options", "states", states, 1, links)
    words = randomness.child("data").integers(packets * packet_bytes) & 0xFF
    payload = words.to(torch.uint8).reshape(links, packets, packet_bytes)
    whole = torch.full((links, packets), packet_bytes, device=payload.device)
    order = torch.arange(packets, device=payload.device).expand(links, packets)
    sent = Packets(payload, whole, order)
    given = torch.full((links,), float(value), dtype=torch.float64, device=payload.device)
    options: list[Option] = []
    group: torch.Tensor | None = None
    for number_of, one in enumerate(settings):
        channel = Unequal(over, [one])
        each = channel.uses_per_packet(packet_bytes) if uses is None else uses[number_of]
        if each is None:
            raise ConfigError("measured_options: the channel counts no symbols: give uses")
        got = channel.transmit(sent, {condition: given}, randomness.child("channel"))
        if group is None:
            if states > 1 and "snr_db" not in got.statistics:
                raise ConfigError(
                    f"measured_options: states={states} needs a channel that reports snr_db: use 1"
                )
            rank = torch.zeros(links, dtype=torch.int64, device=payload.device)
            if states > 1:
                rank = torch.argsort(torch.argsort(got.statistics["snr_db"], stable=True))
            group = rank * states // links
        share = got.correct.to(torch.float64).mean(dim=1)
        total = torch.zeros(states, dtype=torch.float64, device=share.device)
        members = torch.bincount(group, minlength=states)
        delivery = total.scatter_add_(0, group, share) / members
        options.append(Option(each, tuple(delivery.tolist()), dict(one)))
    if group is None:
        raise ConfigError("measured_options: settings must name at least one option")
    shares = torch.bincount(group, minlength=states).to(torch.float64) / links
    return options, tuple(shares.tolist())
