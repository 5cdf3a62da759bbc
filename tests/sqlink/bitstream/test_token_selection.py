"""What is kept is what scores highest."""

from __future__ import annotations

import numpy as np

from sqlink.bitstream.token_selection import keep, layers, ranks


def test_the_highest_scores_are_kept() -> None:
    scores = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    rank = ranks(scores)
    indices = np.arange(105).reshape(3, 5, 7)
    for count in (1, 12, 35):
        kept = keep(indices, rank, count) >= 0
        assert (kept.sum(axis=(1, 2)) == count).all()
        for grid, chosen in zip(scores, kept, strict=True):
            assert count == 35 or grid[chosen].min() > grid[~chosen].max()


def test_layers_share_what_is_kept_equally() -> None:
    rank = ranks(np.random.default_rng(1).random((6, 6)).astype(np.float32))
    found = layers(rank, 20, 2)
    assert ((found == 0) & (rank < 20)).sum() == 10
    assert rank[found == 0].max() < rank[(found == 1) & (rank < 20)].min()
