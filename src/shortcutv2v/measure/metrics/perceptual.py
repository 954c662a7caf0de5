"""Metrics that model what people see: LPIPS, FLIP, ColorVideoVDP, VMAF."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.measure.metrics.base import Metric, Setting, Unavailable, Windowed, needed

__all__ = ["FLIP", "LPIPS", "VMAF", "ColorVideoVDP"]


class LPIPS(Metric):
    """Learned perceptual distance on AlexNet, as its authors recommend for judging (package `lpips`, BSD)."""

    name, title, higher, digits = "lpips", "LPIPS (AlexNet)", False, 4

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._network = _lpips()

    @torch.no_grad()
    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float:
        """See the base class."""
        if min(made.shape[-2:]) < 32:
            raise Unavailable("AlexNet needs pictures of 32x32 or more: give a larger --size")
        return float(self._network.to(made.device)(made.float(), teacher.float(), normalize=True))


@functools.cache
def _lpips() -> Any:
    from torchvision.models import AlexNet_Weights

    lpips = needed("lpips")
    file = Path(torch.hub.get_dir(), "checkpoints", AlexNet_Weights.DEFAULT.url.rpartition("/")[2])
    if not file.is_file():
        raise Unavailable(
            f"the weights of AlexNet are not at hand: put {file.name} of torchvision (234 MB) into {file.parent}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision the old way
        return lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)


class FLIP(Metric):
    """LDR-FLIP at 67 pixels per degree: the difference one sees when two pictures alternate (`flip-evaluator`, BSD)."""

    name, title, higher, digits = "flip", "FLIP", False, 4

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float:
        """See the base class."""
        flip_evaluator = needed("flip_evaluator", "flip-evaluator")
        pictures = [picture[0].float().permute(1, 2, 0).contiguous().cpu().numpy() for picture in (teacher, made)]
        return float(flip_evaluator.evaluate(*pictures, "LDR", applyMagma=False)[1])


class ColorVideoVDP(Windowed):
    """ColorVideoVDP on a 4K display: 10 JOD is no visible difference (`cvvdp`, MIT, weights in the wheel)."""

    name, title, unit = "cvvdp", "ColorVideoVDP", "JOD"

    def window(self, made: Tensor, teacher: Tensor) -> float:
        """See the base class."""
        found, _ = _cvvdp().predict(made, teacher, dim_order="FCHW", frames_per_second=self.setting.rate)
        return float(found)

    def note(self) -> str:
        """See the base class."""
        return f"display standard_4k, {self.windows} windows of up to {self.length} frames"


@functools.cache
def _cvvdp() -> Any:
    return needed("pycvvdp", "cvvdp").cvvdp(display_name="standard_4k", quiet=True)


class VMAF(Windowed):
    """VMAF 0.6.1 by an FFmpeg that was built with libvmaf: of imageio-ffmpeg, on the PATH, or given by `vmaf=`.

    The FFmpeg inside PyAV's wheels has no libvmaf.
    """

    name, title, digits = "vmaf", "VMAF", 2

    def window(self, made: Tensor, teacher: Tensor) -> float:
        """See the base class."""
        height, width = made.shape[-2:]
        with tempfile.TemporaryDirectory(prefix="shortcutv2v-vmaf-") as folder:
            inputs = []
            for name, frames in (("made", made), ("teacher", teacher)):
                Path(folder, name).write_bytes(frames.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
                given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(self.setting.rate)]
                inputs += [*given, "-i", name]
            graph = "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]libvmaf=log_fmt=json:log_path=log.json"
            command = [_ffmpeg(self.setting.files.get(self.name)), "-hide_banner", "-loglevel", "error", *inputs]
            done = subprocess.run(
                [*command, "-lavfi", graph, "-f", "null", "-"], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise Unavailable(f"FFmpeg's libvmaf failed: {' '.join(done.stderr.split())[:200]}")
            return float(json.loads(Path(folder, "log.json").read_text())["pooled_metrics"]["vmaf"]["mean"])


@functools.cache
def _ffmpeg(given: str | None) -> str:
    candidates = [given or shutil.which("ffmpeg")]
    with contextlib.suppress(ImportError):
        candidates += [] if given else [str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())]
    for program in filter(None, candidates):
        try:
            found = subprocess.run(
                [program, "-hide_banner", "-filters"], capture_output=True, text=True, check=False
            ).stdout
        except OSError as error:
            raise Unavailable(f"{program} does not run: {error}") from None
        if " libvmaf " in found:
            return program
    where = f"{given} has" if given else "PyAV's FFmpeg and the one on the PATH, if any, have"
    raise Unavailable(f"{where} no libvmaf filter: pip install imageio-ffmpeg, or give --use vmaf=/path/to/ffmpeg")
