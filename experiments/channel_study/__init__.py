"""The channel by itself: bit and packet error rates, runs of losses and delays, beside theory."""
