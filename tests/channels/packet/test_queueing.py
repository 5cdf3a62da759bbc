"""Rates a second: the token bucket and the queue conserve bits and queue as theory says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kstest, ttest_1samp

from channels.base import Channel, Packets
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.packet.queueing import Bottleneck, TokenBucket
from channels.packet.rate_limit import RateLimit
from channels.random import Randomness
from tests.channels.packet.conftest import of

CHANNELS: list[tuple[str, dict[str, object]]] = [
    ("rate_limit", {"bits": 1600}),
    ("rate_limit", {"bytes": 220, "channel_uses": 850, "over": "uncoded"}),
    ("token_bucket", {"rate_bits_s": 6000, "depth_bits": 1600}),
    ("token_bucket", {"rate_bits_s": 6000, "depth_bits": 1600, "shape": True}),
    ("token_bucket", {"rate_bits_s": 6000, "depth_bits": 900, "shape": True, "deadline_s": 0.3}),
    ("bottleneck", {"bandwidth_bits_s": 6000}),
    ("bottleneck", {"bandwidth_bits_s": 6000, "queue_packets": 2}),
    ("bottleneck", {"bandwidth_bits_s": 6000, "queue_bytes": 150, "deadline_s": 0.2}),
]


def mixed(links: int, slots: int, seed: int = 1) -> Packets:
    """Pictures of four packets of 1 to 100 bytes, some missing, ten pictures a second."""
    draws = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 101, (links, slots), generator=draws)
    sizes = sizes * (torch.rand(links, slots, generator=draws) < 0.85)
    picture = (torch.arange(slots) // 4).expand(links, slots).contiguous()
    return replace(of(sizes, picture.double() / 10), group=picture)


def poisson(links: int, slots: int, rate: float, seed: int = 1) -> torch.Tensor:
    """Times of a Poisson process, float64 [N, P]."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, (links, slots))
    return torch.from_numpy(gaps.cumsum(axis=1))


def streams(links: int) -> Randomness:
    return Randomness.derive(9, [("rate", n) for n in range(links)])


SNR = {"snr_db": torch.full((1,), 30.0)}


def conditions(links: int) -> dict[str, torch.Tensor]:
    return {"snr_db": torch.full((links,), 9.0)}


@pytest.mark.parametrize(("name", "parameters"), CHANNELS)
def test_fates_depend_on_neither_what_follows_nor_on_the_batch(
    name: str, parameters: dict[str, object]
) -> None:
    channel = build({name: parameters})
    sent, keys = mixed(12, 24), streams(12)
    whole = channel.transmit(sent, conditions(12), keys)
    few = sent.select(slice(3, 7))
    assert few.offered_s is not None
    assert few.group is not None
    few = Packets(
        few.payload[:, :14],
        few.lengths[:, :14],
        few.priority[:, :14],
        few.offered_s[:, :14],
        few.group[:, :14],
    )
    got = channel.transmit(few, conditions(4), keys.select(slice(3, 7)))
    assert torch.equal(got.delivered, whole.delivered[3:7, :14])
    assert torch.equal(got.delay_s, whole.delay_s[3:7, :14])
    late = parameters.get("shape") and "deadline_s" not in parameters
    endless = name == "bottleneck" and len(parameters) == 1
    assert (int(whole.statistics["cut_packets"].sum()) > 0) != bool(late or endless)


@pytest.mark.parametrize(("name", "parameters"), CHANNELS)
def test_what_is_cut_and_what_is_carried_add_up(name: str, parameters: dict[str, object]) -> None:
    sent = mixed(12, 24)
    got = build({name: parameters}).transmit(sent, {"snr_db": torch.full((12,), 60.0)}, streams(12))
    carried = got.delivered
    assert torch.equal(got.statistics["cut_packets"], (sent.present & ~carried).sum(dim=1))
    assert torch.equal(got.statistics["cut_bits"], 8 * (sent.lengths * ~carried).sum(dim=1))
    assert torch.equal(got.ledger["payload"], 8 * (sent.lengths * carried).sum(dim=1))
    assert torch.equal(got.packets.payload[carried], sent.payload[carried])
    assert not bool(got.packets.lengths[~carried].any())
    assert bool(got.delay_s[~carried].isinf().all())
    assert got.delay_s.dtype == torch.float64


