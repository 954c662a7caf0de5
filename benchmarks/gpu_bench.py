"""The frame of the checks of `gpu.py`: what a check is, and how two nests of tensors are compared."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["CHECKS", "CPU", "Bench", "Check", "Errors", "Outcome", "apart", "check", "outcome", "to"]

CPU = torch.device("cpu")
Errors = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Bench:
    """Where and how large to check.

    Attributes:
        device: compared with the CPU.
        small: tiny sizes, and a compiler that compiles nothing; for tests.
    """

    device: torch.device
    small: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of frames: odd, so that halves are rounded."""
        return (17, 23) if self.small else (91, 161)

    def compiler(self, mode: str) -> dict[str, Any]:
        """Return options of `torch.compile` for a mode."""
        return {"backend": "eager"} if self.small else {"mode": mode}


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: of the path.
        tolerance: largest error that passes.
        why: why not less.
        run: yields labels and errors.
    """

    name: str
    tolerance: float
    why: str
    run: Callable[[Bench], Errors]


@dataclass(frozen=True)
class Outcome:
    """A check that was run.

    Attributes:
        name: of the check.
        passed: every error is within the tolerance, and there was at least one.
        error: the largest; None if the check raised.
        tolerance: what was allowed.
        why: why not less.
        seconds: it took.
        note: the label of the largest error, or what was raised.
    """

    name: str
    passed: bool
    error: float | None
    tolerance: float
    why: str
    seconds: float
    note: str


CHECKS: list[Check] = []
"""All checks, in the order in which they are defined."""


def check(name: str, tolerance: float, why: str) -> Callable[[Callable[[Bench], Errors]], Callable[[Bench], Errors]]:
    """Register a check."""

    def add(run: Callable[[Bench], Errors]) -> Callable[[Bench], Errors]:
        CHECKS.append(Check(name, tolerance, why, run))
        return run

    return add


def outcome(which: Check, bench: Bench) -> Outcome:
    """Run a check; whatever it raises is its outcome."""
    begun, errors, raised = time.perf_counter(), [("nothing was compared", float("inf"))], ""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors = list(which.run(bench)) or errors
    except Exception as error:  # the others go on
        raised = f"{type(error).__name__}: {(str(error) or 'without a message').splitlines()[0]}"
    label, worst = max(errors, key=lambda pair: pair[1])
    passed, seconds = not raised and worst <= which.tolerance, time.perf_counter() - begun
    largest = None if raised else worst
    return Outcome(which.name, passed, largest, which.tolerance, which.why, seconds, raised or label)


def apart(found: Any, expected: Any) -> float:
    """Return the largest difference of two nests of tensors, each relative to the largest value expected in it.

    >>> apart([torch.tensor([1.0, 4.5])], [torch.tensor([1.0, 4.0])])
    0.125
    """
    pairs = list(zip(_tensors(found), _tensors(expected), strict=True))
    return max((_apart(*pair) for pair in pairs), default=float("inf"))


def _apart(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    difference = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    return float(difference.nan_to_num(nan=float("inf")))


def _tensors(tree: Any) -> list[Tensor]:
    return [x.detach().to(CPU, torch.float64) for x in pytree.tree_leaves(tree) if isinstance(x, Tensor) and x.numel()]


def to(tree: Any, *where: Any) -> Any:
    """Return the same nest with its tensors moved or cast."""
    return pytree.tree_map_only(Tensor, lambda x: x.to(*where), tree)
