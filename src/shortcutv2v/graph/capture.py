"""Capture a teacher for a cut and example inputs: try the strategies in their order, and check the split."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CaptureError, CutError, InputError, LeakError, NeverCalledError
from ..types import Carry
from .cut import Cut
from .frozen import Frozen
from .protect import capturing, untouched
from .reach import Reach, part_reaches
from .signature import signature, take_apart
from .split import Split
from .strategies import STRATEGIES, Job, SettledLeakError, attempt
from .structure import Structure
from .suggest import nearest
from .traced import Untraceable
from .twin import Twin
from .verify import expect

__all__ = ["Capture"]

_MANY = 32
_MANY_TEXT = (
    f"the teacher was captured for {_MANY} different signatures of inputs. If one is a number that changes from "
    "call to call, such as a time step, pass it as a tensor: numbers are constants of a capture"
)


class Capture:
    """A teacher, cut for every call signature that it has met.

    Args:
        teacher: the network; nothing in it is changed.
        cut: from `parse_cut`.
        args: positional example inputs; without args and kwargs the teacher is captured at the first call of `at`.
        kwargs: keyword example inputs.
        capture: "fx", "export" or "hooks" to force a strategy; None tries them in this order.
        on_leak: "error", or "reuse" to hand leaking features to the tail after `f`.

    Attributes:
        teacher, cut, on_leak: as given.
        forced: the forced strategy, None where they are tried in order.

    Raises:
        CutError: the cut cannot be made; a subclass says why.
        CaptureError: no strategy reproduced the teacher.
    """

    def __init__(
        self,
        teacher: nn.Module,
        cut: Cut,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        capture: str | None = None,
        on_leak: str = "error",
    ) -> None:
        if capture not in (None, *STRATEGIES):
            raise CaptureError(f'capture={capture!r} is not a strategy; choose "fx", "export", "hooks" or None')
        if on_leak not in ("error", "reuse"):
            raise CaptureError(f'on_leak={on_leak!r} is unknown; choose "error" or "reuse"')
        self.teacher = teacher
        self.cut = cut
        self._modules = list(teacher.modules())
        self.forced = capture
        self.on_leak = on_leak
        self._splits: dict[Hashable, Split] = {}
        self._known: dict[Hashable, tuple[Split, ...]] = {}
        self._compile: dict[str, Any] | None = None
        if args is not None or kwargs is not None:
            self.at(tuple(args or ()), kwargs)

    def at(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *, fine: bool = False) -> Split:
        """Return the split for the signature of these inputs; capture and verify it now if it is new.

        Args:
            args: positional inputs of the teacher.
            kwargs: keyword inputs.
            fine: return a split of its own that looks into every module, where that can be captured, so that its middle
                can be divided anywhere.
        """
        return self._at(*take_apart(args, kwargs or {}), fine)

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """Run the head of the split for these inputs; takes the teacher's inputs."""
        tensors, structure = take_apart(args, kwargs)
        return self._at(tensors, structure).begin(tensors)

    def _at(self, tensors: list[Tensor], structure: Structure, fine: bool = False) -> Split:
        key = (signature(self._modules, tensors, structure), fine)
        split = self._find(key)
        if split is None:
            with capturing():  # another thread may have captured the same while this one waited
                split = self._find(key) or self._add(key, [t.detach().clone() for t in tensors], structure, fine)
        return split

    def _find(self, key: Hashable) -> Split | None:
        known = self._known.get(key, ())
        for split in known:
            if torch.compiler.is_dynamo_compiling() or split.frozen.holds():
                if split is not known[0]:
                    self._known[key] = (split, *(s for s in known if s is not split))
                return split
        return None

    def _add(self, key: Hashable, tensors: list[Tensor], structure: Structure, fine: bool) -> Split:
        known = self._known.get(key, ())
        name = (key, len(known)) if known else key
        try:
            split = self._capture(Twin(self.teacher), tensors, structure, name, fine)
        except (InputError, NeverCalledError):
            # Objects that cannot be copied may lead from the copy back into the teacher: run the teacher itself.
            split = self._capture(Twin(self.teacher, copied=False), tensors, structure, name, fine)
        if self._compile is not None:
            split.compile(**self._compile)
        self._splits[name], self._known[key] = split, (split, *known)
        self._modules = list(self.teacher.modules())
        if len(self._splits) == _MANY:
            warnings.warn(_MANY_TEXT, stacklevel=4)
        if self.cut.facts is None:
            self.cut = dataclasses.replace(self.cut, facts=split.facts)
        return split

    def compile(self, **options: Any) -> None:
        """Compile the programs of all splits, of those to come too, with `torch.compile(**options)`.

        Splits of the strategy "hooks" run the teacher's own code and stay as they are.
        """
        self._compile = options
        for split in self._splits.values():
            split.compile(**options)

    def __getstate__(self) -> dict[str, Any]:
        """Splits hold generated code; a copy captures anew when it is first used."""
        return {**self.__dict__, "_splits": {}, "_known": {}}

    def of(self, carry: Carry) -> Split:
        """Return the split that made this carry.

        Raises:
            InputError: the carry belongs to another model.
        """
        split = self._splits.get(carry.signature)
        if split is None:
            raise InputError("this carry was made by another model; pass what head() of this model returned")
        return split

    def _capture(self, twin: Twin, tensors: list[Tensor], structure: Structure, key: Hashable, fine: bool) -> Split:
        expected = expect(twin.teacher, tensors, structure)
        job = Job(twin, self.cut, tensors, structure, key, expected)
        tried: dict[str, str] = {}
        leaks: dict[str, LeakError] = {}
        wrong: CutError | None = None
        names = (self.forced,) if self.forced else STRATEGIES
        for name in ("fine", *names) if fine and names[0] == "fx" else names:
            try:
                return self._finished(attempt(name, job, "error"), job, tried)
            except LeakError as error:
                # One strategy may see a dependency that is none, so a leak is final only if another one agrees.
                tried[name], leaks[name] = "it found features that go around f", error
                if len(leaks) > 1 or isinstance(error, SettledLeakError):
                    break
            except CutError as error:
                if not tried:
                    raise
                # Later strategies see less than the first: what they miss says nothing about the teacher.
                tried[name], wrong = str(error), error
            except Untraceable as reason:
                tried[name], wrong = str(reason), None
        if not leaks:
            met = "\n".join(f"  {name}: {why}" for name, why in tried.items())
            advice = "See docs/capture.md for what each strategy needs"
            raise wrong or CaptureError(f"the teacher could not be captured faithfully.\n{met}\n{advice}")
        first = next(iter(leaks.values()))
        if self.on_leak == "error":
            raise LeakError(f"{first}{_advice(job)}") from first
        for name in leaks:
            with contextlib.suppress(Untraceable):
                return self._finished(attempt(name, job, "reuse"), job, tried)
        raise first

    def _finished(self, split: Split, job: Job, tried: dict[str, str]) -> Split:
        expected = job.expected
        reach: tuple[tuple[str, Reach], ...] = ()
        if self.cut.facts is None and not expected.random:
            with untouched(job.teacher):
                reach = part_reaches(split, job.tensors, job.structure)
        split.facts = dataclasses.replace(split.facts, passed_over=tuple(tried.items()), reach=reach)
        split.frozen = Frozen(self.teacher, split.leaves, expected.changed)
        split.bind(self.teacher)
        return split


def _advice(job: Job) -> str:
    """The nearest cuts that do not leak, for the end of a message."""
    if len(job.cut.branches) > 1 or len(job.cut.branches[0].enc) > 1 or job.cut.layout:
        return ""
    branch = job.cut.branches[0]
    with contextlib.suppress(CaptureError):
        found = nearest(job.twin, job.tensors, job.structure, str(branch.enc[0]), str(branch.dec))
        cuts = "; ".join(f"enc_layer={s.enc_layer!r}, dec_layer={s.dec_layer!r} (saves {s.saved:.0%})" for s in found)
        return f". Nearest cuts that do not leak: {cuts}" if cuts else ". No cut of this teacher is free of leaks"
    return ""
