"""The 21 bytes before the packets: what is written reads back, what is damaged is refused."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlink.bitstream import MODES
from sqlink.bitstream.packets import Packing
from sqlink.codecs.sqgan.session import SESSION_BYTES, SessionHeader, split_file
from sqlink.errors import DataError

headers = st.builds(
    SessionHeader,
    packing=st.builds(Packing, st.sampled_from(MODES), st.booleans()),
    height=st.integers(1, 65535),
    width=st.integers(1, 65535),
    packet_bytes=st.integers(32, 65535),
    step=st.integers(0, 255),
    weights=st.binary(min_size=3, max_size=3),
    colour=st.binary(min_size=3, max_size=3),
)


@given(headers, st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
def test_a_file_says_what_was_written(header: SessionHeader, packets: list[bytes]) -> None:
    data = header.to_bytes(packets) + b"".join(packets)
    found, own, body = split_file(data)
    assert (own, body) == (data[:SESSION_BYTES], b"".join(packets))
    assert found.to_bytes(packets) == own
    assert (found.height, found.width, found.step) == (header.height, header.width, header.step)
    assert (found.packing, found.weights) == (header.packing, header.weights)
    assert found.colour == header.colour


def test_fields_stand_where_the_format_says() -> None:
    data = SessionHeader(Packing("single"), 360, 480, 96, 7, b"abc", b"rgb").to_bytes([b"xyz"])
    assert data[:17] == b"SQG" + struct.pack(">BHHHB", 5 << 4 | 2, 360, 480, 96, 7) + b"abcrgb"
    assert int.from_bytes(data[17:]) == zlib.crc32(data[:17] + b"xyz")


@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    packets = [b"some packet", b"another"]
    whole = bytearray(SessionHeader(Packing(), 36, 48, 96, 0, b"abc", b"rgb").to_bytes(packets))
    whole += b"".join(packets)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DataError):
        split_file(bytes(whole))


@pytest.mark.parametrize("data", [b"", b"SQG", b"PNG" + bytes(40)])
def test_bytes_that_begin_otherwise_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"not a \.sqg stream"):
        SessionHeader.from_bytes(data)
