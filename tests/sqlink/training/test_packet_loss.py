"""Training loses what channels lose: the packets of the packetiser, alone, in bursts, the first."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from sqlink.bitstream import Tables, Tokens, packetise, unpacketise
from sqlink.training.packet_loss import PacketLoss, draw_packet_losses, most_packets, packets_of

GRID = (16, 20)
ONLY = {
    "packets": (1.0, 0.0, 0.0, 0.0, 0.0),
    "bursts": (0.0, 1.0, 0.0, 0.0, 0.0),
    "first": (0.0, 0.0, 1.0, 0.0, 0.0),
    "tail": (0.0, 0.0, 0.0, 1.0, 0.0),
    "places": (0.0, 0.0, 0.0, 0.0, 1.0),
}


def drawn(settings: PacketLoss, batch: int = 400, kept: float = 0.5) -> tuple[Tensor, Tensor]:
    share = torch.full((batch,), kept)
    generator = torch.Generator().manual_seed(9)
    return draw_packet_losses((batch, *GRID), (share, share), settings, generator)


def only(kind: str, **changes: object) -> PacketLoss:
    values = {"clean": 0.0, "stream": 0.0, "packet_bytes": (64,), "kinds": ONLY[kind]}
    return dataclasses.replace(PacketLoss(), **(values | changes))  # type: ignore[arg-type]


def of_packets(kept: float = 0.5, size: int = 64) -> tuple[Tensor, int]:
    share = torch.full((1,), kept)
    number, count = packets_of(GRID, (share, share), torch.tensor([size]), PacketLoss().index_bits)
    return number[0].view(GRID), int(count)


@pytest.mark.parametrize("kept", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("size", [64, 128])
def test_the_cuts_are_nearly_those_of_the_packetiser(kept: float, size: int) -> None:
    """Tokens of 128 equally likely codes, kept at random in rows, through the real packetiser."""
    codes, places = 128, GRID[0] * GRID[1]
    draw = np.random.Generator(np.random.Philox(key=4))
    grids = []
    for _ in range(2):
        ranked = np.argsort(np.argsort(draw.random(GRID) + np.arange(GRID[0])[:, None] / 8, None))
        sent = ranked.reshape(GRID) < kept * places
        grids.append(np.where(sent, draw.integers(0, codes, GRID), -1))
    tables = Tables.uniform(codes, codes)
    layers = np.zeros(GRID, dtype=np.int64)
    packets = packetise(Tokens(grids[0], grids[1], layers, layers), tables, size)
    share = torch.full((1,), kept)
    number_of, count = packets_of(GRID, (share, share), torch.tensor([size]), (7.0, 7.0))
    assert int(count) == pytest.approx(len(packets), rel=0.15, abs=1)
    away = []
    for number, packet in enumerate(packets):
        alone = unpacketise([packet.data], *GRID, tables)
        for held in alone:
            away.append(np.abs(number_of[0].numpy()[held.ravel() >= 0] - number))
    assert np.concatenate(away).mean() < 0.6
    assert np.concatenate(away).max() <= 2


def test_a_packet_is_lost_or_comes_as_a_whole() -> None:
    packet, count = of_packets()
    image, of_map = drawn(only("packets", rate=(0.3, 0.3)))
    for number in range(count):
        held = torch.cat((image[:, packet == number], of_map[:, packet == number]), 1)
        assert (held.all(1) | ~held.any(1)).all()
    assert 1 - torch.cat((image, of_map)).float().mean() == pytest.approx(0.3, abs=0.02)


def test_bursts_take_neighbouring_packets() -> None:
    packet, count = of_packets(1.0)
    first = torch.tensor([int((packet == n).flatten().nonzero()[0]) for n in range(packet.max())])
    rates = []
    for kind in ("packets", "bursts"):
        _, of_map = drawn(only(kind, rate=(0.3, 0.3)), kept=1.0)
        lost = ~of_map.flatten(1)[:, first]
        rates.append(float(lost[:, 1:][lost[:, :-1]].float().mean()))
    assert rates[0] == pytest.approx(0.3, abs=0.07)
    assert rates[1] > 0.6
    assert count > 5
    assert int(packet.max()) == count - 1


def test_the_first_packet_holds_some_of_map_and_image_and_is_lost() -> None:
    packet, count = of_packets()
    image, of_map = drawn(only("first"))
    assert (packet == 0).float().mean() == pytest.approx(1 / count, rel=0.2)
    for came in (image, of_map):
        assert not came[:, packet == 0].any()
        assert 0.6 < came.float().mean() < 0.95


def test_a_tail_is_what_a_rate_limit_takes() -> None:
    packet, count = of_packets()
    image, of_map = drawn(only("tail", rate=(0.4, 0.4)))
    left = round(count * 0.6)
    assert torch.equal(image, (packet < left).expand_as(image))
    assert torch.equal(of_map, (packet < left).expand_as(of_map))


def test_single_places_and_whole_streams_and_nothing_at_all() -> None:
    image, of_map = drawn(only("places", rate=(0.2, 0.2)))
    assert 1 - image.float().mean() == pytest.approx(0.2, abs=0.01)
    image, of_map = drawn(PacketLoss(clean=1.0, stream=0.0))
    assert image.all()
    assert of_map.all()
    image, of_map = drawn(PacketLoss(clean=1.0, stream=0.4))
    silent = [float((~part.flatten(1).any(1)).float().mean()) for part in (image, of_map)]
    assert silent == pytest.approx([0.2, 0.2], abs=0.06)
    image, of_map = drawn(only("packets", rate=(1.0, 1.0)))
    assert image.all()
    assert of_map.all()


def test_the_same_generator_draws_the_same_losses() -> None:
    once, again = drawn(PacketLoss()), drawn(PacketLoss())
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.85, 1.0])
def test_no_packet_is_beyond_the_most(kept: float) -> None:
    settings = PacketLoss(packet_bytes=(32,))
    share = torch.full((1,), kept)
    *_, count = packets_of(GRID, (share, share), torch.tensor([32]), settings.index_bits)
    assert int(count) <= most_packets(GRID, settings)


def test_training_needs_no_coder() -> None:
    command = (
        "import sys, sqlink.training.packet_loss, sqlink.training.trainer\n"
        "sys.exit('constriction' in sys.modules or 'sionna' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", command], check=True)
