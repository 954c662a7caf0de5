"""`wrap()`: the main path. Capture, cut, probe the shapes, build the blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from shortcutv2v import graph
from shortcutv2v.blocks import DEFAULT_VARIANT, ShortcutBlock, default_width
from shortcutv2v.errors import InputError
from shortcutv2v.memory import keep_freed_memory
from shortcutv2v.model import RefreshLike, ShortcutV2V
from shortcutv2v.refresh import as_policy
from shortcutv2v.teacher import check_teacher

__all__ = ["Layers", "wrap"]

Layers = str | tuple[str, ...] | list[Any]
"""A module name; a list of names for several branches; a tuple of names where outputs are concatenated."""


def wrap(
    teacher: nn.Module,
    enc_layer: Layers,
    dec_layer: Layers,
    *,
    example_inputs: tuple[Any, ...] | Tensor = (),
    example_kwargs: Mapping[str, Any] | None = None,
    max_interval: int | None = None,
    channels: int | Sequence[int] | None = None,
    variant: str = DEFAULT_VARIANT,
    capture: str | None = None,
    on_leak: str = "error",
    layout: str | None = None,
    refresh: RefreshLike | None = None,
    show_shortcut: bool = False,
    keep_memory: bool = False,
) -> ShortcutV2V:
    """Wrap a pretrained generator so that its heavy middle runs at reference frames only.

    The teacher is not modified: parameters are shared, its train and eval flags stay yours.

    Args:
        teacher: the frozen generator.
        enc_layer: name of the module whose output is `a`, the encoder features (see `teacher.named_modules()`).
            A list gives several branches; inside a branch a tuple of names means their outputs concatenated.
        dec_layer: name of the module whose output is `f`, the features that the block predicts.
        example_inputs: positional inputs of the teacher; a single tensor may stand alone. Without example inputs the
            names of the cut are checked now; the teacher is captured and the blocks are made when the first inputs
            come (see `ShortcutV2V.materialise`).
        example_kwargs: keyword inputs of the teacher.
        max_interval: frames from one refresh to the next, the paper's alpha; default 3. With a function as `refresh`
            it is the function's horizon.
        channels: reduced width h of the blocks, one for all branches or one per branch; default half of `f`'s channels,
            see `blocks.default_width`.
        variant: the block, see `ShortcutBlock`.
        capture: force a capture strategy instead of trying them in turn.
        on_leak: "error", or "reuse" to take leaking features from the reference.
        layout: how token features become maps, in einops terms, such as `"b (h w) c -> b c h w"`.
        refresh: a refresh policy (see `RefreshPolicy`), or a function `policy(look) -> bool`; default:
            `Every(max_interval)`.
        show_shortcut: show the block's prediction at reference frames too, see `Stream`.
        keep_memory: keep freed memory in the process, see `memory.keep_freed_memory`: on Linux and a CPU, frames of
            large feature maps no longer pay for new pages. The command line does so by itself.

    Returns:
        A `ShortcutV2V`, on the teacher's device and in its dtype. Its blocks are untrained: with the default
        variant it returns what plain reuse of `f_ref` gives. Distil them with `shortcutv2v.distill`.

    Raises:
        CutError: the cut cannot be made; the subclasses say why and what to type next.
        CaptureError: the teacher cannot be captured.
        InputError: another argument is out of range, or `max_interval` and `refresh` contradict each other.

    Warns:
        UserWarning: the teacher is in train mode, and has modules that act differently there, such as batch norm.

    Examples:
        >>> import torch
        >>> teacher = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> frame = torch.rand(1, 3, 8, 8)
        >>> model = wrap(teacher, enc_layer="0", dec_layer="2")
        >>> output, reference = model.reference(frame)
        >>> torch.equal(output, teacher(frame))
        True
        >>> model.shortcut(reference, frame).shape
        torch.Size([1, 3, 8, 8])
    """
    check_teacher(teacher)
    if keep_memory:
        keep_freed_memory()
    policy = as_policy(refresh, max_interval)
    cut = graph.parse_cut(teacher, enc_layer, dec_layer, layout)
    captured = graph.Capture(teacher, cut, capture=capture, on_leak=on_leak)
    branches = len(cut.branches)
    make = partial(_build_blocks, channels=_widths(channels, branches), variant=_known(variant))
    model = ShortcutV2V(captured, make, policy, show_shortcut)
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    kwargs = dict(example_kwargs or {})
    return model.materialise(*args, **kwargs) if args or kwargs else model


def _widths(channels: int | Sequence[int] | None, branches: int) -> list[int | None]:
    """One width per branch, None for the default."""
    widths: list[int | None] = (
        [channels] * branches if channels is None or isinstance(channels, int) else list(channels)
    )
    if len(widths) != branches:
        raise InputError(f"channels has {len(widths)} entries for {branches} branches: give one, or one per branch")
    if any(width is not None and width < 1 for width in widths):
        raise InputError(f"channels={channels!r}: a block needs at least one channel")
    return widths


def _known(variant: str) -> str:
    if variant not in ShortcutBlock.variants:
        raise InputError(f"unknown variant {variant!r}: expected one of {', '.join(ShortcutBlock.variants)}")
    return variant


def _build_blocks(maps: graph.Maps, channels: list[int | None], variant: str) -> list[ShortcutBlock]:
    return [
        ShortcutBlock(a[1], f[1], width or default_width(a[1], f[1]), variant=variant)
        for a, f, width in zip(maps.a_shapes, maps.f_shapes, channels, strict=True)
    ]
