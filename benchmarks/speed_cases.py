"""Cases of `speed.py`: teachers with their cuts, as callables by name.

The teacher gets whatever the shortcut frame gets: device, precision, memory format and compiler. Weights are random:
time does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from examples.demosaicnet.adapter import DemosaicAdapter
from examples.demosaicnet.teacher import BayerNet
from examples.real_esrgan import teacher as real_esrgan
from examples.real_esrgan.adapter import RealESRGANAdapter
from examples.unsup import teacher as unsup
from examples.unsup.adapter import UnsupAdapter
from examples.vid2vid import teacher as vid2vid
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import ops
from shortcutv2v.blocks import DEFAULT_VARIANT, ShortcutBlock
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.passes import replays

__all__ = ["CASES", "Case", "Setting", "Work", "alike_work", "case_work"]

Work = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """Settings under which teacher and model run alike.

    Attributes:
        device: where.
        dtype: of weights and inputs.
        channels_last: whether weights and inputs lie in that memory format.
        compiled: mode of `torch.compile` for additional, compiled lines; None: none.
        small: tiny networks and frames, and a compiler that compiles nothing; for tests.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    compiled: str | None = None
    small: bool = False

    def frame(self, channels: int, height: int, width: int) -> Tensor:
        """Return a frame, (1, C, H, W) in [0, 1]; a small one has an eighth of the sides."""
        part = 8 if self.small else 1
        return torch.rand(1, channels, height // part, width // part)

    @property
    def compiler(self) -> dict[str, Any]:
        """The options of `torch.compile` for the compiled lines."""
        if self.small:
            return {"backend": "eager"}
        return {} if self.compiled == "default" else {"mode": self.compiled}

    @property
    def implementations(self) -> tuple[str, ...]:
        """The implementations that `ops` runs on this device, the definition first."""
        return ("reference", "plain", "rows" if self.device.type == "cpu" else "fused")

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of 4-D tensors."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, tensor: Tensor) -> Tensor:
        """Return the tensor in the device, dtype and format of this setting."""
        moved = tensor.to(self.device, self.dtype)
        return moved.contiguous(memory_format=self.memory_format) if moved.dim() == 4 else moved

    def case(self, case: Case) -> Case:
        """Return the case in the device, dtype and format of this setting."""
        teacher = case.teacher.to(self.device, self.dtype).to(memory_format=self.memory_format)
        return replace(case, teacher=teacher, inputs=tuple(self.place(x) for x in case.inputs))

    def __str__(self) -> str:
        parts = [str(self.dtype).removeprefix("torch."), "batch 1", *(["channels_last"] if self.channels_last else [])]
        parts += ["tiny networks and frames"] if self.small else []
        return ", ".join([*parts, *([f"compiled lines: mode {self.compiled}"] if self.compiled else [])])


@dataclass(frozen=True)
class Case:
    """A teacher to measure, with its cuts by level and its inputs."""

    teacher: nn.Module
    cuts: dict[str, tuple[Any, Any]]
    inputs: tuple[Tensor, ...]


def _unsup(setting: Setting) -> Case:
    teacher = unsup.build_teacher({"ngf": 4} if setting.small else {})
    return Case(teacher, dict(UnsupAdapter(teacher).cuts), (setting.frame(3, 256, 512) * 2 - 1,))


def _vid2vid(setting: Setting) -> Case:
    """Return the E2F network without its flow branch; without a GPU at a quarter of its width.

    The full net takes 1.3 T multiply-adds without that branch, a good part of a minute on two cores; the paper leaves
    the branch out of its shortcut frames, and here the teacher does without it too.
    """
    width = 2 if setting.small else 128 if setting.device.type == "cuda" else 32
    config = {"input_nc": 45, "prev_output_nc": 6, "ngf": width, "n_downsampling": 3, "n_blocks": 9, "no_flow": True}
    cuts: dict[str, tuple[Any, Any]] = {level: vid2vid.published_cut(3, level) for level in ("medium", "low", "high")}
    return Case(vid2vid.build_teacher(config), cuts, (setting.frame(45, 512, 512), setting.frame(6, 512, 512)))


def _real_esrgan(setting: Setting) -> Case:
    """Return Real-ESRGAN; with a GPU on frames of 640x360, without one on 320x180."""
    teacher = real_esrgan.build_teacher({"arch": "compact", "scale": 2, "width": 8 if setting.small else 64}).eval()
    large = 2 if setting.device.type == "cuda" else 1
    return Case(teacher, dict(RealESRGANAdapter(teacher).cuts), (setting.frame(3, 180 * large, 320 * large),))


def _x4plus(setting: Setting) -> Case:
    """Return Real-ESRGAN's picture network, nearly all of whose work lies in its 23 blocks."""
    config = {"arch": "rrdb", "blocks": 1, "width": 8, "growth": 4} if setting.small else {"arch": "rrdb", "blocks": 23}
    teacher = real_esrgan.build_teacher(config).eval()
    large = 2 if setting.device.type == "cuda" else 1
    return Case(teacher, dict(RealESRGANAdapter(teacher).cuts), (setting.frame(3, 90 * large, 160 * large),))


def _demosaicnet(setting: Setting) -> Case:
    teacher = BayerNet(**({"depth": 8, "width": 8} if setting.small else {})).eval()
    return Case(teacher, dict(DemosaicAdapter(teacher).cuts), (setting.frame(3, 180, 320),))


CASES: dict[str, Callable[[Setting], Case]] = {
    "unsup": _unsup,
    "vid2vid": _vid2vid,
    "real_esrgan": _real_esrgan,
    "x4plus": _x4plus,
    "demosaicnet": _demosaicnet,
}


WIDTHS = {"": 1, ", half the width": 1 / 2, ", a quarter of the width": 1 / 4, ", 3/2 of the width": 3 / 2}


def case_work(case: Case, setting: Setting) -> dict[str, Work]:
    """Return a teacher's callables: its frame, every cut, and at the middle cut every block, width and implementation.

    "published" is the published block on torchvision's kernels, nothing folded or fused.
    """
    case = setting.case(case)
    models = _models(case)
    work: dict[str, Work] = {"teacher frame": lambda: case.teacher(*case.inputs)}
    for key, model in models.items():
        model.blocks.eval()
        work |= _frames(key, model, case)
    medium = models["medium, paper"]
    work["medium, published: shortcut frame"] = _as_published(medium, case)
    default = setting.implementations[-1]
    for name in setting.implementations:
        if name not in ("reference", default):
            work |= _frames(f"medium, paper, {name}", medium, case, implementation=name)
    work |= _parts(medium, case)
    if setting.compiled is not None:
        work |= _compiled(case, setting)
    return work


def _models(case: Case) -> dict[str, ShortcutV2V]:
    """Return models by cut, block and width; models at one cut share the capture."""
    models: dict[str, ShortcutV2V] = {}
    for level in case.cuts:
        first = _wrap(case, level)
        models[f"{level}, paper"] = first
        (block,) = first.blocks
        for name, part in WIDTHS.items():
            models[f"{level}, flow{name}"] = _sibling(first, max(1, int(block.channels * part)), "flow")
        if level == "medium":
            for part in (2, 4):
                models[f"{level}, paper, width 1/{part}"] = _sibling(first, block.channels // part, "paper")
    return models


def _wrap(case: Case, level: str, variant: str = "paper") -> ShortcutV2V:
    enc, dec = case.cuts[level]
    model = shortcutv2v.wrap(case.teacher, enc, dec, example_inputs=case.inputs, variant=variant)
    model.blocks.eval()
    return model


def _sibling(model: ShortcutV2V, channels: int, variant: str) -> ShortcutV2V:
    """Return the same captured teacher with another block."""
    (block,) = model.blocks
    other = ShortcutBlock(block.a_channels, block.f_channels, channels, variant=variant)
    like = next(block.parameters())
    return ShortcutV2V(model.capture, [other.to(like.device, like.dtype)], model.refresh)


@torch.no_grad()
def _frames(key: str, model: ShortcutV2V, case: Case, implementation: str | None = None) -> dict[str, Work]:
    """Return callables for a shortcut frame and a reference frame."""
    with _using(implementation):
        _, reference = model.reference(*case.inputs)

    def shortcut() -> None:
        with _using(implementation):
            model.shortcut(reference, *case.inputs)

    def full() -> None:
        with _using(implementation):
            model.reference(*case.inputs)

    return {f"{key}: shortcut frame": shortcut, f"{key}: reference frame": full}


@contextmanager
def _using(implementation: str | None) -> Iterator[None]:
    if implementation is None:
        yield
        return
    with ops.use(implementation):
        yield


@contextmanager
def _published(model: ShortcutV2V) -> Iterator[None]:
    """Return the block as published: without folding, on torchvision's kernels."""
    model.blocks.train()
    try:
        with ops.use("reference"):
            yield
    finally:
        model.blocks.eval()


@torch.no_grad()
def _as_published(model: ShortcutV2V, case: Case) -> Work:
    with _published(model):
        _, reference = model.reference(*case.inputs)

    def run() -> None:
        with _published(model):
            model.shortcut(reference, *case.inputs)

    return run


@torch.no_grad()
def _parts(model: ShortcutV2V, case: Case) -> dict[str, Work]:
    _, reference = model.reference(*case.inputs)
    carry = model.head(*case.inputs)
    f = model.middle(carry)
    return {
        "medium: head": lambda: model.head(*case.inputs),
        "medium, paper: block": lambda: model.predict(reference, carry),
        "medium: tail": lambda: model.tail(carry, f),
    }


def _compiled(case: Case, setting: Setting) -> dict[str, Work]:
    """Return teacher and model, both compiled in the same mode."""
    work = {"teacher frame, compiled": _compiled_teacher(case, setting)}
    for variant in ("paper", "flow"):
        model = _wrap(case, "medium", variant)
        model.compile(**setting.compiler)
        work |= _frames(f"medium, {variant}, compiled", model, case)
    return work


def _compiled_teacher(case: Case, setting: Setting) -> Work:
    teacher = torch.compile(case.teacher, **setting.compiler)

    def run() -> None:
        if replays(setting.compiler):
            torch.compiler.cudagraph_mark_step_begin()
        teacher(*case.inputs)

    return run


def alike_work(case: Case, setting: Setting, level: str) -> dict[str, Work]:
    """Return a teacher's frame and those of the default block at one cut; all compiled, or none."""
    case = setting.case(case)
    model = _wrap(case, level, DEFAULT_VARIANT)
    key = f"{level}, {DEFAULT_VARIANT}"
    if setting.compiled is not None:
        model.compile(**setting.compiler)
        return {"teacher frame": _compiled_teacher(case, setting), **_frames(key, model, case)}
    (block,) = model.blocks
    half = _sibling(model, block.channels // 2, DEFAULT_VARIANT)
    half.blocks.eval()
    frames = _frames(key, model, case) | _frames(f"{key}, half the width", half, case)
    return {"teacher frame": lambda: case.teacher(*case.inputs), **frames}