@pytest.mark.parametrize(("name", "parameters"), CHANNELS)
def test_no_packets_are_no_trouble(name: str, parameters: dict[str, object]) -> None:
    channel = build({name: parameters})
    for links, slots in ((2, 3), (2, 0), (0, 0)):
        nothing = torch.zeros(links, slots, dtype=torch.int64)
        sent = Packets(nothing[..., None].to(torch.uint8), nothing, nothing)
        got = channel.transmit(sent, conditions(links), streams(links))
        assert not bool(got.delivered.any())
        assert got.statistics["cut_bits"].tolist() == [0] * links


@pytest.mark.parametrize("shape", [False, True])
def test_in_no_window_does_more_pass_than_depth_and_rate_allow(shape: bool) -> None:
    links, slots, rate, depth = 20, 150, 3000.0, 2000.0
    sizes = torch.randint(1, 101, (links, slots), generator=torch.Generator().manual_seed(4))
    times = poisson(links, slots, 10.0)
    sent = of(sizes, times)
    got = TokenBucket(rate, depth, shape=shape).transmit(sent, {}, streams(links))
    most = 0.0
    for link in range(links):
        passed = got.delivered[link]
        at = (times + got.delay_s)[link][passed].numpy()
        bits = 8.0 * sizes[link][passed].numpy()
        assert bool((np.diff(at) >= 0).all())
        up_to = bits.cumsum()
        window = at[None, :] - at[:, None]
        carried = up_to[None, :] - (up_to - bits)[:, None]
        room = depth + rate * window - carried
        assert room[np.triu_indices(len(at))].min() > -0.01
        most = max(most, float((depth - room[np.triu_indices(len(at))]).max()))
    assert most > 0.99 * depth  # and that much does pass
    if shape:
        assert bool(got.delivered.all())


def test_a_saturated_bucket_passes_its_depth_and_its_rate() -> None:
    rate, depth, seconds_on = 4000.0, 1200.0, 2.0
    times = torch.linspace(0, seconds_on, 2001, dtype=torch.float64)[None]
    sent = of(torch.full((1, 2001), 1), times)
    passed = 8 * int(TokenBucket(rate, depth).transmit(sent, {}, streams(1)).delivered.sum())
    assert depth + rate * seconds_on - 8 < passed <= depth + rate * seconds_on
    # Shaped, what is offered all at once leaves on the line depth + rate t.
    burst = of(torch.full((1, 300), 10))
    delay = TokenBucket(rate, depth, shape=True).transmit(burst, {}, streams(1)).delay_s[0]
    law = (80 * torch.arange(1, 301, dtype=torch.float64) - depth).clamp(min=0) / rate
    assert torch.allclose(delay, law, atol=1e-9)


def test_a_bucket_fills_up_to_its_depth_between_pictures() -> None:
    times = torch.tensor([[0.0] * 4 + [1.0] * 4 + [9.0] * 4], dtype=torch.float64)
    sent = of(torch.full((1, 12), 100), times)
    policed = TokenBucket(800, 2400).transmit(sent, {}, streams(1))
    assert policed.delivered.int().tolist() == [[1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 0]]
    shaped = TokenBucket(800, 2400, shape=True).transmit(sent, {}, streams(1))
    assert torch.allclose(
        shaped.delay_s[0], torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 0, 0, 0, 1]).double()
    )
    capped = TokenBucket(800, 2400, shape=True, deadline_s=2).transmit(sent, {}, streams(1))
    assert capped.delivered.int().tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1]]
    assert capped.statistics["late_packets"].tolist() == [2]


