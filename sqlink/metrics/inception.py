"""The Inception network of FID and KID, as converted from TensorFlow's graph of 2015-12-05.

    pictures, 8 bit ─ bilinear as TensorFlow 1 does it, 299x299 ─ (x - 128) / 128 ─ Inception v3
    ─ mean over 8x8 places ─> 2048 values a picture

It differs from torchvision's Inception v3 in its average pools, which leave padding out of the
mean, in the max pool of its last block, and in its weights. Only with this network is a number an
FID. The file is that of torch-fidelity and pytorch-fid.

Sources: Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016;
Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium",
NeurIPS 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sqlink.metrics.published import checked, find, read
from sqlink.runtime.threads import placed

SIDE = 299
WIDTH = 2048
FILES = (
    "pt_inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth",
)
"""Names of the file in pytorch-fid and in torch-fidelity."""

_BATCH = 4


class BasicConv2d(nn.Module):
    """A convolution without bias, a batch normalisation and a ReLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(cast(Tensor, self.bn(self.conv(x))))


def _mean_pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class InceptionA(nn.Module):
    """Branches 1x1, 5x5, twice 3x3 and a pool: [N, cin, h, w] -> [N, 224 + pool, h, w]."""

    def __init__(self, cin: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(cin, 64, 1)
        self.branch5x5_1 = BasicConv2d(cin, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(cin, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, padding=1)
        self.branch_pool = BasicConv2d(cin, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_mean_pool(x)),
        ]
        return torch.cat(parts, dim=1)


class InceptionB(nn.Module):
    """Reduction to half the size: [N, cin, h, w] -> [N, cin + 480, ⌊(h-1)/2⌋, ⌊(w-1)/2⌋]."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(cin, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(cin, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            functional.max_pool2d(x, 3, stride=2),
        ]
        return torch.cat(parts, dim=1)


class InceptionC(nn.Module):
    """Branches of 1x7 and 7x1: [N, cin, h, w] -> [N, 768, h, w]."""

    def __init__(self, cin: int, width: int) -> None:
        super().__init__()
        across, down = (1, 7), (7, 1)
        flat, tall = (0, 3), (3, 0)
        self.branch1x1 = BasicConv2d(cin, 192, 1)
        self.branch7x7_1 = BasicConv2d(cin, width, 1)
        self.branch7x7_2 = BasicConv2d(width, width, across, padding=flat)
        self.branch7x7_3 = BasicConv2d(width, 192, down, padding=tall)
        self.branch7x7dbl_1 = BasicConv2d(cin, width, 1)
        self.branch7x7dbl_2 = BasicConv2d(width, width, down, padding=tall)
        self.branch7x7dbl_3 = BasicConv2d(width, width, across, padding=flat)
        self.branch7x7dbl_4 = BasicConv2d(width, width, down, padding=tall)
        self.branch7x7dbl_5 = BasicConv2d(width, 192, across, padding=flat)
        self.branch_pool = BasicConv2d(cin, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        parts = [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(twice)),
            self.branch_pool(_mean_pool(x)),
        ]
        return torch.cat(parts, dim=1)


class InceptionD(nn.Module):
    """Reduction to half the size: [N, cin, h, w] -> [N, cin + 512, ⌊(h-1)/2⌋, ⌊(w-1)/2⌋]."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(cin, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(cin, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        parts = [
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(wide),
            functional.max_pool2d(x, 3, stride=2),
        ]
        return torch.cat(parts, dim=1)


class InceptionE(nn.Module):
    """Split 3x3 branches: [N, cin, h, w] -> [N, 2048, h, w]; max_pool: pool by maximum, not
    mean.
    """

    def __init__(self, cin: int, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = max_pool
        self.branch1x1 = BasicConv2d(cin, 320, 1)
        self.branch3x3_1 = BasicConv2d(cin, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv2d(cin, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(cin, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.max_pool else _mean_pool(x)
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(pooled),
        ]
        return torch.cat(parts, dim=1)


class Inception(nn.Module):
    """The network without its classifier: [N, 3, 299, 299] in [-1, 1] -> [N, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, max_pool=False)
        self.Mixed_7c = InceptionE(2048, max_pool=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # N×64×147×147
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, stride=2)))
        x = functional.max_pool2d(x, 3, stride=2)  # N×192×35×35
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))  # N×768×17×17
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))  # N×2048×8×8
        return x.mean(dim=(2, 3))


def resized(images: Tensor, side: int = SIDE) -> Tensor:
    """Resize bilinearly to side x side as TensorFlow 1 does: output row i is at i · H / side.

    images: [N, C, H, W]. Returns [N, C, side, side].
    """
    for dim in (2, 3):
        size = images.shape[dim]
        places = torch.arange(side, device=images.device, dtype=torch.float32) * (size / side)
        below = places.long()
        above = (below + 1).clamp(max=size - 1)
        share = (places - below).to(images.dtype).view([side if d == dim else 1 for d in range(4)])
        low, high = images.index_select(dim, below), images.index_select(dim, above)
        images = low + (high - low) * share
    return images


class InceptionFeatures:
    """An `Extractor`: one vector of 2048 values per picture.

    weights: the file, its folder, or None as for `published.find`. Raises WeightsError as that
    function does.
    """

    name = "inception"

    def __init__(self, weights: Path | str | None = None) -> None:
        path = find("FID's Inception", FILES, weights)
        self.network = Inception()
        tensors = read(path)
        expected = {
            name: value
            for name, value in self.network.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        self.network.load_state_dict(
            checked("FID's Inception", path, tensors, expected), strict=False
        )

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    @torch.no_grad()
    def vectors(self, images: Tensor) -> Tensor:
        network = placed(self.network, images.device)
        found = []
        for part in images.split(_BATCH):
            levels = (part.float() * 255).round().clamp(0, 255)
            found.append(network((resized(levels) - 128) / 128).cpu())
        return torch.cat(found).unsqueeze(1)
