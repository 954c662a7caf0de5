"""One frame of some videos in one batch: looks, passes, audits, references. Streams of every kind run frames by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.graph import keep
from shortcutv2v.refresh import Look, reason_of
from shortcutv2v.rows import finite, joined, rows_of, select
from shortcutv2v.summary import psnr
from shortcutv2v.types import Carry, Reference

if TYPE_CHECKING:
    from shortcutv2v.stream import Stream

__all__ = ["Row", "Step"]

T = TypeVar("T")
_Some = tuple[list[int], Any]
"""The numbers of some rows, and a nest of tensors with these rows."""


@dataclass
class Row:
    """One row of a step's batch.

    Attributes:
        stream: its video.
        look: the look that its policy got; None if no reference serves.
        reason: why it refreshes; empty for a shortcut frame.
        seconds: its share of the time.
        teacher_seconds: the part of it that the teacher alone would have taken.
    """

    stream: Stream
    look: Look | None = None
    reason: str = ""
    seconds: float = 0.0
    teacher_seconds: float = 0.0

    @property
    def predicted(self) -> bool:
        """True if the block's prediction is shown."""
        return self.look is not None and (not self.reason or self.stream.shows_refused)

    def looked(self, audit: bool) -> bool:
        """Return whether the block has run for the look, or shall run for an audit."""
        return self.look is not None and (self.look.looked or (audit and self.stream.refresh.audits))


