"""Check that a split reproduces the teacher on two inputs, and that shortcut passes do not read the middle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import CaptureError, InputError
from .build import attributes
from .frozen import Frozen, Label, volatile
from .protect import untouched
from .split import Split
from .structure import Structure, flatten
from .traced import Untraceable

__all__ = ["Expected", "expect", "verify"]


@dataclass(frozen=True)
class Expected:
    """The teacher's outputs, found by running it.

    Attributes:
        cases: pairs of input tensors and output tensors, for two different inputs (one, if the teacher rejects the
            second).
        random: whether the output depends on torch's random generators; each operation then had a seed of its own.
        changed: labels of the attributes and variables that a call changes.
    """

    cases: tuple[tuple[list[Tensor], list[Tensor]], ...]
    random: bool
    changed: frozenset[Label]


def expect(teacher: nn.Module, tensors: list[Tensor], structure: Structure) -> Expected:
    """Run the teacher on the example inputs and on changed ones; check that it repeats itself.

    Raises:
        InputError: the teacher itself fails on the example inputs.
        CaptureError: its output changes from call to call although all random generators are reset.
    """
    try:
        with untouched(teacher):
            before = Frozen(teacher)
            first = _call(teacher, tensors, structure, tame=False, seed=0)
            changed = volatile(before, Frozen(teacher))
            again = _call(teacher, tensors, structure, tame=False, seed=0)
    except Exception as error:
        raise InputError(
            f"the teacher itself failed on the example inputs with {type(error).__name__}: {error}. Check that "
            "teacher(*example_inputs) works"
        ) from error
    if not _close(again, first):
        raise CaptureError(
            "the teacher's output changes from call to call, although the random generators of torch are reset"
            f"{_why_it_changes(teacher, tensors, structure)}"
        )
    random = not _close(_run(teacher, tensors, structure, seed=1), first)
    if random:
        first = _run(teacher, tensors, structure, tame=True)
    cases = [(tensors, first)]
    with contextlib.suppress(Exception):
        other = [_changed(t) for t in tensors]
        cases.append((other, _run(teacher, other, structure, tame=random)))
    return Expected(tuple(cases), random, changed)


def verify(teacher: nn.Module, split: Split, structure: Structure, expected: Expected) -> None:
    """Check a split against the teacher.

    For both inputs, the output with the true `f` must be the teacher's, twice on the same carry. Neither carry nor
    inputs may change. Head and tail must give the same with NaN in the weights that belong to the middle alone.

    Raises:
        Untraceable: a check failed; the message says which.
    """
    for tensors, want in expected.cases:
        args, kwargs = structure.rebuild([t.clone() for t in tensors])
        with untouched(teacher), _tamed(expected.random):
            carry = split.head(*args, **kwargs)
            held = [t.clone() for t in flatten(carry)[0]]
            f = split.middle(carry)
            for attempt in ("", " the second time it runs on one carry"):
                out = flatten(split.tail(carry, f))[0]
                if not _close(out, want):
                    raise Untraceable(f"its split does not give the teacher's output{attempt}{_difference(out, want)}")
            if not _equal(flatten(carry)[0], held):
                raise Untraceable("its split changes the carry in place")
            if not _equal(flatten((args, kwargs))[0], tensors):
                raise Untraceable("its split changes the inputs in place")
        with untouched(teacher), _tamed(expected.random), _poisoned(teacher, split.facts.middle_only):
            out = flatten(split.tail(split.head(*args, **kwargs), f))[0]
        if not _close(out, want):
            raise Untraceable("a shortcut pass still depends on the weights of the middle")


def _run(
    teacher: nn.Module, tensors: list[Tensor], structure: Structure, seed: int = 0, tame: bool = False
) -> list[Tensor]:
    with untouched(teacher):
        return _call(teacher, tensors, structure, tame, seed)


def _call(teacher: nn.Module, tensors: list[Tensor], structure: Structure, tame: bool, seed: int) -> list[Tensor]:
    args, kwargs = structure.rebuild([t.clone() for t in tensors])
    torch.manual_seed(seed)
    with _tamed(tame):
        return [t.clone() for t in flatten(teacher(*args, **kwargs))[0]]


def _changed(tensor: Tensor) -> Tensor:
    """Return other values in the same range: pixels moved by one and dimmed. Integers stay as they are."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() < 2:
        return tensor.clone()
    moved = tensor.roll(1, -1) * 0.875
    if torch.equal(moved, tensor * 0.875):
        ramp = torch.linspace(0.0, 0.1, tensor.numel(), device=tensor.device).reshape(tensor.shape).to(tensor.dtype)
        moved = moved + ramp
    return moved


