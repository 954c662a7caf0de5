"""Choose the implementation of an operator call: by device, by argument, or by an enclosing `use(...)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

import torch

from shortcutv2v.errors import InputError

__all__ = ["choose", "implementations", "use"]

_NAMES = ("reference", "rows", "plain", "fused")
_EXPORTED = "grid"  # not listed: without gradients of gradients, and not exact at whole pixels; `deploy` uses it
_forced: ContextVar[str | None] = ContextVar("shortcutv2v_ops_implementation", default=None)
_in_use: list[str] = []  # read by compiled code: Dynamo does not support ContextVar before torch 2.13


def implementations() -> tuple[str, ...]:
    """Return the names that `implementation=` and `use` accept.

    >>> "reference" in implementations()
    True
    """
    return _NAMES


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Run every operator call inside the `with` block on one implementation.

    An `implementation=` argument takes precedence. The choice holds for the current thread (or asyncio task) only;
    compiled code follows the latest choice of any thread.

    Args:
        implementation: one of `implementations()`.

    Raises:
        InputError: no implementation has that name.

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
    """Return the implementation for a call on a tensor such as `like`: the argument, else `use`, else the default.

    Raises:
        InputError: no implementation has that name.
    """
    if implementation is not None:
        return _known(implementation)
    if torch.compiler.is_dynamo_compiling():
        return _in_use[-1] if _in_use else _default(like)
    return _forced.get() or _default(like)


def _default(like: torch.Tensor) -> str:
    return {"cpu": "rows", "cuda": "fused", "meta": "reference"}.get(like.device.type, "plain")


def _known(name: str) -> str:
    if name in (*_NAMES, _EXPORTED):
        return name
    near = get_close_matches(name, _NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    msg = f"`implementation` is {name!r}, but must be one of {', '.join(map(repr, _NAMES))}.{hint}"
    raise InputError(msg)
