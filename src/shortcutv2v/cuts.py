"""The cuts that a teacher allows, each priced with the block that it would need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v import graph, ops
from shortcutv2v.blocks import DEFAULT_VARIANT, ShortcutBlock, default_width
from shortcutv2v.graph import MacCounter, Suggestion

__all__ = ["block_macs", "suggest_cuts"]


def suggest_cuts(
    teacher: nn.Module,
    example_inputs: Sequence[Any] | Tensor,
    example_kwargs: dict[str, Any] | None = None,
    *,
    variant: str = DEFAULT_VARIANT,
) -> list[Suggestion]:
    """List the pairs of layers of the same spatial size between which a teacher can be cut, the best first.

    Args:
        teacher: the network; it is left as found.
        example_inputs: a tuple of inputs, or one tensor; smaller inputs give the same list faster.
        example_kwargs: keyword inputs.
        variant: the block whose multiply-adds are subtracted, at its default width.

    Returns:
        One entry per distinct cut: a convolution, the norm and the activation after it count as one place, under the
        name of the last. Cuts that leak come last, before them those at a picture; each of these groups begins with
        the cut that saves most, the block included.

    Raises:
        InputError: the teacher is no module.
        CaptureError: the teacher can be followed by no strategy.

    Examples:
        >>> net = nn.Sequential(*[nn.Conv2d(c, d, 3, padding=1) for c, d in [(3, 64), (64, 64), (64, 64), (64, 3)]])
        >>> print(suggest_cuts(net, torch.zeros(1, 3, 8, 8))[0])
         14.5%  0 -> 2  64 and 64 channels of 8x8 (1/1), reach 2 pixels
    """

    def price(a_shape: tuple[int, ...], f_shape: tuple[int, ...]) -> int:
        return block_macs(a_shape, f_shape, default_width(a_shape[1], f_shape[1]), variant)[1]

    return graph.suggest_cuts(teacher, example_inputs, example_kwargs, price)


@cache
def block_macs(a_shape: tuple[int, ...], f_shape: tuple[int, ...], width: int, variant: str) -> tuple[int, int]:
    """Multiply-adds of a block per refresh and per frame, from shapes alone: nothing is computed."""
    with torch.device("meta"), ops.use("plain"), torch.no_grad():
        block = ShortcutBlock(a_shape[1], f_shape[1], width, variant=variant).eval()
        a, f = torch.empty(a_shape), torch.empty(f_shape)
        state, refresh = _counted(lambda: block.encode_reference(f, a))
        return refresh, _counted(lambda: block.predict(state, a))[1]


def _counted(call: Callable[[], Any]) -> tuple[Any, int]:
    with MacCounter() as count:
        return call(), count.total
