"""Channels: packets in, packets out; nothing here knows of pictures."""
