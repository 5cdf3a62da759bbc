"""Labels as a map to be sent: every pixel gets the class of the nearest labelled one."""

from __future__ import annotations

import pytest
import torch

from sqlink.data.classes import NO_LABEL
from sqlink.errors import DataError
from sqlink.segmentation.ground_truth import fill_unlabelled


def test_labelled_pixels_stay_and_others_take_a_nearest_neighbours_class() -> None:
    draws = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 11, (2, 13, 17), generator=draws)
    labels[torch.rand(labels.shape, generator=draws) < 0.6] = NO_LABEL
    filled = fill_unlabelled(labels)
    known = labels != NO_LABEL
    assert torch.equal(filled[known], labels[known])
    for n, y, x in (labels == NO_LABEL).nonzero().tolist():
        spots = known[n].nonzero()
        distance = ((spots - torch.tensor([y, x])) ** 2).sum(1)
        nearest = spots[distance == distance.min()]
        assert filled[n, y, x] in labels[n][nearest[:, 0], nearest[:, 1]]


def test_a_map_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match="map 1 of the batch has no labelled pixel"):
        fill_unlabelled(torch.stack([torch.zeros(4, 4), torch.full((4, 4), 255.0)]).long())