class Step:
    """One frame of some videos in one batch.

    The head runs at once. `look()` asks the policies which rows are due, and `attempt()` runs the passes: the middle on
    the rows that are due, the block on the others, the tail on all. A call does both, repeats in full the streams whose
    prediction is not finite, and counts the frame.

    Args:
        streams: one stream with any number of rows, or several with one row each, of one model.
        inputs: the teacher's inputs of each stream.
        rows: rows of a single stream that decide for themselves; default: every row of the batch.

    Attributes:
        carry: what the head made of the frame.
        rows: the rows.
        outputs: the output of each stream.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        inputs: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        rows: int | None = None,
    ) -> None:
        self._clock = time.perf_counter()
        self.model, self._inputs, self._alone = streams[0].model, inputs, len(streams) == 1
        args, kwargs = joined(inputs)
        self.carry = streams[0].head(*args, **kwargs)
        count = (rows or rows_of(self.carry)) if self._alone else len(streams)
        self.rows = [Row(streams[0 if self._alone else number]) for number in range(count)]
        self._all = list(range(count))
        self._groups = [self._all] if self._alone else [[number] for number in self._all]
        self.outputs: list[Any] = [None] * len(streams)
        self._repeated, self._both = list[int](), False
        self.spend(self._all)

    def __call__(self) -> list[Any]:
        """Return the output of each stream."""
        self.look()
        if not self.attempt():
            self.attempt(self._repeated)
        self.count()
        return self.outputs

    def look(self, ask: bool = True, also: Callable[[], Reference | None] | None = None) -> None:
        """Find the rows whose reference serves, make their looks, and ask their policies unless told not to.

        Predictions are made from another reference, too, if `also` gives one.
        """
        rows, n, model, a = self.rows, len(self.rows), self.model, Carry(self.carry.a, (), self.carry.signature)
        for group in self._groups:
            reason = rows[group[0]].stream.stale(select(self.carry, n, group))
            for number in group:
                rows[number].look, rows[number].reason = None, reason
        known = [number for number in self._all if not rows[number].reason]
        self._both = also is not None and bool(known)
        refer = self._references(known)  # none of this leads back to the step: no cycle keeps its memory
        self._analyse = cache(lambda: model.analyse(refer(), select(a, n, known), also() if also else None))
        self.spend(self._all)
        for place, number in enumerate(known):
            row, own = rows[number], number if self._alone else 0
            predict = partial(_row, self._analyse, len(known), place)
            carry, distance = select(self.carry, n, [number]), row.stream.distances[own] + 1
            row.look = Look(distance, carry, self._references([number]), predict, own)
            row.look.times, row.look.both = row.stream.record.times, self._both
            if ask:
                row.reason = reason_of(row.stream.own_policies(n if self._alone else 1)[own], row.look)
        self.spend(known, block=True)

    def attempt(self, chosen: Sequence[int] = (), audit: bool = False) -> bool:
        """Run the passes that the reasons ask for, and keep what full passes leave.

        Args:
            chosen: numbers of the rows to run; default: all.
            audit: audit predictions at which no policy has looked, too.

        Returns:
            False if a prediction or its output is not finite: its stream is as it was, and needs a full pass.
        """
        passes = self._run(list(chosen) or self._all, audit)
        groups = [group for group in self._groups if group[0] in passes.rows]
        good = finite(*(passes.to_check(group) for group in groups))
        self.spend(passes.rows)
        kept, lost, repeated = list[int](), list[int](), list[int]()
        for group, fine in zip(groups, good, strict=True):
            self.outputs[group[0]] = _of((passes.rows, passes.output), group)
            if fine:
                kept += [number for number in group if number in passes.due]
                continue
            (lost if all(number in passes.due for number in group) else repeated).extend(group)
        for number in (*lost, *repeated):
            self.rows[number].reason = "not finite"
        self._audit(passes, kept, audit)
        self._keep(passes, kept, lost)
        for number in repeated:
            self.rows[number].look = None
        self._repeated += repeated
        self.spend(passes.rows, block=True)
        return not repeated

    def count(self) -> None:
        """Note the frame in the streams' records, and the rows' distances."""
        for group in self._groups:
            rows = [self.rows[number] for number in group]
            measured = all(row.reason for row in rows) and not set(group) & set(self._repeated)
            teacher = sum(row.teacher_seconds for row in rows) if measured else None
            rows[0].stream.record.frame([row.reason for row in rows], sum(row.seconds for row in rows), teacher)
            rows[0].stream.distances = tuple(row.look.distance if row.look and not row.reason else 0 for row in rows)

    def resume(self, ago: float = 0.0) -> None:
        """Go on with a step that has waited: let its clock run from now, or from so many seconds ago."""
        self._clock = time.perf_counter() - ago

    def spend(self, numbers: Sequence[int], block: bool = False) -> None:
        """Share the time since the last call among some rows; the teacher alone would not run the block."""
        now = time.perf_counter()
        for number in numbers:
            self.rows[number].seconds += (now - self._clock) / len(numbers)
            self.rows[number].teacher_seconds += 0.0 if block else (now - self._clock) / len(numbers)
        self._clock = now

    def _run(self, chosen: list[int], audit: bool) -> _Passes:
        """Run the block, the middle and the tail."""
        due = [number for number in chosen if self.rows[number].reason]
        block, in_part = self._predicted(chosen, audit), 0 < len(due) < len(self.rows)
        self.spend(block[0], block=True)
        if in_part and self.model.replays:  # the next run of the head overwrites what these have left
            self.carry, block = keep((self.carry, block))
        part, f = self._middle(due)
        self.spend(due)
        if in_part and any(x.shape[0] != len(due) for x in (*part.a, *f)):  # a teacher that mixes its rows
            for row in self.rows:
                row.reason = row.reason or "policy"
            return self._run(self._all, audit)
        shown = [number for number in block[0] if self.rows[number].predicted]
        carry = self.carry if len(chosen) == len(self.rows) else part
        output = self.model.tail(carry, _merged(chosen, (shown, _of(block, shown)), (due, f)))
        return _Passes(chosen, due, part, f, block, output)

    def _predicted(self, chosen: list[int], audit: bool) -> _Some:
        """`f` as the block predicts it, of the rows that are shown; of all rows if the block has run for a look."""
        rows, n, a = self.rows, len(self.rows), Carry(self.carry.a, (), self.carry.signature)
        known = [number for number in chosen if rows[number].look]
        shown = [number for number in known if rows[number].predicted]
        if (self._both and shown) or any(rows[number].looked(audit) for number in known):
            return known, self.model.compose(self._references(known)(), select(a, n, known), self._analyse())
        return shown, self.model.predict(self._references(shown)(), select(a, n, shown)) if shown else ()

    def _middle(self, due: list[int]) -> tuple[Carry, tuple[Tensor, ...]]:
        """Run the middle on the rows that are due, and the head again unless these are all."""
        carry = self.carry
        if 0 < len(due) < len(self.rows):
            inputs = self._inputs
            args, kwargs = select(inputs[0], len(self.rows), due) if self._alone else joined([inputs[i] for i in due])
            carry = self.rows[0].stream.head(*args, **kwargs)
            self.spend(due, block=True)
        return carry, self.model.middle(carry) if due else ()

    def _references(self, numbers: list[int]) -> Callable[[], Any]:
        """Return a function that gives the reference of some rows."""
        n, streams = len(self.rows), [self.rows[number].stream for number in numbers]
        if self._alone:
            return lambda: select(streams[0].reference, n, numbers)
        return lambda: joined([stream.reference for stream in streams])

    def _audit(self, passes: _Passes, kept: list[int], audit: bool) -> None:
        """Tell the policies what the predictions of refreshed rows would have been worth, in PSNR to the teacher."""
        rows = self.rows
        asking = [number for number in kept if rows[number].looked(audit) and rows[number].stream.refresh.audits]
        if not asking:
            return
        due, target = passes.due, (passes.rows, passes.output)
        made = due, self.model.tail(passes.part, _merged(due, (asking, _of(passes.block, asking)), (due, passes.f)))
        if any(rows[number].stream.shows_refused for number in asking):
            target = due, self.model.tail(passes.part, passes.f)
        for number in asking:
            stream, look = rows[number].stream, rows[number].look
            found = float(psnr(*(stream.picture(_of(some, [number])) for some in (made, target)))[0])
            assert look is not None  # noqa: S101  (asked for above)
            stream.policies[look.row].audit(look, found)
            stream.record.audits.append(found)

    def _keep(self, passes: _Passes, kept: list[int], lost: list[int]) -> None:
        """Make the features of full passes the references; features that are not finite leave none."""
        due, part, f = passes.due, passes.part, passes.f
        if kept and not self._alone:
            references = self.model.make_reference(part, f)
            for number in kept:
                own = pytree.tree_map_only(Tensor, torch.clone, _of((due, references), [number]))  # the batch may go
                self.rows[number].stream.keep(_of((due, part), [number]), own)
        elif kept and len(due) < len(self.rows):
            self.rows[0].stream.exchange(due, self.model.make_reference(part, f))
        elif kept:
            self.rows[0].stream.keep(part, f)
        for number in lost:
            self.rows[number].stream.reference = None


@dataclass
class _Passes:
    """The results of the passes of an attempt.

    Attributes:
        rows: numbers of the rows that ran.
        due: those that the middle ran on.
        part: what the head made of the due rows.
        f: the due rows' `f`.
        block: the rows that the block ran on, and their `f` as it predicts it.
        output: the output of all these rows.
    """

    rows: list[int]
    due: list[int]
    part: Carry
    f: tuple[Tensor, ...]
    block: _Some
    output: Any

    def to_check(self, group: list[int]) -> Any:
        """Return what must be finite: the features of refreshed rows, the prediction and the output of the others."""
        due, rest = ([number for number in group if (number in self.due) is refreshed] for refreshed in (True, False))
        full = _of((self.due, (self.part.a, self.f)), due)
        return full, _of(self.block, rest), _of((self.rows, self.output), group) if rest else ()


def _of(some: _Some, numbers: list[int]) -> Any:
    """Return the rows with these numbers; an empty tuple for none."""
    return select(some[1], len(some[0]), [some[0].index(number) for number in numbers]) if numbers else ()


def _merged(numbers: list[int], *sources: _Some) -> Any:
    """Return features of some rows, each from the first source that has it."""
    for have, features in sources:
        if have == numbers:
            return features
        if have:
            break
    return joined([_of(next(some for some in sources if number in some[0]), [number]) for number in numbers])


def _row(get: Callable[[], T], rows: int, place: int) -> T:
    return select(get(), rows, [place])
