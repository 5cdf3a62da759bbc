"""Packet channels, which lose, delay, limit, permute or protect whole packets.

They do not depend on symbols, and may stand alone or around a link of `channels.link`.
"""

BUILT_IN = {
    "bottleneck": "channels.packet.queueing",
    "delay": "channels.packet.delay",
    "gilbert_elliott": "channels.packet.erasure",
    "iid_erasure": "channels.packet.erasure",
    "interleave": "channels.packet.interleaver",
    "lossless": "channels.packet.erasure",
    "raptorq": "channels.packet.raptorq",
    "rate_limit": "channels.packet.rate_limit",
    "token_bucket": "channels.packet.queueing",
    "trace": "channels.packet.trace",
    "unequal": "channels.packet.unequal",
}
"""Name -> the module that registers the packet channel."""
