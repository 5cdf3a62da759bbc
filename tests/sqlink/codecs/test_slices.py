"""Files in slices: every byte is sent once, and what is decoded stops at the first loss."""

from __future__ import annotations

import pytest
import torch

from sqlink.codecs.base import OUTAGE_COLOUR, Received, Session
from sqlink.codecs.slices import beginning, decode_each, sliced, to_image, to_pixels

FILE = bytes(range(250))
SESSION = Session("jpeg", 16, 24)


@pytest.mark.parametrize("packet_bytes", [1, 96, 125, 250, 300])
@pytest.mark.parametrize("ranked", [True, False])
def test_slices_join_to_the_file_and_account_for_every_bit(packet_bytes: int, ranked: bool) -> None:
    stream = sliced(SESSION, FILE, packet_bytes, ranked)
    assert b"".join(packet.data for packet in stream.packets) == FILE
    assert {len(packet.data) for packet in stream.packets[:-1]} <= {packet_bytes}
    assert stream.ledger == {"session": 0, "payload": 8 * len(FILE)}
    ranks = [packet.priority for packet in stream.packets]
    assert ranks == (list(range(len(ranks))) if ranked else [0] * len(ranks))
    assert beginning(Received.whole(stream)) == (FILE, True)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_only_what_came_before_the_first_loss_is_joined(lost: int) -> None:
    stream = sliced(SESSION, FILE, 96, ranked=True)
    pieces = tuple(None if n == lost else p.data for n, p in enumerate(stream.packets))
    assert beginning(Received(SESSION, pieces)) == (FILE[: 96 * lost], False)


def test_pictures_are_decoded_one_by_one_and_what_fails_is_an_outage() -> None:
    picture = torch.randint(0, 256, (3, 16, 24), generator=torch.Generator().manual_seed(2))
    image = picture.float() / 255
    assert torch.equal(to_image(to_pixels(image[None])[0]), image)
    received = [Received(SESSION, (b"good",)), Received(SESSION, (b"bad",))]
    decoded = decode_each(received, lambda one: image if one.packets == (b"good",) else None)
    assert decoded.outage.tolist() == [False, True]
    assert decoded.segmentation is None
    assert torch.equal(decoded.images[0], image)
    assert decoded.images[1].mean((1, 2)).tolist() == pytest.approx(OUTAGE_COLOUR)
    with pytest.raises(ValueError, match="nothing to decode"):
        decode_each([], lambda one: None)
