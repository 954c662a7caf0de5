"""Checks of `gpu.py`: streams, compiled passes, precisions, translation and training of a small Real-ESRGAN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
from benchmarks.gpu_bench import CPU, Bench, Errors, apart, check, to
from benchmarks.gpu_operators import shaken
from examples.real_esrgan.adapter import RealESRGANAdapter
from examples.real_esrgan.teacher import build_teacher
from torch import Tensor, nn

from shortcutv2v import Look, fit, measure, precision
from shortcutv2v.blocks import DEFAULT_VARIANT
from shortcutv2v.distill import Distiller
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.translate import Translator
from shortcutv2v.windows import Windows, WindowStream
from shortcutv2v.windows.times import Times

__all__ = ["CHECKED"]

CHECKED = "Real-ESRGAN's anime-video network with 6 hidden convolutions, cut low"
"""The network of these checks."""


def _model(bench: Bench, device: torch.device, variant: str = DEFAULT_VARIANT) -> tuple[ShortcutV2V, RealESRGANAdapter]:
    """Return a small Real-ESRGAN with a block, the same on every device."""
    torch.manual_seed(0)
    teacher = build_teacher({"arch": "compact", "scale": 2, "convs": 6, "width": 8 if bench.small else 32}).eval()
    for layer in teacher.modules():
        if isinstance(layer, nn.Conv2d):  # as large as in training: else the picture is the enlarged frame alone
            nn.init.kaiming_normal_(layer.weight, a=0.25)
    adapter = RealESRGANAdapter(teacher, "low")
    model = adapter.wrap(torch.rand(1, 3, *bench.size), variant=variant)
    shaken(model.blocks)
    return model.eval().to(device), adapter


def _video(bench: Bench, rows: int = 1, frames: int = 6) -> list[Tensor]:
    torch.manual_seed(1)
    still = torch.rand(1, rows, 3, *bench.size)
    return list((still + torch.rand(frames, rows, 3, *bench.size) * 0.1).clamp(0, 1))


def _shown(model: ShortcutV2V, video: Sequence[Tensor], device: torch.device, **goal: Any) -> tuple[list[Tensor], Any]:
    """Return the outputs of a stream, all looked at only when the video is over, and its refreshes."""
    stream = model.stream(**goal)
    outputs = [stream(frame.to(device)) for frame in video]
    return to(outputs, CPU), dict(stream.refreshes)


def _half(look: Look) -> bool:
    """Refresh every other row of a batch, two frames after its reference."""
    return look.row % 2 == 1 and look.distance == 2


@check("streams", 5e-4, "as for the blocks; references are reused, so errors do not add up")
def streams(bench: Bench) -> Errors:
    """Streams: full passes, shortcuts, refreshes of half a batch; the refreshes must be the same, too."""
    for label, rows, goal in (("one video", 1, {"refresh": 3}), ("half of the rows refresh", 4, {"refresh": _half})):
        video = _video(bench, rows)
        found, why = _shown(_model(bench, bench.device)[0], video, bench.device, **goal)
        expected, why_there = _shown(_model(bench, CPU)[0], video, CPU, **goal)
        if why != why_there:
            raise ValueError(f"{label}: refreshes {why}, on the CPU {why_there}")
        yield label, apart(found, expected)


@check("another stream of CUDA", 5e-4, "the same device; other kernels sum in another order")
def side_stream(bench: Bench) -> Errors:
    """A video on a stream that is not the default one, where torchvision's kernels may not run."""
    model, _ = _model(bench, bench.device)
    video = [frame.to(bench.device) for frame in _video(bench)]
    expected, _ = _shown(model, video, bench.device)
    side: AbstractContextManager[Any] = nullcontext()
    if bench.device.type == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        side = torch.cuda.stream(stream)
    with side:
        found, _ = _shown(model, video, bench.device)
    yield "one video", apart(found, expected)


def _compiled(bench: Bench, mode: str, *variants: str) -> Errors:
    for variant in variants:
        model, _ = _model(bench, bench.device, variant)
        expected, _ = _shown(model, _video(bench), bench.device)
        model.compile(**bench.compiler(mode))
        found, _ = _shown(model, _video(bench), bench.device)
        yield f"{variant}, stream", apart(found, expected)
        yield f"{variant}, two references at a time", _pure(model, _model(bench, CPU, variant)[0], bench)


@torch.no_grad()
def _pure(model: ShortcutV2V, eager: ShortcutV2V, bench: Bench) -> float:
    """Return the error of shortcuts from an older reference: it must outlive the passes after it."""
    first, second, third = (frame.to(bench.device) for frame in _video(bench, frames=3))
    _, one = model.reference(first)
    model.reference(second)
    found = model.shortcut(one, third)
    _, reference = eager.reference(first.cpu())
    return apart(found, eager.shortcut(reference, third.cpu()))


@check("model.compile()", 5e-4, "fused kernels round once where eager ones round twice")
def compiled(bench: Bench) -> Errors:
    """Compiled passes against eager ones."""
    yield from _compiled(bench, "default", DEFAULT_VARIANT)


@check("CUDA graphs", 5e-4, "as for model.compile(); what a replay overwrites would be wrong by far more")
def cuda_graphs(bench: Bench) -> Errors:
    """Mode reduce-overhead; outputs and references are looked at after later replays."""
    yield from _compiled(bench, "reduce-overhead", "paper", DEFAULT_VARIANT)


