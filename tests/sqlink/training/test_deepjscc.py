"""Training of DeepJSCC: it learns, goes on where it stopped, and refuses in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from sqlink.analogue.deepjscc import load_network
from sqlink.errors import SQLinkError
from sqlink.settings import load_settings
from sqlink.training.config import Source
from sqlink.training.deepjscc import Crops, DeepJSCCPlan, Run, noise_met, train_deepjscc

STREETS = {"name": "streets", "options": {"seed": 3, "count": 2, "height": 64, "width": 64}}


def written(folder: Path, **changes: object) -> Path:
    plan = {
        "kind": "deepjscc",
        "output": str(folder / "out"),
        "sources": [STREETS],
        "validation": STREETS,
        "network": {"latents": 8, "width": 8, "fine": 8},
        "crop": 32,
        "batch": 2,
        "minutes": 0.02,
        **changes,
    }
    path = folder / "deepjscc.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def plan(folder: Path, **changes: object) -> DeepJSCCPlan:
    return load_settings(written(folder, **changes), DeepJSCCPlan)


def test_one_command_leaves_weights_that_load_and_a_record(tmp_path: Path) -> None:
    lines: list[str] = []
    weights = train_deepjscc(written(tmp_path), lines.append)
    network, sha256 = load_network(weights)
    assert network.config.latents == 8
    assert len(sha256) == 64
    assert (tmp_path / "out" / "record.json").exists()
    assert "1/48@10" in lines[-1]


def test_steps_lower_the_error_on_the_same_crops(tmp_path: Path) -> None:
    still = {"snr_db": [15, 15], "ratio": [0.04, 0.04], "fading": 0}
    settings = plan(tmp_path, minutes=10, rate=0.01, linear_rate=1.0, **still)
    crops, run = Crops(settings), Run(settings)  # from chance, not from the KLT
    losses = [run.advance(crops.draw(0)) for _ in range(30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_what_a_step_draws_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    crops = Crops(plan(tmp_path))
    first, again, other = crops.draw(7), crops.draw(7), crops.draw(8)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.symbols, again.symbols)
    assert not torch.equal(first.images, other.images)


def test_a_run_taken_up_again_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    settings = plan(tmp_path, minutes=1000)
    crops, whole = Crops(settings), Run(settings)
    whole.start(crops)
    whole.advance(crops.draw(0))
    whole.save(tmp_path / "half.safetensors")
    resumed = Run(settings)
    resumed.resume(tmp_path / "half.safetensors")
    whole.seconds = resumed.seconds
    assert whole.advance(crops.draw(1)) == resumed.advance(crops.draw(1))


def test_fading_crops_meet_exponential_gains_and_the_others_the_mean_noise(tmp_path: Path) -> None:
    settings = plan(tmp_path, batch=400, fading=0.5)
    drawn = Crops(settings).draw(0)
    n0 = torch.pow(10.0, -drawn.snr_db / 10)[:, None]
    gains = n0 / noise_met(drawn)
    still = (gains - 1).abs().amax(dim=1) < 1e-4
    assert 0.4 < still.float().mean() < 0.6
    alone = gains[(drawn.count == 1) & ~still]
    assert bool((alone[:, :1] == alone).all())  # one gain a picture
    assert drawn.gains[~still].mean() == pytest.approx(1.0, abs=0.1)
    low, high = settings.snr_db
    assert bool(((drawn.snr_db >= low) & (drawn.snr_db <= high)).all())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 20}, "crop"),
        ({"crop": 96}, "smaller than crops of 96"),
        ({"sources": []}, "at least one value"),
        ({"latent": 3}, "unknown key 'latent'"),
        ({"snr_db": [10, 0]}, "the range"),
        ({"ratio": [0, 0.1]}, "above 0"),
    ],
)
def test_mistakes_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(SQLinkError, match=said) as error:
        train_deepjscc(written(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    Run(settings).save(tmp_path / "other.safetensors")
    wider = plan(tmp_path, network={"latents": 8, "width": 16, "fine": 8})
    with pytest.raises(SQLinkError, match="not of this network"):
        Run(wider).resume(tmp_path / "other.safetensors")


def test_the_shipped_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLINK_CAMVID", "camvid")
    monkeypatch.setenv("SQLINK_IDD", "idd")
    root = Path(__file__).resolve().parents[3]
    found = load_settings(root / "sqlink/training/configs/deepjscc.yaml", DeepJSCCPlan)
    assert isinstance(found.sources[0], Source)
