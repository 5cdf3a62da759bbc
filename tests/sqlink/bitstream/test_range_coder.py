"""The range coder's ends: nothing shorter decodes, and what is written does."""

from __future__ import annotations

import constriction
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlink.bitstream.range_coder import decoder, encoder, shortest_bytes


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=80), st.integers(0, 2**32 - 1))
def test_symbols_come_back_from_the_shortest_bytes(symbols: list[int], seed: int) -> None:
    chances = np.random.default_rng(seed).dirichlet(np.full(10, 0.3)) + 1e-6
    model = constriction.stream.model.Categorical(chances / chances.sum(), perfect=False)
    coder = encoder()
    for symbol in symbols:
        coder.encode(symbol, model)
        data = shortest_bytes(coder)
    if not symbols:
        assert shortest_bytes(coder) == b""
        return
    for tail in (b"", b"\0", bytes(7)):
        assert decoder(data + tail).decode(model, len(symbols)).tolist() == symbols
    information = -np.log2(chances / chances.sum())[symbols].sum()
    assert 8 * len(data) < information + 16


def test_it_is_never_longer_than_the_coder_itself_writes() -> None:
    """And shorter by 1.7 bytes or more on average: the spare of whole 32-bit words."""
    model = constriction.stream.model.Uniform(1000)
    saved = []
    for seed in range(200):
        coder = encoder()
        rng = np.random.default_rng(seed)
        coder.encode(rng.integers(0, 1000, rng.integers(1, 60)).astype(np.int32), model)
        saved.append(4 * coder.num_words() - len(shortest_bytes(coder)))
    assert min(saved) >= 0
    assert np.mean(saved) >= 1.5
