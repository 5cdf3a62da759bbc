"""Channels for packets, independent of pictures: links, fading, codes, losses and planning."""
