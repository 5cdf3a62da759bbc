"""The paper's configuration, 184 M parameters, takes real steps on Cityscapes' layout."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sqlink.data import open_dataset
from sqlink.data.base import require_classes
from sqlink.data.classes import CITYSCAPES, class_set_of_size
from sqlink.model import config as model_sizes
from sqlink.model.config import PAPER, ModelConfig
from sqlink.model.discriminator import PatchDiscriminator, blend_towards_real
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN
from sqlink.training import train_from_config
from sqlink.training.augmentation import CropSettings, ResidentPictures, draw_crops, step_generator
from sqlink.training.losses import hinge_discriminator, image_loss, map_loss
from sqlink.training.packet_loss import PacketLoss, draw_packet_losses
from sqlink.training.pasting import component_bank
from sqlink.training.task import load_task
from sqlink.weights.manifest import load

LABEL_IDS = (7, 11, 13, 21, 23, 26)


def frames(root: Path) -> None:
    """Two frames of blocks and signs in the official layout."""
    draw = np.random.Generator(np.random.Philox(key=3))
    for number in range(2):
        ids = np.kron(draw.choice(LABEL_IDS, (3, 4)), np.ones((32, 32), int)).astype(np.uint8)
        ids[40 + number : 60, 50:70] = 20
        pixels = (ids[..., None] * np.array([9, 6, 3])).astype(np.uint8)
        for part, ending, content in (
            ("leftImg8bit", "leftImg8bit", pixels),
            ("gtFine", "gtFine_labelIds", ids),
        ):
            path = root / part / "train/ulm" / f"ulm_{number:06d}_000019_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)


def cityscapes(root: Path) -> ResidentPictures:
    """Those frames, read through the loader at half their size."""
    frames(root)
    data = open_dataset("cityscapes", root=root, size=[48, 64])
    require_classes("cityscapes", data, class_set_of_size(PAPER.num_classes))
    samples = list(data)
    images = torch.stack([(s.image * 255).round().to(torch.uint8) for s in samples])
    maps = torch.stack([s.segmentation.to(torch.uint8) for s in samples])  # type: ignore[union-attr]
    return ResidentPictures(images, maps, maps)


def test_the_papers_layers_train_through_all_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_paper: ModelConfig
) -> None:
    """Narrow layers, but the same classes, the same trainer and the same data set."""
    monkeypatch.setitem(
        model_sizes.CONFIGS, "narrow", dataclasses.replace(tiny_paper, name="narrow")
    )
    frames(tmp_path)
    options = {"root": str(tmp_path), "size": [48, 64]}
    values = {
        "model": "narrow",
        "output": str(tmp_path / "run"),
        "sources": [{"name": "cityscapes", "options": options}],
        "task": "signs",
        "recipe": {
            "crop": [32, 32],
            "batch_size": 2,
            "adversarial_start": 0.0,
            "losses": {"perceptual": 0.0},
        },
        "stages": {name: {"max_steps": 1} for name in ("map", "image", "joint")},
        "device": "cpu",
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    weights = load(str(train_from_config(path, lambda line: None)), "sqgan")
    assert json.loads(weights.metadata["model"])["num_classes"] == 19


@pytest.mark.slow
def test_the_papers_configuration_learns_in_real_steps(tmp_path: Path) -> None:
    pictures = cityscapes(tmp_path)
    task = load_task("driving", CITYSCAPES)
    map_weights, image_weights = task.tensors()
    bank = component_bank(pictures.images, pictures.maps, task.pasted)
    assert bank is not None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = SQGAN(PAPER).train()
        critic = PatchDiscriminator(PAPER.num_classes)
        critic.whiten_by(pictures.images.float() / 255)
    assert sum(p.numel() for p in network.parameters()) > 150e6
    settings = CropSettings((32, 32), paste_share=1.0)
    # Plain gradient descent keeps no moments: all this stays within 2 GB.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    totals = []
    for _ in range(2):
        generator = step_generator(1, 0, 0, torch.device("cpu"))  # the same crops every time
        images, maps, inputs = draw_crops(pictures, torch.tensor([0]), settings, generator, bank)
        share = torch.full((1,), 0.75)
        arrived_x, arrived_s = draw_packet_losses(
            (1, *PAPER.grid(32, 32)), (share, share), PacketLoss(), generator
        )
        v_x, scores_x = network.encode_image(images, inputs)
        v_s, scores_s = network.encode_map(inputs)
        kept_x, kept_s = (keep_most_relevant(s.detach(), share) for s in (scores_x, scores_s))
        codes_x, _, commit_x = network.image_quantizer(v_x, kept_x)
        codes_s, _, commit_s = network.map_quantizer(v_s, kept_s)
        logits = network.decode_map(codes_s, kept_s & arrived_s)
        rebuilt = network.decode_image(codes_x, kept_x & arrived_x, logits.argmax(1))
        shown = blend_towards_real(rebuilt, images, inputs, task.blended, task.blend_share)
        verdict, _ = critic(shown, inputs)
        real, _ = critic(images, inputs)
        total = (
            image_loss(rebuilt, images, maps, image_weights)
            + map_loss(logits, inputs, map_weights)
            + 0.25 * (commit_x + commit_s)
            - 0.01 * verdict.mean()
        )
        assert torch.isfinite(hinge_discriminator(real, verdict))
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        moved = [p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters()]
        assert all(moved)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
