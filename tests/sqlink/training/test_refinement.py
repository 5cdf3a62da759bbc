"""Training of the refinement: it lowers the error, goes on where it stopped, and gives weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sqlink.codecs import load_codec
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.codecs.sqgan.codec import SQGANCodec
from sqlink.data.base import open_dataset
from sqlink.data.classes import CAMVID
from sqlink.errors import ConfigError
from sqlink.model.refinement import RefinementConfig
from sqlink.model.sqgan import SQGAN
from sqlink.training.config import Source
from sqlink.training.refinement import (
    RefinementTrainer,
    RefinementTraining,
    class_shares,
    lpips_map,
)
from sqlink.training.refinement_weights import assemble, load_refinement
from sqlink.weights.manifest import FOLDER

STREETS = Source(name="streets", options={"seed": 5, "count": 2, "height": 96, "width": 96})


def config(output: Path, lpips: Path, **changes: object) -> RefinementTraining:
    values: dict[str, object] = {
        "output": str(output),
        "sources": [STREETS],
        "validation": STREETS,
        "crop": 64,
        "bank": 2,
        "redraw": 0.2,
        "warmup_steps": 1,
        "max_minutes": 60.0,
        "lpips_weights": str(lpips),
        **changes,
    }
    return RefinementTraining.model_validate(values)


@pytest.fixture
def lpips_folder(shared: Path) -> Path:
    return shared / "weights"


@pytest.mark.slow
@pytest.mark.shared
def test_a_run_learns_resumes_alike_and_becomes_a_codec(tmp_path: Path, lpips_folder: Path) -> None:
    def trained(folder: str, *parts: int) -> RefinementTrainer:
        for steps in parts:
            trainer = RefinementTrainer(config(tmp_path / folder, lpips_folder), print)
            trainer.resume()
            generator = torch.Generator().manual_seed(0)
            while len(trainer.bank.entries) < 2:
                trainer.bank.grow(generator)
            for _ in range(steps):
                trainer.advance()
            trainer.save()
        return trainer

    whole, parts = trained("whole", 4), trained("parts", 2, 2)
    assert whole.step == parts.step == 4
    for name, value in whole.critic.state_dict().items():
        assert value.shape == parts.critic.state_dict()[name].shape
    for decoder in (whole.network.probable, whole.network.natural):
        assert decoder.out.weight.abs().sum() > 0

    weights = assemble(
        "streets",
        tmp_path / "whole" / "refinement.safetensors",
        [STREETS],
        tmp_path / "refined.safetensors",
        pictures=2,
        steps=3,
    )
    data = open_dataset("streets", **STREETS.options)
    image = data[0].image[None]
    errors = []
    for bpp in (0.1, 0.25):
        codec = load_codec("sqgan", weights=weights, aim="faithful", realism=0.0)
        (stream,) = codec.encode(image, Rate(bpp=bpp))
        assert isinstance(stream, Stream)
        assert 0.75 * bpp <= stream.bpp <= bpp  # coarsely: the tables had three steps
        shown = codec.decode([Received.whole(stream)]).images
        errors.append(float((shown - image).square().mean()))
    assert errors[1] < errors[0]
    assert "refinement.natural.out.weight" in load_file(weights)
    parts = load_refinement(tmp_path / "whole" / "refinement.safetensors")
    again = load_refinement(weights)  # what a later run may start from
    assert parts.keys() == again.keys()
    assert all(torch.equal(again[name], value) for name, value in parts.items())


@pytest.mark.shared
def test_another_model_in_the_checkpoint_is_refused(tmp_path: Path, lpips_folder: Path) -> None:
    trainer = RefinementTrainer(config(tmp_path, lpips_folder), print)
    trainer.network.config = RefinementConfig(width4=8)
    trainer.save()
    with pytest.raises(ConfigError, match="another model or base"):
        RefinementTrainer(config(tmp_path, lpips_folder), print).resume()


def test_a_crop_that_is_no_whole_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 16"):
        RefinementTrainer(config(tmp_path, tmp_path, crop=70), print)


def test_shares_of_classes_are_those_of_4x4_pixels() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, :2, :4] = 3
    labels[0, 7, 7] = 255
    shares = class_shares(labels, 11)
    assert shares.shape == (1, 12, 2, 2)
    assert shares[0, 3, 0, 0] == 0.5
    assert shares[0, 11, 1, 1] == pytest.approx(1 / 16)
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 2, 2))


def test_the_map_of_lpips_is_lpips_place_by_place() -> None:
    class Heads:
        heads = (torch.ones(1, 2, 1, 1), torch.full((1, 3, 1, 1), 2.0))

    generator = torch.Generator().manual_seed(0)
    ours = [torch.rand(2, c, 8, 8, generator=generator) for c in (2, 3)]
    theirs = [torch.rand(2, c, 8, 8, generator=generator) for c in (2, 3)]
    found = lpips_map(Heads(), ours, theirs, 8)  # type: ignore[arg-type]
    expected = sum(
        ((a - b).square() * h).sum(1) for a, b, h in zip(ours, theirs, Heads.heads, strict=True)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.shared
def test_the_receivers_half_may_be_trained_alone(tmp_path: Path, lpips_folder: Path) -> None:
    given = config(tmp_path, lpips_folder, losses={"gain": 0.0}, realisms=[0, 1])
    trainer = RefinementTrainer(given, print)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    terms = [trainer.advance() for _ in range(4)]
    assert ["squared" in found for found in terms] == [True, False, True, False]
    assert ["perceptual" in found for found in terms] == [False, True, False, True]
    assert all("gain" not in found for found in terms)
    assert moved(trainer, before) == {"probable", "natural"}


def moved(trainer: RefinementTrainer, before: dict[str, torch.Tensor]) -> set[str]:
    """Return the parts of the network that differ from a state."""
    now = trainer.network.state_dict()
    return {name.split(".")[0] for name, tensor in now.items() if (tensor != before[name]).any()}


@pytest.mark.slow
@pytest.mark.shared
def test_one_decoder_may_be_trained_alone(tmp_path: Path, lpips_folder: Path) -> None:
    given = config(tmp_path, lpips_folder, losses={"gain": 0.0}, realisms=[0])
    trainer = RefinementTrainer(given, print)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.advance()
    assert moved(trainer, before) == {"probable"}
    assert all(set(entry.drawn) == {0} for entry in trainer.bank.entries)
    figures = trainer.validate()
    assert len([name for name in figures if name.startswith("psnr_0_")]) == 5
    assert not any(name.startswith("lpips") for name in figures)


@pytest.mark.slow
@pytest.mark.shared
def test_a_crop_is_drawn_twice_from_two_noises_or_once_at_realism_0(
    tmp_path: Path, lpips_folder: Path
) -> None:
    losses = {"adversarial": 0.2, "spectrum": 0.4, "features": 0.3, "blended_weight": 0.7}
    given = config(
        tmp_path,
        lpips_folder,
        realisations=2,
        realisms=[0, 1],
        adversarial_start=0.0,
        restrained=["tree"],
        losses=losses,
    )
    trainer = RefinementTrainer(given, print)
    assert trainer.network.config.restrained == (CAMVID.index("tree"),)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        trainer.bank.grow(generator)
    assert [len(trainer.bank.entries[0].drawn[realism].base) for realism in (0, 1)] == [1, 2]
    entry = trainer.bank.entries[0]
    whole = torch.ones_like(entry.tokens, dtype=torch.bool)
    trainer.base.draw(entry, 0, whole)
    trainer.base.draw(entry, 1, whole, seeds=(3, 4))
    (faithful,), (one, other) = (entry.drawn[realism].base for realism in (0, 1))
    assert not torch.equal(one[2], other[2])
    spread = (one[2].float() - other[2].float()).abs().mean()
    noise = (one[2].float() - faithful[2].float()).abs().mean()
    assert 0.7 * noise < spread < 2 * noise  # of one picture, from two noises
    at_realism_0, at_realism_1 = trainer.advance(), trainer.advance()
    assert set(at_realism_0) == {"squared"}
    assert set(at_realism_1) == {
        *("l1", "colour", "perceptual", "spectrum", "features", "semantic", "projected"),
        *("adversarial", "gain"),
    }
    before = trainer.patch.verdict.weight.clone()
    trainer.advance()
    assert torch.equal(before, trainer.patch.verdict.weight)  # a step at realism 0
    trainer.advance()
    assert not torch.equal(before, trainer.patch.verdict.weight)
    trainer.save()
    again = RefinementTrainer(given, print)
    assert again.resume()
    for name, value in trainer.patch.state_dict().items():
        assert torch.equal(value, again.patch.state_dict()[name])


@pytest.mark.slow
@pytest.mark.shared
def test_the_concealment_of_losses_may_be_trained_alone(tmp_path: Path, lpips_folder: Path) -> None:
    given = config(
        tmp_path,
        lpips_folder,
        start=str(FOLDER / "sqgan-streets.safetensors"),
        concealment=True,
        realisms=[1],
        losses={"gain": 0.0},
        max_minutes=1e-3,
        validate_minutes=1e-3,
    )
    trainer = RefinementTrainer(given, print)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run()
    assert moved(trainer, before) <= {"prediction", "differences"}
    assert moved(trainer, before) >= {"differences"}
    drawn = [entry.drawn[1] for entry in trainer.bank.entries]
    assert all(0.03 <= one.loss <= 0.5 for one in drawn)
    assert all(one.loss == 0.2 for entry in trainer.held_out for one in entry.drawn.values())
    weights = assemble(
        "streets",
        tmp_path / "refinement.safetensors",
        [STREETS],
        tmp_path / "concealed.safetensors",
        pictures=1,
        steps=1,
    )
    codec = load_codec("sqgan", weights=weights)
    assert isinstance(codec, SQGANCodec)
    assert isinstance(codec.model, SQGAN)
    network = codec.model.refinement
    assert network is not None
    assert network.prediction is not None
    assert network.for_losses is not None
    plain = RefinementTrainer(
        config(tmp_path / "plain", lpips_folder, start=str(weights), realisms=[1]), print
    )
    assert plain.network.prediction is None  # it was of the decoder before
    with pytest.raises(ConfigError, match=r"start: .* does not fit"):
        RefinementTrainer(given.model_copy(update={"start": str(weights), "lossy_rank": 3}), print)


@pytest.mark.parametrize(
    "changes", [{}, {"start": "a.safetensors", "realisms": [0, 1]}, {"start": "a.safetensors"}]
)
@pytest.mark.shared
def test_a_concealment_needs_what_it_conceals_losses_of(
    changes: dict[str, object], tmp_path: Path, lpips_folder: Path
) -> None:
    with pytest.raises(ConfigError, match="concealment: it needs a `start`"):
        RefinementTrainer(config(tmp_path, lpips_folder, concealment=True, **changes), print)
