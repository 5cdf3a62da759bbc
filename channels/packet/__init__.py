"""Packet channels: they lose, delay, limit, permute or protect whole packets.

They know nothing of symbols; over a link of `channels.link` they become its last hop.
"""
