"""Attenuation in bursts."""

from __future__ import annotations

import pytest
import torch

from channels.fading.base import Timing
from channels.fading.block import Rayleigh
from channels.fading.shadowing import GilbertElliott
from tests.channels.fading.conftest import keys, timing


def test_attenuation_in_bursts_is_that_of_the_chain_and_one_in_the_mean() -> None:
    channel = GilbertElliott(depth_db=10, bad=0.25, burst=5)
    gains = channel.gains(keys(40_000), Timing.together(40_000, 12))
    good, bad = channel.state_gains
    assert sorted(gains.unique().tolist()) == pytest.approx([bad, good])
    assert good / bad == pytest.approx(10)
    assert 0.75 * good + 0.25 * bad == pytest.approx(1)
    low = gains < 1
    for slot in (0, 11):
        assert float(low[:, slot].float().mean()) == pytest.approx(0.25, abs=0.008)
    stays = (low[:, :-1] & low[:, 1:]).sum() / low[:, :-1].sum()
    assert float(stays) == pytest.approx(0.8, abs=0.005)


def test_a_depth_of_nothing_is_what_the_bursts_are_over() -> None:
    flat = Rayleigh("picture")
    channel = GilbertElliott(0, 0.3, 8, over={"rayleigh": {"coherence": "picture"}})
    when = timing(3, 6)
    assert torch.equal(channel.gains(keys(3), when), flat.gains(keys(3), when))
