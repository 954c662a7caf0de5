"""Count the cost of the paper's teachers and blocks, module by module, at full size, without running them at it.

Teachers are counted on the meta device, blocks on small maps. Which modules a shortcut frame runs
is seen on narrow twins, wrapped and cut as users do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import torch
from examples.unsup import teacher as unsup
from examples.vid2vid import teacher as vid2vid
from examples.vtoonify import stylegan
from examples.vtoonify import teacher as vtoonify
from torch import Tensor, nn

from shortcutv2v import ops, wrap
from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.measure.cost import cost

__all__ = ["TEACHERS", "Count", "Teacher", "count_block", "count_modules", "run_by_shortcut"]

SIDE = 8  # blocks are counted on maps so low, and scaled: convolutions are linear in the pixels
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d, nn.InstanceNorm2d)  # what thop knows
FILTERS = (stylegan.Blur, stylegan.Upsample)  # StyleGAN2's 4x4 filters: listed apart, as in the calibration


@dataclass(frozen=True)
class Count:
    """Costs of some modules: multiply-adds and parameters by the paper's count, true ones, and those of 4x4 filters."""

    paper_macs: float = 0
    paper_params: float = 0
    macs: float = 0
    params: float = 0
    filters: float = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Teacher:
    """A teacher at full size on the meta device, and a narrow twin that shows which modules a shortcut runs.

    Attributes:
        build: from "narrow or not" to the network.
        inputs: from height, width and width of the style code to the teacher's inputs.
        size: height and width of the paper's frames.
        cut: from a level to `enc_layer` and `dec_layer`.
    """

    build: Callable[[bool], nn.Module]
    inputs: Callable[[int, int, int], tuple[tuple[Any, ...], dict[str, Any]]]
    size: tuple[int, int]
    cut: Callable[[str], tuple[Any, Any]]


def _unsup() -> Callable[[bool], nn.Module]:
    return lambda narrow: unsup.build_teacher({"ngf": 2 if narrow else 64})


def _vid2vid(input_nc: int, fg: bool) -> Callable[[bool], nn.Module]:
    return lambda narrow: vid2vid.build_teacher(
        {"input_nc": input_nc, "prev_output_nc": 6, "fg": fg, "ngf": 2 if narrow else 128, "use_raw_only": narrow}
    )


def _vtoonify(narrow: bool) -> nn.Module:
    thin = {"style_channels": 8, "generator_channels": {2**level: 4 for level in range(2, 11)}}
    return vtoonify.build_teacher({"backbone": "toonify", **(thin if narrow else {})})


TEACHERS = {
    "V2C": Teacher(
        _unsup(),
        lambda h, w, _: ((torch.zeros(1, 3, h, w),), {}),
        (256, 512),
        lambda level: unsup.published_cut(6, level),
    ),
    "L2V": Teacher(
        _unsup(),
        lambda h, w, _: ((torch.zeros(1, 3, h, w),), {}),
        (256, 256),
        lambda level: unsup.published_cut(6, level),
    ),
    "E2F": Teacher(
        _vid2vid(45, False),
        lambda h, w, _: ((torch.zeros(1, 45, h, w), torch.zeros(1, 6, h, w)), {}),
        (512, 512),
        lambda level: vid2vid.published_cut(3, level),
    ),
    "L2C": Teacher(
        _vid2vid(108, True),
        lambda h, w, _: ((torch.zeros(1, 108, h, w), torch.zeros(1, 6, h, w)), {"mask": torch.zeros(1, 1, h, w)}),
        (256, 512),
        lambda level: vid2vid.published_cut(3, level),
    ),
    "VToonify": Teacher(
        _vtoonify,
        lambda h, w, style: ((torch.zeros(1, 22, h, w), torch.zeros(1, style)), {}),
        (512, 512),
        lambda level: vtoonify.published_cut("toonify", level=level),
    ),
}


@cache
def count_modules(key: str, flow: bool = True) -> tuple[dict[str, Count], dict[str, torch.Size]]:
    """Return the cost of every module of a full-size teacher that runs on a frame, and the shape of every output."""
    with torch.device("meta"):
        net = TEACHERS[key].build(False)
        args, kwargs = TEACHERS[key].inputs(*TEACHERS[key].size, 512)
    if isinstance(net, vid2vid.CompositeGenerator):
        net.use_raw_only = not flow
    calls: dict[str, tuple[Any, ...]] = {}
    shapes: dict[str, torch.Size] = {}

    def note(name: str, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] = inputs
        if isinstance(output, Tensor):
            shapes[name] = output.shape

    hooks = [
        module.register_forward_hook(lambda _m, inputs, output, name=name: note(name, inputs, output))
        for name, module in net.named_modules()
    ]
    with torch.no_grad():
        net(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return {name: _own_cost(net.get_submodule(name), inputs) for name, inputs in calls.items()}, shapes


def _own_cost(module: nn.Module, inputs: tuple[Any, ...]) -> Count:
    """Return the cost of a module without the modules inside it; containers cost nothing."""
    params = sum(p.numel() for p in module.parameters(recurse=False))
    if isinstance(module, LAYERS):
        paper = cost(module, *inputs, convention="paper")
        return Count(paper.macs, paper.parameters, cost(module, *inputs).macs, params)
    if isinstance(module, FILTERS):
        return Count(filters=cost(module, *inputs).macs)
    if isinstance(module, stylegan.ModulatedConv2d):
        inner = cost(module.modulation, inputs[1]).macs
        if module.upsample:
            height, width = inputs[0].shape[2:]
            wide = inputs[0].new_zeros(1, module.outputs, 2 * height + 1, 2 * width + 1)
            inner += cost(module.blur, wide).macs
        return Count(macs=cost(module, *inputs).macs - inner, params=params)
    leaf = next(module.children(), None) is None
    return Count(macs=cost(module, *inputs).macs if leaf and params else 0, params=params)


@cache
def run_by_shortcut(key: str, level: str) -> frozenset[str]:
    """Return the names of the modules that a shortcut frame runs, found on the narrow twin."""
    teacher = TEACHERS[key]
    twin, (args, kwargs) = teacher.build(True), teacher.inputs(32, 32, 8)
    enc, dec = teacher.cut(level)
    model = wrap(twin, enc, dec, example_inputs=args, example_kwargs=kwargs)
    ran: set[str] = set()
    with torch.no_grad():
        _, reference = model.reference(*args, **kwargs)
        for name, module in twin.named_modules():
            module.register_forward_hook(lambda _m, _i, _o, name=name: ran.add(name))
        model.shortcut(reference, *args, **kwargs)
    return frozenset(ran)


def count_block(a_channels: int, f: torch.Size, channels: int) -> tuple[Count, float]:
    """Return costs of the published block, and its multiply-adds if the reference's part is kept from frame to frame.

    Args:
        a_channels: channels of the encoder features.
        f: shape of the features to predict, (1, C, H, W).
        channels: width h of the block.
    """
    block = ShortcutBlock(a_channels, f[1], channels, variant="paper")
    shrink = min(f[2:]) // SIDE
    small = [size // shrink for size in f[2:]]
    f_ref, a_ref, a_t = (torch.rand(1, width, *small) for width in (f[1], a_channels, a_channels))

    def whole() -> Tensor:
        return block.predict(block.encode_reference(f_ref, a_ref), a_t)

    with ops.use("reference"):
        paper, true = cost(whole, convention="paper"), cost(whole)
        state = block.encode_reference(f_ref, a_ref)
        ours, area = cost(lambda: block.predict(state, a_t)).macs, shrink**2
    return Count(paper.macs * area, paper.parameters, true.macs * area, true.parameters), ours * area
