"""One step of many videos: their frames of one size, in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.refresh import Look, own_copy
from shortcutv2v.rows import finite, same, select
from shortcutv2v.stream import Stream
from shortcutv2v.summary import psnr
from shortcutv2v.types import Carry, fits

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Row", "Step", "batch"]

_Features = tuple[Tensor, ...]


@dataclass
class Row:
    """One video's frame in a step."""

    stream: Stream
    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    carry: Carry = field(default_factory=lambda: Carry((), ()))
    conditions: list[Tensor] = field(default_factory=list)
    reason: str | None = None
    look: Look | None = None
    seconds: float = 0.0
    teacher_seconds: float = 0.0


class Step:
    """One batch of frames of one size."""

    def __init__(self, model: ShortcutV2V, rows: list[Row], forced: str | None = None) -> None:
        self.model, self.rows, self.forced = model, rows, forced
        self._clock = time.perf_counter()

    def __call__(self) -> list[Any]:
        """Return the rows' outputs."""
        n = len(self.rows)
        carry = self._look()
        known = [i for i, row in enumerate(self.rows) if row.look is not None]
        rest = [i for i, row in enumerate(self.rows) if row.reason is None]
        due = [i for i, row in enumerate(self.rows) if row.reason is not None]
        shown = [i for i in known if i in rest or self.rows[i].stream.show_shortcut]
        predicted = self._predicted(carry, known, shown)
        self._spend(known, block=True)
        part, f = (carry, ()) if not due else self._middle(carry, due)
        self._spend(due)
        of_row = {i: select(f, len(due), slice(place, place + 1)) for place, i in enumerate(due)}
        output = self.model.tail(carry, _stack([{**of_row, **predicted}[i] for i in range(n)]))
        found = [select(output, n, slice(i, i + 1)) for i in range(n)]
        wrong = [i for i in rest if not finite((predicted[i], found[i]))]
        self._spend(range(n))
        self._refer(part, f, due, found)
        again = Step(self.model, [self.rows[i] for i in wrong], "not finite")() if wrong else []
        for i, made in zip(wrong, again, strict=True):
            found[i] = made
        for i in set(range(n)) - set(wrong):
            self._count(self.rows[i])
        return found

    def _look(self) -> Carry:
        """Run the head, and let the policies decide which rows are due."""
        n, model = len(self.rows), self.model
        args, kwargs = batch([row.inputs for row in self.rows])
        carry = model.head(*args, **kwargs)
        conditions, self._frozen = model.conditions(carry), model.capture.of(carry).frozen
        for i, row in enumerate(self.rows):
            row.look = None
            row.carry, row.conditions = select((carry, conditions), n, slice(i, i + 1))
            row.reason = self.forced or self._stale(row)
        known = [i for i, row in enumerate(self.rows) if row.reason is None]
        self._spend(range(n))
        analyse = cache(lambda: model.analyse(self._references(known), _rows(carry, n, known)))
        for place, i in enumerate(known):
            row, stream = self.rows[i], self.rows[i].stream
            if len(stream._policies) != 1:
                stream._policies = [own_copy(stream.refresh)]
            predict = partial(_one_of, analyse, len(known), place)
            row.look = Look(stream.distance + 1, row.carry, stream._must_refer, predict)
            row.look.times = stream.record.times
            row.reason = stream._reason(stream._policies[0], row.look)
        self._analyse = analyse
        self._spend(known, block=True)
        return carry

    def _stale(self, row: Row) -> str | None:
        """Return why the reference does not serve, None if it does."""
        reference = row.stream.reference
        if reference is None or not fits(reference, row.carry):
            return "first" if reference is None else "size"
        if not same(row.stream._conditions, row.conditions):
            return "condition"
        return None if row.stream._teacher.same_as(self._frozen) else "teacher"

    def _references(self, rows: Sequence[int]) -> Any:
        return _stack([self.rows[i].stream._must_refer() for i in rows])

    def _predicted(self, carry: Carry, known: list[int], shown: list[int]) -> dict[int, _Features]:
        """`f` of the rows to be shown as the block predicts it, from the policies' looks if one was taken."""
        if any(self.rows[i].look.looked for i in known):  # type: ignore[union-attr]
            made = self.model.compose(self._references(known), _rows(carry, len(self.rows), known), self._analyse())
            return {i: select(made, len(known), slice(p, p + 1)) for p, i in enumerate(known) if i in shown}
        if not shown:
            return {}
        made = self.model.predict(self._references(shown), _rows(carry, len(self.rows), shown))
        return {i: select(made, len(shown), slice(place, place + 1)) for place, i in enumerate(shown)}

    def _middle(self, carry: Carry, due: list[int]) -> tuple[Carry, _Features]:
        """Run the middle on the rows that are due."""
        if len(due) < len(self.rows):
            args, kwargs = batch([self.rows[i].inputs for i in due])
            carry = self.model.head(*args, **kwargs)
        return carry, self.model.middle(carry)

    def _refer(self, part: Carry, f: _Features, due: list[int], found: list[Any]) -> None:
        """Keep what the due rows leave as references, and tell the policies what their predictions were worth."""
        if not due:
            return
        n = len(due)
        usable = [finite(select((part.a, f), n, slice(place, place + 1))) for place in range(n)]
        references = self.model.make_reference(part, f) if any(usable) else None
        self._audit(part, f, due, found)
        for place, i in enumerate(due):
            row, stream = self.rows[i], self.rows[i].stream
            stream._latest = stream._reference = None
            if usable[place]:
                own = select(references, n, slice(place, place + 1))
                stream._reference = pytree.tree_map_only(Tensor, torch.clone, own)  # the batch may go
            else:
                row.reason = "not finite"
            stream._conditions = [condition.clone() for condition in row.conditions]
            stream._teacher = self._frozen

    def _audit(self, part: Carry, f: _Features, due: list[int], found: list[Any]) -> None:
        """Tell the policies that have looked at due rows what the predictions would have been worth."""
        rows = [self.rows[i] for i in due]
        asking = [p for p, row in enumerate(rows) if row.look and row.look.looked and row.stream.refresh.audits]
        if not asking:
            return
        n = len(due)
        own = [select(f, n, slice(place, place + 1)) for place in range(n)]
        for place in asking:
            look: Any = rows[place].look
            own[place] = self.model.compose(rows[place].stream._must_refer(), look.carry, look.predictions)
        made = self.model.tail(part, _stack(own))
        shown = any(row.stream.show_shortcut for row in rows)
        full = self.model.tail(part, f) if shown else None
        for place in asking:
            stream, one = rows[place].stream, slice(place, place + 1)
            target = select(full, n, one) if shown else found[due[place]]
            value = float(psnr(stream.picture(select(made, n, one)), stream.picture(target))[0])
            stream._policies[0].audit(rows[place].look, value)  # type: ignore[arg-type]
            stream.record.audits.append(value)

    def _spend(self, rows: Iterable[int], block: bool = False) -> None:
        """Share the time since the last call among some rows; the teacher alone would not run the block."""
        now, rows = time.perf_counter(), list(rows)
        for i in rows:
            self.rows[i].seconds += (now - self._clock) / len(rows)
            self.rows[i].teacher_seconds += 0.0 if block else (now - self._clock) / len(rows)
        self._clock = now

    def _count(self, row: Row) -> None:
        stream, reason = row.stream, row.reason
        stream.record.frame([reason], row.seconds, row.teacher_seconds if reason is not None else None)
        stream.distances = (0 if reason else stream.distance + 1,)


def batch(inputs: Sequence[Any]) -> Any:
    """Return the inputs of several videos as those of one batch."""

    def together(*leaves: Any) -> Any:
        first = leaves[0]
        return torch.cat(leaves) if isinstance(first, Tensor) and first.dim() and first.shape[0] == 1 else first

    return pytree.tree_map(together, *inputs)


def _stack(trees: Sequence[Any]) -> Any:
    """Return nests of tensors with one row each as one nest with a row for each."""
    return trees[0] if len(trees) == 1 else batch(trees)


def _rows(carry: Carry, n: int, rows: Sequence[int]) -> Carry:
    """Return some rows of what the head handed on; only its `a` may be used."""
    return carry if len(rows) == n else select(carry, n, torch.tensor(rows, device=carry.a[0].device))


def _one_of(make: Callable[[], Any], n: int, place: int) -> Any:
    return select(make(), n, slice(place, place + 1))
