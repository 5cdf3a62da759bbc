"""Confusion matrices and IoU against torchmetrics, brute force, and rules for absent classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlink.errors import DataError
from sqlink.metrics.semantic import accuracy, confusion, iou, miou


def _maps(seed: int, n: int = 3, classes: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n, 20, 30), generator=generator)
    guess = torch.randint(0, classes, labels.shape, generator=generator)
    right = torch.rand(labels.shape, generator=generator) < 0.6
    predicted = torch.where(right, labels, guess)
    void = torch.rand(labels.shape, generator=generator) < 0.1
    return predicted, torch.where(void, 255, labels)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(2, 11))
def test_confusion_counts_pixels(seed: int, classes: int) -> None:
    predicted, labels = _maps(seed, n=2, classes=classes)
    expected = torch.zeros(2, classes, classes, dtype=torch.int64)
    for n in range(2):
        for p, q in zip(predicted[n].flatten().tolist(), labels[n].flatten().tolist(), strict=True):
            if q != 255:
                expected[n, q, p] += 1
    assert torch.equal(confusion(predicted, labels, classes), expected)


def test_agrees_with_torchmetrics_where_every_class_occurs() -> None:
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_confusion_matrix,
        multiclass_jaccard_index,
    )

    predicted, labels = _maps(7)
    matrix = confusion(predicted, labels).sum(dim=0)
    assert torch.equal(matrix, multiclass_confusion_matrix(predicted, labels, 11, ignore_index=255))
    each = multiclass_jaccard_index(predicted, labels, 11, average=None, ignore_index=255)
    torch.testing.assert_close(iou(matrix).float(), each)
    mean = multiclass_jaccard_index(predicted, labels, 11, average="macro", ignore_index=255)
    assert miou(matrix).item() == pytest.approx(mean.item(), abs=1e-6)
    share = multiclass_accuracy(predicted, labels, 11, average="micro", ignore_index=255)
    assert accuracy(matrix).item() == pytest.approx(share.item(), abs=1e-6)


def test_a_class_without_labels_has_no_iou_but_costs_those_it_was_taken_from() -> None:
    labels = torch.tensor([[[0, 0, 0, 1]]])
    predicted = torch.tensor([[[0, 0, 2, 1]]])
    scores = iou(confusion(predicted, labels, 3))[0]
    assert scores[:2].tolist() == pytest.approx([2 / 3, 1.0])
    assert math.isnan(scores[2])
    assert miou(confusion(predicted, labels, 3)).item() == pytest.approx(5 / 6)


def test_miou_of_a_set_is_that_of_the_sum() -> None:
    predicted, labels = _maps(9)
    matrices = confusion(predicted, labels)
    at_once = confusion(predicted.reshape(1, -1, 30), labels.reshape(1, -1, 30))
    assert miou(matrices.sum(dim=0)).item() == miou(at_once)[0].item()
    assert matrices.sum().item() == (labels != 255).sum().item()


def test_nothing_labelled_gives_nan() -> None:
    empty = confusion(torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 255))
    assert math.isnan(miou(empty).item())
    assert math.isnan(accuracy(empty).item())


def test_predictions_under_no_label_do_not_matter_but_wrong_ids_do() -> None:
    labels = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    assert confusion(torch.tensor([[[0, 255]]]), labels).sum().item() == 1
    with pytest.raises(DataError, match="predicted map holds class id 11"):
        confusion(torch.tensor([[[11, 0]]]), labels)
    with pytest.raises(DataError, match="label map holds class id 12"):
        confusion(torch.tensor([[[0, 0]]]), torch.tensor([[[12, 0]]]))
    with pytest.raises(DataError, match="one shape"):
        confusion(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