def test_a_rate_that_is_just_enough_drops_nothing() -> None:
    times = torch.arange(1000, dtype=torch.float64)[None] / 30
    sent = of(torch.full((1, 1000), 96), times)
    for channel in (
        TokenBucket(96 * 8 * 30, 96 * 8),
        TokenBucket(96 * 8 * 30, 96 * 8, shape=True, deadline_s=0),
        Bottleneck(96 * 8 * 30, queue_packets=0, deadline_s=1 / 30),
    ):
        assert bool(channel.transmit(sent, {}, streams(1)).delivered.all())


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_the_mean_wait_is_that_of_an_m_d_1_queue(load: float) -> None:
    sent = of(torch.full((400, 350), 1), poisson(400, 350, load))  # a packet takes 1 s
    got = Bottleneck(8).transmit(sent, {}, streams(400))
    wait = (got.delay_s - 1)[:, 150:].mean(dim=1)
    assert ttest_1samp(wait.numpy(), load / (2 * (1 - load))).pvalue > 1e-3
    # Poisson arrivals see the line idle a share 1 - load of the time.
    idle = int((got.delay_s[:, -1] < 1 + 1e-9).sum())
    assert binomtest(idle, 400, 1 - load).pvalue > 1e-3


def test_the_wait_of_an_m_m_1_queue_is_exponential_where_there_is_one() -> None:
    load, links = 0.6, 3000
    bits = np.random.default_rng(3).exponential(80_000, (links, 100))
    sizes = torch.from_numpy(bits / 8).ceil().long()
    ranks = torch.arange(100).expand(links, 100)
    sent = Packets(torch.ones(links, 100, 0, dtype=torch.uint8), sizes, ranks)
    sent = replace(sent, offered_s=poisson(links, 100, load))
    got = Bottleneck(80_000).transmit(sent, {}, streams(links))
    wait = (got.delay_s[:, -1] - 8 * sizes[:, -1].double() / 80_000).numpy()
    assert binomtest(int((wait > 1e-9).sum()), links, load).pvalue > 1e-3
    assert kstest(wait[wait > 1e-9], "expon", args=(0, 1 / (1 - load))).pvalue > 1e-3


@pytest.mark.parametrize("load", [0.5, 1.5])
@pytest.mark.parametrize("queue", [{"queue_packets": 0}, {"queue_packets": 1}, {"queue_bytes": 2}])
def test_a_finite_queue_drops_as_theory_says(load: float, queue: dict[str, int]) -> None:
    size = 2
    sent = of(torch.full((3000, 60), size), poisson(3000, 60, load))
    got = Bottleneck(8 * size, **queue).transmit(sent, {}, streams(3000))
    # Erlang's B formula for M/D/1/1; the chain embedded at departures for M/D/1/2.
    loss = load / (1 + load)
    if queue != {"queue_packets": 0}:
        loss = 1 - 1 / (math.exp(-load) + load)
    assert binomtest(int((~got.delivered[:, -1]).sum()), 3000, loss).pvalue > 1e-3


@pytest.mark.parametrize(
    ("packets_held", "bytes_held", "deadline"),
    [(None, None, None), (3, None, None), (None, 180, None), (None, 250, 0.12), (None, None, 0.15)],
)
def test_a_bottleneck_equals_a_queue_served_packet_by_packet(
    packets_held: int | None, bytes_held: int | None, deadline: float | None
) -> None:
    sent = mixed(30, 40, seed=7)
    channel = Bottleneck(14_000, packets_held, bytes_held, deadline, propagation_s=0.02)
    got = channel.transmit(sent, {}, streams(30))
    for link in range(30):
        queue: list[tuple[float, int]] = []  # start of service, size
        free = 0.0
        for slot in range(40):
            size, now = int(sent.lengths[link, slot]), float(sent.times_s[link, slot])
            if not size:
                continue
            queue = [(start, held) for start, held in queue if start > now + 1e-9]
            begin = max(now, free)
            full = packets_held is not None and len(queue) + 1 > packets_held
            if bytes_held is not None:
                full = sum(held for _, held in queue) + size > bytes_held
            end = begin + 8 * size / 14_000
            late = deadline is not None and end - now + 0.02 > deadline + 1e-9
            carried = not late and (begin == now or not full)
            assert bool(got.delivered[link, slot]) == carried
            if carried:
                assert float(got.delay_s[link, slot]) == pytest.approx(end - now + 0.02)
                queue.append((begin, size))
                free = end