class _SeedEach(TorchDispatchMode):
    """Seeds before each random operation by its name and shapes, so that the order of operations does not matter."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            shapes = [tuple(t.shape) for t in flatten((args, kwargs))[0]]
            torch.manual_seed(hash((str(func), str(shapes))) % 2**31)
        return func(*args, **(kwargs or {}))


def _tamed(random: bool) -> contextlib.AbstractContextManager[Any]:
    return _SeedEach() if random else contextlib.nullcontext()


@contextlib.contextmanager
def _poisoned(teacher: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Replace the named parameters by NaN, without touching their memory."""
    with contextlib.ExitStack() as saved:
        for name in names:
            owner, _, own = name.rpartition(".")
            module = teacher.get_submodule(owner)
            weight = module._parameters[own]
            if weight is not None and weight.is_floating_point() and not isinstance(module, torch.jit.ScriptModule):
                saved.callback(module._parameters.__setitem__, own, weight)
                poison = torch.full((), torch.nan, dtype=weight.dtype, device=weight.device).expand(weight.shape)
                module._parameters[own] = nn.Parameter(poison, requires_grad=False)
        yield


def _why_it_changes(teacher: nn.Module, tensors: list[Tensor], structure: Structure) -> str:
    """The cause of an output that changes from call to call, and what to do, for the end of a message."""
    modules = dict(teacher.named_modules())
    norms = [name for name, module in modules.items() if module.training and _has_spectral_norm(module)]
    if norms:
        names = ", ".join(repr(name.partition(".parametrizations")[0]) for name in norms[:8])
        return f": spectral norm in train mode updates its estimate at every call ({names}). Call teacher.eval()"
    sources = [path.replace(".[", "[") for path in attributes(teacher, torch.Generator).values()]
    if sources:
        return (
            f": {', '.join(sources[:8])} is a torch.Generator of the teacher's own. Pass the noise that it draws as an "
            "input, or draw it from torch's default generator"
        )
    with untouched(teacher):
        before = {name: dict(vars(module)) for name, module in modules.items()}
        _call(teacher, tensors, structure, tame=False, seed=0)
        kept = [
            f"{name}.{key}".lstrip(".")
            for name, module in modules.items()
            for key, value in vars(module).items()
            if before[name].get(key) is not value
        ]
    remembers = f"; it remembers from call to call: {', '.join(kept[:8])}" if kept else ""
    return (
        f"{remembers}. A split cannot repeat that; make the teacher a pure function of its inputs (pass the state in, "
        "or switch it off)"
    )


def _has_spectral_norm(module: nn.Module) -> bool:
    kinds = [type(module), *map(type, module._forward_pre_hooks.values())]
    return any(kind.__name__.endswith("SpectralNorm") for kind in kinds)


def _equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(_same(x, y) for x, y in zip(left, right, strict=True))


def _same(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    return torch.equal(x, y) or (x.is_floating_point() and bool(torch.isclose(x, y, 0, 0, equal_nan=True).all()))


def _close(left: list[Tensor], right: list[Tensor]) -> bool:
    """Return True if equal bit for bit; on other devices than the CPU, up to rounding."""
    if _equal(left, right):
        return True
    if len(left) != len(right) or all(t.device.type == "cpu" for t in right):
        return False
    return all(x.shape == y.shape and x.dtype == y.dtype and _near(x, y) for x, y in zip(left, right, strict=True))


def _near(x: Tensor, y: Tensor) -> bool:
    if not x.is_floating_point() or not x.numel():
        return torch.equal(x, y)
    return bool((x - y).abs().max() <= 1e-3 * (y.abs().max() + 1e-6))


def _difference(left: list[Tensor], right: list[Tensor]) -> str:
    if len(left) != len(right) or any(x.shape != y.shape for x, y in zip(left, right, strict=True)):
        return " (other shapes)"
    worst = max((float((x.double() - y.double()).abs().max()) for x, y in zip(left, right, strict=True)), default=0.0)
    return f" (largest difference {worst:.3g})"
