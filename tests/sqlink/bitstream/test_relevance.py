"""What is kept is what scores highest, and tables learn from what is kept."""

from __future__ import annotations

import numpy as np

from sqlink.bitstream.relevance import fit_table, keep, layers, ranks


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


def test_tables_count_what_is_kept_only() -> None:
    """Code 1 sits on the relevant half alone: at half kept, code 0 is never counted."""
    indices = np.zeros((4, 8, 8), dtype=np.int64)
    indices[:, :4] = 1
    scores = indices.astype(np.float32)
    table = fit_table(indices, scores, 3, fractions=(0.5,))
    assert table.counts.tolist() == [1, 129, 1]
    informed = fit_table(indices, scores, 3, np.eye(3, dtype=np.float32), (0.5,), clusters=3)
    assert informed.contexts is not None
    parts = [indices[:1], indices[1:]], [scores[:1], scores[1:]]
    apart = fit_table(*parts, 3, np.eye(3, dtype=np.float32), (0.5,), clusters=3)
    np.testing.assert_array_equal(apart.contexts, informed.contexts)
    assert informed.contexts.shape == (5, 3)