def _in_precision(bench: Bench, dtype: torch.dtype) -> Errors:
    for variant in ("paper", DEFAULT_VARIANT):
        expected, _ = _shown(_model(bench, CPU, variant)[0], _video(bench), CPU)
        model = _model(bench, bench.device, variant)[0].to(dtype)
        found, _ = _shown(model, [frame.to(dtype) for frame in _video(bench)], bench.device)
        yield variant, apart(found, expected)


@check("bfloat16", 0.1, "8 bits: 0.4 % per layer, a dozen layers and a warp, and the largest error of all pixels")
def bfloat16(bench: Bench) -> Errors:
    """Teacher and block in bfloat16 against float32."""
    yield from _in_precision(bench, torch.bfloat16)


@check("float16", 0.01, "11 bits: 0.05 % per layer")
def float16(bench: Bench) -> Errors:
    """Teacher and block in float16 against float32."""
    yield from _in_precision(bench, torch.float16)


@check("--dtype auto", 0.0, "the teacher has the precision that the line names")
def auto(bench: Bench) -> Errors:
    """The choice of a precision on the first frames."""
    _, adapter = _model(bench, bench.device)
    line = precision.choose(adapter, _clip(bench))
    dtype = next(adapter.teacher.parameters()).dtype
    yield line, float(dtype != precision.DTYPES[line.partition(":")[0]])


def _clip(bench: Bench) -> list[Tensor]:
    return [(frame[0] * 255).byte() for frame in _video(bench, frames=8)]


@check("windows", 2e-4, "the algorithm of a convolution depends on its size")
def windows(bench: Bench) -> Errors:
    """All windows refreshed on every frame: what the teacher gives for the whole frame."""
    model, adapter = _model(bench, bench.device)
    settings = Windows(size=32 if bench.small else 64, halo=12, rolling=1.0)
    stream = model.stream(windows=settings)
    with mock.patch.object(Times, "pay", return_value=True), torch.no_grad():  # faster or not
        for number, frame in enumerate(_video(bench, frames=4)):
            given = frame.repeat(1, 1, 3, 3).to(bench.device)
            yield f"frame {number}", apart(stream(given), adapter.teacher(given))
    if not isinstance(stream, WindowStream) or not stream.counts["refreshed"]:
        raise ValueError("no frame was made of windows")


@check("translation", 2.5 / 255, "two steps of 8 bits, where rounding falls on either side")
def translation(bench: Bench) -> Errors:
    """uint8 pictures in and out, each frame from the reference before it, or from both sides."""
    for lookahead in (False, True):
        made = []
        for device in (bench.device, CPU):
            model, adapter = _model(bench, device)
            made.append([x.float() / 255 for x in Translator(adapter, model, lookahead=lookahead).play(_clip(bench))])
        yield "look-ahead" if lookahead else "causal", apart(made[0], made[1])


@check("training step", 5e-3, "gradients sum over all positions and both frames, in any order")
def training_step(bench: Bench) -> Errors:
    """The losses of a distillation step, and the gradients of all weights."""
    pairs = torch.stack(_video(bench, 2, 3), 1)
    for variant in ("paper", DEFAULT_VARIANT):
        (losses, gradients), (losses_there, gradients_there) = (
            _step(*_model(bench, device, variant), pairs.to(device)) for device in (bench.device, CPU)
        )
        yield f"{variant}, losses", apart(losses, losses_there)
        yield f"{variant}, gradients", apart(gradients, gradients_there)


def _step(model: ShortcutV2V, adapter: RealESRGANAdapter, pairs: Tensor) -> tuple[Mapping[str, Any], list[Tensor]]:
    loss, parts = Distiller(model.train(), adapter).objective(pairs)
    return parts, list(torch.autograd.grad(loss, list(model.parameters())))


@check("fit with a feature cache", 2e-2, "cached features are 16 bits; a few steps of Adam on top")
def cached_fit(bench: Bench) -> Errors:
    """A short training on cached features, judged on the CPU by the training loss of a batch it did not see."""
    pairs = torch.stack(_video(bench, 2, 2), 1)
    judged = []
    for device in (bench.device, CPU):
        model, adapter = _model(bench, device)
        data = torch.stack(_clip(bench))
        settings: dict[str, Any] = {
            "crop": 16,
            "batch_size": 2,
            "workers": 0,
            "cache": "auto",
            "accelerator": device.type,
        }
        fit(model, data, adapter=adapter, minutes=None, steps=4, validation=None, progress=False, **settings)
        judged.append(_step(model.to(CPU), adapter, pairs)[0])
    yield "loss after four steps", apart(*judged)


@check("counted operations", 0.1, "the same, but for HetConv, which is one dense convolution on a GPU")
def counted(bench: Bench) -> Errors:
    """Multiply-adds of teacher, reference and shortcut frame."""
    (frame,) = _video(bench, frames=1)
    found = []
    for device in (bench.device, CPU):
        model, adapter = _model(bench, device)
        given = frame.to(device)
        with torch.no_grad():
            _, reference = model.reference(given)
            runs = (adapter.teacher, model.reference, partial(model.shortcut, reference))
            found.append(torch.tensor([float(measure.cost(run, given).macs) for run in runs]))
    yield "multiply-adds", apart(found[0], found[1])
