"""Packet channels: they lose, delay, limit, permute or protect whole packets.

They know nothing of symbols; over a link of `channels.link` they become its last hop.
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
