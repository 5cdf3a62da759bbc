"""The shipped segmenters: any size, no influence of the batch, and maps that make sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sqlink.data import open_dataset
from sqlink.data.classes import NO_LABEL, NUM_CLASSES
from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.segmentation import load_segmenter, segmenter_names
from sqlink.segmentation.base import Segmenter
from sqlink.segmentation.blocks import fold
from sqlink.segmentation.builtin import NETWORKS, BuiltIn, built_in
from sqlink.weights.manifest import save

BOTH = ("tx", "judge")


@pytest.fixture(scope="module")
def shipped() -> dict[str, BuiltIn]:
    return {name: built_in(name) for name in BOTH}


@pytest.fixture(scope="module")
def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    samples = list(open_dataset("streets", seed=77, count=3, height=240, width=320))
    maps = [s.segmentation for s in samples if s.segmentation is not None]
    return torch.stack([s.image for s in samples]), torch.stack(maps)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 45), (100, 33), (64, 96)])
def test_a_picture_of_any_size_gets_a_map_of_its_size(
    shipped: dict[str, BuiltIn], name: str, height: int, width: int
) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    maps = shipped[name].segment(images)
    assert maps.shape == (2, height, width)
    assert maps.dtype == torch.int64
    assert int(maps.min()) >= 0
    assert int(maps.max()) < NUM_CLASSES


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("name", BOTH)
def test_a_map_does_not_depend_on_the_batch(
    shipped: dict[str, BuiltIn],
    scenes: tuple[torch.Tensor, torch.Tensor],
    name: str,
    chunk: int,
) -> None:
    segmenter = BuiltIn(name, shipped[name].network, chunk)
    images = scenes[0][:, :, 60:190, 40:240]
    images = torch.cat([images, images.flip(3), images.flip(2)])  # 9: chunks of 4 and a rest
    together = segmenter.segment(images)
    alone = torch.cat([segmenter.segment(image[None]) for image in images])
    backwards = segmenter.segment(images.flip(0)).flip(0)
    assert torch.equal(together, alone)
    assert torch.equal(together, backwards)


@pytest.mark.parametrize("name", BOTH)
def test_loading_twice_gives_the_same_map(
    shipped: dict[str, BuiltIn], scenes: tuple[torch.Tensor, torch.Tensor], name: str
) -> None:
    again = load_segmenter(name)
    assert isinstance(again, Segmenter)
    assert torch.equal(again.segment(scenes[0][:1]), shipped[name].segment(scenes[0][:1]))


@pytest.mark.parametrize("name", BOTH)
def test_a_rendered_street_is_understood(
    shipped: dict[str, BuiltIn], scenes: tuple[torch.Tensor, torch.Tensor], name: str
) -> None:
    images, truth = scenes
    found = shipped[name].segment(images)
    labelled = truth != NO_LABEL
    assert (found == truth)[labelled].float().mean() > 0.6


@pytest.mark.shared
@pytest.mark.parametrize("name", BOTH)
def test_photographs_of_unseen_scenes_are_understood(
    shipped: dict[str, BuiltIn], shared: Path, name: str
) -> None:
    samples = open_dataset("camvid", root=shared / "data" / "camvid", split="dev")
    chosen = [samples[index] for index in range(0, len(samples), 12)]
    truth = torch.stack([s.segmentation for s in chosen if s.segmentation is not None])
    found = shipped[name].segment(torch.stack([s.image for s in chosen]))
    labelled = truth != NO_LABEL
    assert (found == truth)[labelled].float().mean() > 0.75


def test_logits_carry_gradients_to_the_picture_but_not_to_weights(
    shipped: dict[str, BuiltIn],
) -> None:
    images = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(2))
    images.requires_grad_(True)
    logits = shipped["tx"].logits(images)
    assert logits.shape == (1, NUM_CLASSES, 40, 50)
    logits.square().mean().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in shipped["tx"].network.parameters())


def test_no_pictures_give_no_maps(shipped: dict[str, BuiltIn]) -> None:
    assert shipped["tx"].segment(torch.zeros(0, 3, 20, 30)).shape == (0, 20, 30)


@pytest.mark.parametrize("shape", [(1, 3, 15, 40), (1, 1, 40, 40), (3, 40, 40)])
def test_what_is_no_picture_is_refused(shipped: dict[str, BuiltIn], shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"takes pictures \[N, 3, H, W\] of at least 16x16"):
        shipped["tx"].segment(torch.zeros(shape))


@pytest.mark.parametrize("name", BOTH)
def test_the_number_of_threads_does_not_change_a_bit(
    shipped: dict[str, BuiltIn], scenes: tuple[torch.Tensor, torch.Tensor], name: str
) -> None:
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found.append(shipped[name].logits(scenes[0][:1]))
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_names_and_options_are_checked() -> None:
    assert set(BOTH) <= set(segmenter_names())
    with pytest.raises(ConfigError, match="did you mean 'judge'"):
        load_segmenter("juge")
    with pytest.raises(ConfigError, match="has no option 'weight': did you mean 'weights'"):
        load_segmenter("tx", weight="x")
    with pytest.raises(ConfigError, match="is not a network"):
        load_segmenter("ground_truth")
    with pytest.raises(ConfigError, match="chunk"):
        load_segmenter("tx", chunk=0)


def test_weights_of_a_user_are_read_from_a_file_and_checked(tmp_path: Path) -> None:
    network = fold(NETWORKS["tx"]())
    path = tmp_path / "mine.safetensors"
    save(path, network.state_dict(), {"kind": "segmenter", "network": "tx"})
    mine = built_in("tx", weights=path)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    halved = {k: v.half().float() for k, v in network.state_dict().items()}
    network.load_state_dict(halved)
    assert torch.equal(mine.segment(images), BuiltIn("tx", network).segment(images))
    with pytest.raises(WeightsError, match="holds the network 'tx', not 'judge'"):
        built_in("judge", weights=path)
    save(path, {"a": torch.zeros(2)}, {"kind": "segmenter", "network": "tx"})
    with pytest.raises(WeightsError, match="does not fit"):
        built_in("tx", weights=path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(WeightsError):
        built_in("tx", weights=path)
