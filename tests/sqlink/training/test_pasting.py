"""Pasting: rare classes of other pictures, picture and maps alike, never over a relevant class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sqlink.training.augmentation import CropSettings, ResidentPictures, draw_crops, step_generator
from sqlink.training.pasting import ComponentBank, component_bank

ROAD, CAR, SIGN, PERSON = 3, 8, 6, 9
PLAIN = CropSettings((96, 128), zoom=(1.0, 1.0), brightness=0, contrast=0, paste_share=1.0)


def painted(maps: Tensor, light: float = 1.0) -> Tensor:
    """Pictures whose colours are their classes', so that one tells what the other must be."""
    return (torch.stack((maps * 20, 200 - maps * 15, maps * 7 + 90), 1) * light).to(torch.uint8)


def scene() -> ResidentPictures:
    """An empty road with a car, and two pictures with signs and people at known heights."""
    maps = torch.full((3, 96, 128), ROAD, dtype=torch.uint8)
    maps[0, 40:60, 30:70] = CAR
    maps[1, 10:20, 20:32] = SIGN
    maps[1, 50:80, 90:100] = PERSON
    maps[2, 30:38, 60:70] = SIGN
    return ResidentPictures(painted(maps), maps, maps)


def crops(
    pictures: ResidentPictures,
    bank: ComponentBank | None,
    settings: CropSettings = PLAIN,
    chosen: int = 0,
    batch: int = 6,
    step: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    generator = step_generator(1, step, 0, torch.device("cpu"))
    return draw_crops(pictures, torch.full((batch,), chosen), settings, generator, bank)


def bank_of(pictures: ResidentPictures, *classes: int) -> ComponentBank:
    bank = component_bank(pictures.images, pictures.maps, classes)
    assert bank is not None
    return bank


def test_a_bank_knows_the_components_that_can_be_pasted() -> None:
    maps = torch.full((2, 200, 128), ROAD, dtype=torch.uint8)
    maps[0, 10:20, 20:32] = SIGN
    maps[0, 20:24, 32:40] = SIGN  # touches by a corner
    maps[0, 0:10, 60:70] = SIGN  # cut off by the edge
    maps[0, 50:54, 60:64] = SIGN  # a speck
    maps[1, 5:195, 10:14] = SIGN  # longer than the window
    maps[1, 30:60, 50:60] = PERSON
    bank = component_bank(painted(maps), maps, [SIGN, PERSON])
    assert bank is not None
    assert bank.boxes.tolist() == [[10, 20, 14, 20], [30, 50, 30, 10]]
    assert bank.pictures.tolist() == [0, 1]
    assert bank.classes.tolist() == [SIGN, PERSON]
    assert bank.relevant.nonzero().flatten().tolist() == [SIGN, PERSON]
    assert component_bank(painted(maps), maps, [CAR]) is None


def test_rare_classes_are_drawn_as_often_as_frequent_ones() -> None:
    bank = bank_of(scene(), SIGN, PERSON)
    assert bank.odds[bank.classes == SIGN].sum() == bank.odds[bank.classes == PERSON].sum()


def test_picture_and_both_maps_are_pasted_alike() -> None:
    pictures = scene()
    bank = bank_of(pictures, SIGN, PERSON)
    images, labels, inputs = crops(pictures, bank)
    assert (labels == SIGN).any()
    assert (labels == PERSON).any()
    assert torch.equal(labels, inputs)
    edges = torch.nn.functional.max_pool2d(labels.float(), 3, 1, 1) != -(
        torch.nn.functional.max_pool2d(-labels.float(), 3, 1, 1)
    )
    away = (images * 255 - painted(labels.to(torch.uint8))).abs().amax(1)
    assert float(away[~edges].max()) <= 1


def test_a_component_keeps_its_size_and_its_height_in_the_scene() -> None:
    pictures = scene()
    _, labels, _ = crops(pictures, bank_of(pictures, PERSON), batch=4)
    for one in labels:
        rows, columns = (one == PERSON).nonzero(as_tuple=True)
        assert (int(rows.min()), int(rows.max())) == (50, 79)
        assert len(columns.unique()) in range(10, 31)
    places = {int((one == PERSON).nonzero()[:, 1].min()) for one in labels}
    assert len(places) > 1
    zoomed = CropSettings((96, 128), zoom=(2.0, 2.0), brightness=0, contrast=0, paste_share=1.0)
    _, labels, _ = crops(pictures, bank_of(pictures, SIGN), zoomed, batch=40)
    whole = [int((one == SIGN).sum()) for one in labels]
    assert max(whole) >= 2 * 2 * 80


def test_relevant_classes_are_never_pasted_over() -> None:
    pictures = scene()
    busy = ResidentPictures(pictures.images, pictures.maps.clone(), pictures.maps)
    busy.maps[0, :, ::16] = PERSON  # no sign of 10 or 12 columns fits between
    busy.maps[0, :, 8::16] = PERSON
    before = busy.maps[0].long()
    _, labels, _ = crops(busy, bank_of(busy, SIGN, PERSON), batch=8)
    plain = crops(busy, None, batch=8)[1]
    assert torch.equal(labels, plain)
    assert (before == PERSON).any()
    _, labels, _ = crops(busy, bank_of(busy, SIGN), batch=8)
    assert (labels == SIGN).any()  # where people are no relevant class


def test_nothing_comes_from_the_picture_itself_or_from_another_light() -> None:
    pictures = scene()
    bank = bank_of(pictures, PERSON)
    assert torch.equal(crops(pictures, bank, chosen=1)[1], crops(pictures, None, chosen=1)[1])
    dusk = ResidentPictures(painted(pictures.maps), pictures.maps, pictures.maps)
    dusk.images[1:] = painted(pictures.maps[1:], light=0.2)
    assert torch.equal(crops(dusk, bank_of(dusk, SIGN))[1], crops(dusk, None)[1])


def test_a_share_of_the_crops_is_left_alone_and_steps_repeat() -> None:
    pictures = scene()
    bank = bank_of(pictures, SIGN, PERSON)
    half = CropSettings((96, 128), zoom=(1.0, 1.0), paste_share=0.5)
    first, again = crops(pictures, bank, half, batch=60), crops(pictures, bank, half, batch=60)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    pasted = (first[1] != crops(pictures, None, half, batch=60)[1]).flatten(1).any(1)
    assert 0.25 < pasted.float().mean() < 0.75
    none = CropSettings((96, 128), zoom=(1.0, 1.0), paste_share=0.0)
    assert torch.equal(crops(pictures, bank, none)[1], crops(pictures, None, none)[1])
    assert torch.equal(pictures.maps, scene().maps)


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (96, 128)])
def test_crops_smaller_than_the_window_are_pasted_into_too(size: tuple[int, int]) -> None:
    pictures = scene()
    settings = CropSettings(size, zoom=(0.7, 1.5), paste_share=1.0)
    images, labels, inputs = crops(pictures, bank_of(pictures, SIGN), settings, batch=60)
    assert images.shape == (60, 3, *size)
    assert labels.shape == inputs.shape == (60, *size)
    assert (labels == SIGN).any()
    assert 0 <= images.min() <= images.max() <= 1
