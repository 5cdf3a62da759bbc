"""The packet size of a channel: given to its parts, and compared with the packets they carry.

    {raptorq: {over: awgn, ...}} ── with_packet_size(48) ──> {over: {awgn: {packet_bytes: 48}}, ...}

A coded channel is built for one packet size and pads shorter packets to it: a channel built for 96
bytes would charge 96 for a packet of 48.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

from channels.base import CHANNELS, AddsHeader, Channel, FixedSize, TakesChannels, Wrapper
from channels.config.description import READY, name_and_parameters


def with_packet_size(spec: object, packet_bytes: int) -> object:
    """Return a channel's description with the packet size added to each part that takes one.

    A part that gives its own `packet_bytes` keeps it.

    >>> with_packet_size("awgn", 48)
    {'awgn': {'packet_bytes': 48}}
    >>> with_packet_size([{"iid_erasure": {"loss": 0.1}}], 48)
    [{'iid_erasure': {'loss': 0.1}}]
    >>> with_packet_size({"interleave": {"over": "awgn", "depth": 2, "width": 3}}, 48)
    {'interleave': {'over': {'awgn': {'packet_bytes': 48}}, 'depth': 2, 'width': 3}}
    """
    if isinstance(spec, list):
        return [with_packet_size(link, packet_bytes) for link in spec]
    name, parameters = name_and_parameters("channel", spec)
    registered = READY[name][0] if name in READY else name
    if registered not in CHANNELS.names():
        return spec
    factory = CHANNELS.get(registered)
    header = factory.header_bytes_for(parameters) if isinstance(factory, AddsHeader) else 0
    inside = packet_bytes + header
    nested: tuple[str, ...] = ()
    if isinstance(factory, TakesChannels):
        nested = factory.channel_parameters
    for path in nested:
        key, _, within = path.partition(".")
        value = parameters.get(key)
        if within and isinstance(value, list):
            value = [
                {**one, within: with_packet_size(one[within], inside)}
                if isinstance(one, Mapping) and within in one
                else one
                for one in value
            ]
        elif not within and value is not None:
            value = with_packet_size(value, inside)
        parameters = {**parameters, **({key: value} if key in parameters else {})}
    if "packet_bytes" in signature(factory).parameters:
        parameters = {"packet_bytes": packet_bytes, **parameters}
    return {name: parameters} if parameters else spec


def fixed_sizes(channel: Channel, packet_bytes: int) -> list[tuple[str, int, int]]:
    """Return the parts of a channel that are built for one packet size (`FixedSize`).

    packet_bytes: size of the packets offered to the whole channel. Returns, for each part, its
    name, the size it is built for, and the size of the packets it carries.

    >>> from channels.config.builder import build
    >>> fixed_sizes(build([{"iid": {"loss": 0.1}}, "awgn"]), 48)
    [('coded', 96, 48)]
    """
    found = []
    if isinstance(channel, FixedSize):
        found.append((channel.name, channel.packet_bytes, packet_bytes))
    if isinstance(channel, Wrapper):
        header = channel.header_bytes if isinstance(channel, AddsHeader) else 0
        for inner in channel.wrapped:
            found += fixed_sizes(inner, packet_bytes + header)
    return found
