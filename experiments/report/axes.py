"""Display of quantities: titles, units, factors and decimals, for tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_UNIT = ""


@dataclass(frozen=True)
class Axis:
    """Display of a quantity: title, unit, factor to that unit, and which direction is better."""

    title: str
    unit: str = NO_UNIT
    factor: float = 1.0
    better: str = ""
    decimals: int = 3

    @property
    def label(self) -> str:
        """Name and unit, as beside an axis: `PSNR (dB)`."""
        return self.title if self.unit == NO_UNIT else f"{self.title} ({self.unit})"

    @property
    def head(self) -> str:
        """The title with its unit, if it has one, for the head of a column."""
        return self.title if self.unit == NO_UNIT else f"{self.title}, {self.unit}"

    def said(self, value: float, digits: str = "g") -> str:
        """Write a value with its unit, if it has one."""
        unit = "" if self.unit == NO_UNIT else f" {self.unit}"
        return f"{value * self.factor:{digits}}{unit}"


AXES: Mapping[str, Axis] = {
    "psnr_db": Axis("PSNR", "dB", better="higher", decimals=2),
    "ws_psnr_db": Axis("WS-PSNR", "dB", better="higher", decimals=2),
    "ssim": Axis("SSIM", better="higher"),
    "ms_ssim": Axis("MS-SSIM", better="higher"),
    "lpips": Axis("LPIPS", better="lower"),
    "lpips_alex": Axis("LPIPS (alex)", better="lower"),
    "lpips_vgg": Axis("LPIPS (vgg)", better="lower"),
    "dists": Axis("DISTS", better="lower"),
    "fid": Axis("FID", better="lower", decimals=1),
    "fid_patch": Axis("FID of patches", better="lower", decimals=1),
    "fd": Axis("FD (EfficientNet-Lite1)", better="lower", decimals=2),
    "fd_judge": Axis("FD (judge)", better="lower", decimals=2),
    "kid": Axis("KID", better="lower", decimals=4),
    "kid_patch": Axis("KID of patches", better="lower", decimals=4),
    "kd": Axis("KD (EfficientNet-Lite1)", better="lower", decimals=2),
    "miou": Axis("mIoU of the picture", "%", 100, "higher", 1),
    "miou_map": Axis("mIoU of the map", "%", 100, "higher", 1),
    "map_fidelity": Axis("mIoU, map received to sent", "%", 100, "higher", 1),
    "consistency": Axis("mIoU to the original's view", "%", 100, "higher", 1),
    "pixel_accuracy": Axis("pixel accuracy", "%", 100, "higher", 1),
    "task_miou": Axis("mIoU by the task's weights", "%", 100, "higher", 1),
    "relevant_miou": Axis("mIoU of relevant classes", "%", 100, "higher", 1),
    "boundary_f1": Axis("boundary F1", "%", 100, "higher", 1),
    "outage": Axis("Outages", "%", 100, "lower", 1),
    "snr_db": Axis("Mean Es/N0", "dB"),
    "loss": Axis("Packet loss", "%", 100),
    "packet_loss": Axis("Packets lost", "%", 100, "lower", 1),
    "delay_s": Axis("Delay", "ms", 1000, "lower", 1),
    "bpp": Axis("Rate", "bit/pixel", decimals=4),
    "channel_uses": Axis("Channel uses per picture", decimals=0),
    "cbr": Axis("Channel uses per source value", decimals=4),
    "packet_bytes": Axis("Packet size", "bytes", decimals=0),
}


def axis_of(name: str, metrics: Mapping[str, Mapping[str, Any]]) -> Axis:
    """Return the display of a column; metrics: those of the manifest, with unit and direction."""
    if name in AXES:
        return AXES[name]
    about = metrics.get(name)
    if about is None:
        return Axis(name.replace("_", " "))
    better = "higher" if about["higher_is_better"] else "lower"
    title = name.removesuffix(f"_{about['unit'].lower()}").replace("_", " ")
    return Axis(title, about["unit"] or NO_UNIT, better=better)
