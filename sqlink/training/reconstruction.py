"""SQ-GAN's training pass: encode, keep, quantise, lose, demask, decode.

    x, s ── E, SAMM ── the most relevant ── VQ ── what arrives ── ADM, D ── x̂, ŝ

Tokens that are masked, or lost in transmission, are masked here. Each stage runs what it trains:
`map` the map branch, `image` the picture branch steered by the true map, `joint` both.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN
from sqlink.training.config import StageName

MAP_BRANCH = ("map_encoder", "map_samm", "map_quantizer", "map_demasker", "map_decoder")
IMAGE_BRANCH = (
    "sempe",
    "image_encoder",
    "image_samm",
    "image_quantizer",
    "image_demasker",
    "image_decoder",
)
"""Modules of `SQGAN` that belong to each branch."""


@dataclass
class Rebuilt:
    """One pass through both halves of the codec; None if the stage does not run a branch.

    images: float32 [k N, 3, H, W], not clamped, the k realisations of a crop one after the other.
    logits: float32 [N, classes, H, W]. commitment: the sum of the branches' commitment losses.
    """

    images: Tensor | None
    logits: Tensor | None
    commitment: Tensor


@dataclass  # not frozen, as Fabric's mixed precision walks through arguments
class Transmission:
    """What happens to the tokens of N crops between the two halves, image first, map second.

    fractions: float32 [N] each, share of tokens that is kept. arrived: bool [N, h, w] each, False
    where a token is lost. ranking: float32 [N, h, w] each where chance, not SAMM's score, says what
    is kept; None else. noise: int64 [k N], seeds of the k realisations of each crop.
    """

    fractions: tuple[Tensor, Tensor]
    arrived: tuple[Tensor, Tensor]
    ranking: tuple[Tensor, Tensor] | None = None
    noise: int | Tensor = 0


class ThroughTheLink(nn.Module):
    """The pass as one module, for the devices and ranks that Lightning Fabric sets up."""

    def __init__(self, network: SQGAN) -> None:
        super().__init__()
        self.network = network
        self.drawn: Tensor | None = None
        """The last pass's pictures before Fabric's hooks, for gradients that make no step."""

    def forward(
        self,
        images: Tensor,
        segmentation: Tensor,
        transmission: Transmission,
        stage: StageName,
        true_map: bool,
    ) -> Rebuilt:
        """Pass images [N, 3, H, W] in [0, 1] and segmentation int64 [N, H, W] through both halves;
        true_map: steer D_x by the map sent, not the decoded one.
        """
        net = self.network
        logits = rebuilt = None
        commitments = []
        steering = segmentation
        if stage != "image":
            vectors, scores = net.encode_map(segmentation)
            ranking = scores if transmission.ranking is None else transmission.ranking[1]
            kept = keep_most_relevant(ranking.detach(), transmission.fractions[1])
            codes, _, commitment = net.map_quantizer(vectors, kept)
            commitments.append(commitment)
            logits = net.decode_map(codes, kept & transmission.arrived[1]).float()
            if not true_map:
                steering = logits.argmax(1)
        if stage != "map":
            vectors, scores = net.encode_image(images, segmentation)
            ranking = scores if transmission.ranking is None else transmission.ranking[0]
            kept = keep_most_relevant(ranking.detach(), transmission.fractions[0])
            codes, _, commitment = net.image_quantizer(vectors, kept)
            commitments.append(commitment)
            rebuilt = net.decode_image(
                codes, kept & transmission.arrived[0], steering, transmission.noise
            ).float()
        self.drawn = rebuilt
        if rebuilt is not None:
            rebuilt = rebuilt.view_as(rebuilt)
        return Rebuilt(rebuilt, logits, sum(commitments[1:], commitments[0]))


def set_trained(network: SQGAN, stage: StageName, freeze_map: bool) -> None:
    """Leave gradients, and moving codebooks, to the modules that `stage` trains."""
    trained = {
        "map": MAP_BRANCH,
        "image": IMAGE_BRANCH,
        "joint": IMAGE_BRANCH if freeze_map else IMAGE_BRANCH + MAP_BRANCH,
    }[stage]
    for name, module in network.named_children():
        module.requires_grad_(name in trained)
        module.train(name in trained)