def test_the_most_relevant_packets_of_a_picture_enter_the_queue_first() -> None:
    sent = Packets(
        torch.ones(1, 6, 100, dtype=torch.uint8),
        torch.full((1, 6), 100),
        torch.tensor([[2, 0, 1, 1, 2, 0]]),
        torch.tensor([[0.0, 0, 0, 0.1, 0.1, 0.1]], dtype=torch.float64),
        torch.tensor([[0, 0, 0, 1, 1, 1]]),
    )
    got = Bottleneck(8000, queue_packets=1).transmit(sent, {}, streams(1))
    # At 0.1 s the second of picture 0 leaves the queue; the first of picture 1 waits behind it.
    assert got.delivered.int().tolist() == [[0, 1, 1, 0, 0, 1]]
    assert torch.allclose(got.delay_s[0, [1, 2, 5]], torch.tensor([0.1, 0.2, 0.2]).double())
    policed = TokenBucket(8000, 1600).transmit(sent, {}, streams(1))
    assert policed.delivered.int().tolist() == [[0, 1, 1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rate_limit", {}, "give bits or bytes, or channel_uses"),
        ("rate_limit", {"bits": 8, "bytes": 1}, "bits=8 and bytes=1: give one of them"),
        ("rate_limit", {"bits": 0}, "bits=0 must be an integer from 1 to 1000000000000"),
        ("rate_limit", {"bits": 8.5}, "bits=8.5 must be an integer"),
        ("rate_limit", {"bytes": True}, "bytes=True must be an integer"),
        ("rate_limit", {"bytes": float("nan")}, "bytes=nan must be an integer"),
        ("rate_limit", {"channel_uses": 9}, "channel_uses=9 needs `over`"),
        ("rate_limit", {"channel_uses": 9, "over": "lossless"}, "a channel that counts symbols"),
        ("rate_limit", {"channel_uses": -9, "over": "awgn"}, "channel_uses=-9 must be an integer"),
        ("rate_limit", {"bits": 9, "over": "awng"}, "did you mean 'awgn'"),
        ("token_bucket", {"rate_bits_s": 1}, "option 'depth_bits' is missing"),
        ("token_bucket", {"rate_bits_s": 0, "depth_bits": 9}, "rate_bits_s=0 must be from 1 to"),
        ("token_bucket", {"rate_bits_s": 9, "depth_bits": float("inf")}, "depth_bits=inf must be"),
        ("token_bucket", {"rate_bits_s": "9", "depth_bits": 9}, "rate_bits_s='9' must be a number"),
        ("token_bucket", {"rate_bits_s": 9, "depth_bits": 9, "shape": 1}, "shape=1 must be true"),
        (
            "token_bucket",
            {"rate_bits_s": 9, "depth_bits": 9, "deadline_s": 1},
            "deadline_s=1 needs shape: true",
        ),
        ("bottleneck", {"bandwidth_bits_s": float("nan")}, "bandwidth_bits_s=nan must be from 1"),
        ("bottleneck", {"bandwidth_bits_s": 9, "queue_packets": -1}, "queue_packets=-1 must be an"),
        ("bottleneck", {"bandwidth_bits_s": 9, "queue_bytes": 1.5}, "queue_bytes=1.5 must be an"),
        (
            "bottleneck",
            {"bandwidth_bits_s": 9, "queue_packets": 1, "queue_bytes": 1},
            "queue_packets=1 and queue_bytes=1: give one of them",
        ),
        ("bottleneck", {"bandwidth_bits_s": 9, "deadline_s": -1}, "deadline_s=-1 must be from 0"),
        ("bottleneck", {"bandwidth_bits_s": 9, "propagation_s": True}, "propagation_s=True must"),
    ],
)
def test_a_wrong_limit_is_refused(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({name: parameters})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        (RateLimit(bits=767), "bits=767 .* it must be from 768 to 1000000000000$"),
        (RateLimit(bytes=95), "bytes=95 .* it must be from 96 to"),
        (RateLimit(channel_uses=791, over="awgn"), "channel_uses=791 .* it must be from 792 to"),
        (TokenBucket(100, 767), "depth_bits=767 .* it must be from 768 to"),
    ],
)
def test_less_than_one_packet_is_refused(channel: Channel, message: str) -> None:
    with pytest.raises(ChannelError, match=message) as caught:
        channel.transmit(Packets.from_bytes([[bytes(96)]]), SNR, streams(1))
    assert "\n" not in str(caught.value)
