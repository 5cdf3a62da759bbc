"""Study of a channel alone: error rates, runs of losses and delays, compared with theory."""
