"""Which implementation an operator call runs on: by device and dtype, by argument, or inside `use(...)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

import torch

from shortcutv2v.errors import InputError

__all__ = ["choose", "implementations", "use"]

_NAMES = ("reference", "rows", "plain")
_EXPORTED = "grid"  # not listed: without gradients of gradients, and not exact at whole pixels; `deploy` uses it
_forced: ContextVar[str | None] = ContextVar("shortcutv2v_ops_implementation", default=None)
_in_use: list[str] = []  # what compiled code looks at: Dynamo knows no ContextVar before torch 2.13


def implementations() -> tuple[str, ...]:
    """The names that `implementation=` and `use` accept.

    >>> "reference" in implementations()
    True
    """
    return _NAMES


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Run every operator call inside the `with` block on one implementation.

    An `implementation=` given with a call wins over it. The choice holds for the current thread (or task) only;
    compiled code follows the latest choice of any thread.

    Args:
        implementation: one of `implementations()`.

    Raises:
        InputError: there is no implementation of that name.

    Examples:
        >>> from shortcutv2v import ops
        >>> f = torch.rand(1, 2, 3, 4)
        >>> with ops.use("reference"):
        ...     torch.equal(ops.warp(f, torch.zeros(1, 2, 3, 4)), f)
        True
    """
    token = _forced.set(_known(implementation))
    _in_use.append(implementation)
    try:
        yield
    finally:
        _in_use.pop()
        _forced.reset(token)


def choose(implementation: str | None, like: torch.Tensor) -> str:
    """The implementation for a call on a tensor such as `like`: the argument, else `use`, else the default.

    Raises:
        InputError: there is no implementation of that name.
    """
    if implementation is not None:
        return _known(implementation)
    if torch.compiler.is_dynamo_compiling():
        return _in_use[-1] if _in_use else _default(like)
    return _forced.get() or _default(like)


def _default(like: torch.Tensor) -> str:
    if like.device.type == "cpu":
        return "rows"
    if like.device.type == "cuda" and _torchvision_is_unsafe(like.device):
        return "plain"
    return "reference" if like.device.type in ("cuda", "meta") else "plain"


def _torchvision_is_unsafe(device: torch.device) -> bool:
    """Whether its CUDA kernels would race, or break what the user asked for.

    They run on CUDA's default stream whatever stream is current, which another stream does not wait for and no CUDA
    graph can record; compiled code may end up in one. Their gradients are summed in any order.
    """
    if torch.compiler.is_compiling() or torch.are_deterministic_algorithms_enabled():
        return True
    return bool(torch.cuda.current_stream(device) != torch.cuda.default_stream(device))


def _known(name: str) -> str:
    if name in (*_NAMES, _EXPORTED):
        return name
    near = get_close_matches(name, _NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    msg = f"`implementation` is {name!r}, but must be one of {', '.join(map(repr, _NAMES))}.{hint}"
    raise InputError(msg)
