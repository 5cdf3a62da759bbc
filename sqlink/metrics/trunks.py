"""The ImageNet networks of LPIPS and DISTS: SqueezeNet 1.1, AlexNet, VGG16.

Only the convolutional parts are built, with torchvision's numbers of layers and weights from
torchvision's files.

Sources: Iandola et al., "SqueezeNet", arXiv:1602.07360; Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", arXiv:1404.5997; Simonyan, Zisserman, "Very deep
convolutional networks for large-scale image recognition", ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sqlink.metrics.published import checked, find, read


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 squeeze, then 1x1 and 3x3 expansions side by side.

    [N, channels, H, W] -> [N, 2 * expand, H, W].
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1))


def squeezenet_features() -> nn.Sequential:
    """Build the convolutional part of SqueezeNet 1.1, untrained."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


def alexnet_features() -> nn.Sequential:
    """Build the convolutional part of AlexNet, untrained."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def vgg16_features() -> nn.Sequential:
    """Build the convolutional part of VGG16 up to its last ReLU, untrained."""
    layers: list[nn.Module] = []
    before = 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2, stride=2))
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Trunk:
    """A network and the layers that LPIPS compares.

    files: names of its published or converted weights. sha256: `published.digest` of the tensors;
    None if the file's name holds its hash. taps: layers whose outputs are used. channels: width of
    each. min_side: shortest side in pixels that all poolings allow.
    """

    title: str
    build: Callable[[], nn.Sequential]
    files: tuple[str, ...]
    sha256: str | None
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    min_side: int

    def load(self, owner: str, place: Path | str | None = None) -> nn.Sequential:
        """Load the network with its published weights; place: as for `published.find`.

        Raises WeightsError, naming the metric `owner`, if they are missing or not the published
        ones.
        """
        path = find(owner, self.files, place)
        network = self.build()
        own = network.state_dict()
        named = {f"features.{name}": value for name, value in own.items()}
        loaded = checked(owner, path, read(path), named, self.sha256)
        network.load_state_dict({k.removeprefix("features."): v for k, v in loaded.items()})
        return network


TRUNKS = {
    "squeeze": Trunk(
        "SqueezeNet 1.1",
        squeezenet_features,
        ("squeezenet1_1-imagenet-features.safetensors", "squeezenet1_1-b8a52dc0.pth"),
        "4d2481f018a87b39d4c15b1436f14e1da1b231d14a04a29e0f866a8c2055c0be",
        (1, 4, 7, 9, 10, 11, 12),
        (64, 128, 256, 384, 384, 512, 512),
        17,
    ),
    "alex": Trunk(
        "AlexNet",
        alexnet_features,
        ("alexnet-owt-7be5be79.pth",),
        None,
        (1, 4, 7, 9, 11),
        (64, 192, 384, 256, 256),
        31,
    ),
    "vgg": Trunk(
        "VGG16",
        vgg16_features,
        ("vgg16-397923af.pth",),
        None,
        (3, 8, 15, 22, 29),
        (64, 128, 256, 512, 512),
        16,
    ),
}
