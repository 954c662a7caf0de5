"""Work items of a folder of films, and a worker that takes one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from shortcutv2v import video
from shortcutv2v.batch.lease import take
from shortcutv2v.batch.plan import Film, Plan, file_print, make_plan
from shortcutv2v.errors import InputError, ShortcutError

__all__ = ["Item", "Job", "Worker"]

STATE = ".shortcutv2v"
_POLL = 0.5
"""Seconds until a worker looks again for items that others hold."""


@dataclass(frozen=True)
class Item:
    """A piece of work on a film.

    Attributes:
        film: the film.
        kind: "plan", "segment" or "join".
        number: of a segment.
    """

    film: Film
    kind: str
    number: int = 0


@dataclass
class Job:
    """The work on the films of a folder.

    Args:
        folder: where the films go; its hidden folder `.shortcutv2v` holds plans, segments and leases.
        player: makes a fresh translator for one segment; called when the first segment comes.
        interval: frames from one refresh to the next, at which scenes are divided; None for one segment per scene, as
            recurrent teachers need it.
        settings: everything that changes the result, as JSON. Processes with other settings are refused.
        reading: `size` and `tone_map`, see `video.open`.
        crf: see `video.create`.
        audio: keep the sound.

    Raises:
        InputError: the folder was begun with other settings.
    """

    folder: Path
    player: Callable[[], video.Ahead]
    interval: int | None
    settings: dict[str, Any]
    reading: dict[str, Any] = field(default_factory=dict)
    crf: float = 16
    audio: bool = True
    _opened: tuple[str, video.Pieces] | None = field(default=None, init=False, repr=False)

    def begin(self) -> None:
        """Make the folder, or check that it was begun with the same settings."""
        path = self.folder / STATE / "settings.json"
        text = json.dumps(self.settings, indent=1, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            time.sleep(0 if path.stat().st_size else 1)  # another process is writing it
            before = json.loads(path.read_text() or "{}")
            new = json.loads(text)
            other = [name for name in {**before, **new} if before.get(name) != new.get(name)]
            if other:
                name = sorted(other)[0]
                raise InputError(
                    f"{self.folder}: was begun with {name} {before.get(name)!r}, now it is {new.get(name)!r}; choose "
                    f"another folder, or remove {path.parent}"
                ) from None

    def place(self, film: Film) -> Path:
        """Return the folder of a film's plan and segments."""
        digest = hashlib.sha256(film.name.encode()).hexdigest()[:8]
        return self.folder / STATE / f"{film.target.stem[:40]}-{digest}"

    def plan(self, film: Film) -> Plan | None:
        """Return the plan of a film; None if it has none, or if the source has changed since."""
        found = Plan.read(self.place(film) / "plan.json")
        return found if found is not None and found.fingerprint == file_print(film.source) else None

    def piece(self, item: Item) -> Path:
        """Return the file of a segment."""
        return self.place(item.film) / f"{item.number:05d}.mp4"

    def items(self, film: Film) -> Iterator[Item]:
        """Yield what is to be done on a film now; nothing if it is done."""
        plan = self.plan(film)
        if plan is None:
            yield Item(film, "plan")
        elif plan.output is None or not film.target.exists() or file_print(film.target) != plan.output:
            every = [Item(film, "segment", number) for number in range(len(plan.segments))]
            yield from [item for item in every if not self.piece(item).exists()] or [Item(film, "join")]

    def do(self, item: Item) -> bool:
        """Do an item, unless a living process does, or it has been done meanwhile; return whether this process did it.

        Raises:
            ShortcutError: the film cannot be read, or its target not be written.
        """
        place = self.place(item.film)
        place.mkdir(parents=True, exist_ok=True)
        lease = take(place / f"{item.kind}{item.number:05d}.lease")
        if lease is None:
            return False
        with lease:
            if item not in self.items(item.film):
                return False
            self._note(item, "begun")
            {"plan": self._plan, "segment": self._segment, "join": self._join}[item.kind](item)
            self._note(item, "done")
        return True

    def _note(self, item: Item, what: str) -> None:
        """Write a line into the log, which is for people: nothing reads it."""
        with (self.folder / STATE / "log.txt").open("a") as log:
            log.write(f"{time.strftime('%F %T')} {os.getpid()} {item.kind} {item.film.name} {item.number} {what}\n")

    def _plan(self, item: Item) -> None:
        place = self.place(item.film)
        for old in place.glob("*.mp4"):  # the source has changed
            old.unlink()
        make_plan(item.film, self.interval).write(place / "plan.json")

    def _segment(self, item: Item) -> None:
        plan, piece = self._must_plan(item.film), self.piece(item)
        start, stop = plan.segments[item.number]
        times = [tick * Fraction(plan.base) for tick in plan.ticks[start:stop]]
        part = piece.with_suffix(f".{uuid.uuid4().hex}.mp4")
        try:
            self._open(item.film, plan).write(part, self.player(), start, times, self.crf)
            os.replace(part, piece)
        finally:
            part.unlink(missing_ok=True)

    def _open(self, film: Film, plan: Plan) -> video.Pieces:
        """Return the film, which stays open until another one is asked for."""
        if self._opened is None or self._opened[0] != plan.fingerprint:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = plan.fingerprint, video.Pieces(film.source, **self.reading)
        return self._opened[1]

    def _join(self, item: Item) -> None:
        film, plan = item.film, self._must_plan(item.film)
        pieces = [self.piece(Item(film, "segment", number)) for number in range(len(plan.segments))]
        for piece, (start, stop) in zip(pieces, plan.segments, strict=True):
            try:
                video.check_piece(piece, stop - start)
            except ShortcutError:
                piece.unlink()
                return  # it is an item again
        film.target.parent.mkdir(parents=True, exist_ok=True)
        times = {"begin": Fraction(plan.begin), "last": Fraction(plan.last)}
        base = Fraction(plan.base)
        video.join(pieces, film.target, film.source, plan.ticks, base, **times, audio=self.audio, notes=plan.notes)
        plan.output = file_print(film.target)
        plan.write(self.place(film) / "plan.json")
        for left in self.place(film).glob("*.mp4*"):
            left.unlink(missing_ok=True)

    def _must_plan(self, film: Film) -> Plan:
        plan = self.plan(film)
        assert plan is not None  # noqa: S101 - `do` has looked
        return plan


class Worker:
    """Takes items until every film is done, or has failed.

    Args:
        job: what to do.
        shard: (i, n): plan and join whatever is due, but translate only every n-th segment, from the i-th on, counted
            from 1. Together, n such workers do everything, also one after the other.
        told: called with a line when something is done.

    Attributes:
        failed: films that failed, and why.
    """

    def __init__(
        self, job: Job, shard: tuple[int, int] = (1, 1), told: Callable[[str], None] = lambda line: None
    ) -> None:
        self.job, self.shard, self.told = job, shard, told
        self.failed: dict[Film, str] = {}

    def run(self, films: Sequence[Film]) -> None:
        """Work until nothing is left to do; wait for items that other processes hold."""
        left = list(films)
        while left:
            did = [self._advance(film) for film in left]
            left = [film for film, state in zip(left, did, strict=True) if state is not None]
            if left and not any(did):
                time.sleep(_POLL)

    def _advance(self, film: Film) -> bool | None:
        """Do the items of a film that nobody else does; return whether there was one, None if nothing is left."""
        done = 0
        try:
            while (item := self._next(film)) is not None:
                if not isinstance(item, Item):
                    return done > 0
                done += 1
                self._tell(item)
        except (ShortcutError, OSError) as error:
            self.failed[film] = str(error)
        return None

    def _next(self, film: Film) -> Item | bool | None:
        """Do one item and return it; False if all are held by others, None if none is left."""
        index, count = self.shard
        mine = [item for item in self.job.items(film) if item.kind != "segment" or item.number % count == index - 1]
        return next((item for item in mine if self.job.do(item)), False if mine else None)

    def _tell(self, item: Item) -> None:
        plan, film = self.job.plan(item.film), item.film
        if plan is None:
            return
        if item.kind == "segment":
            self.told(f"{film.name}: segment {item.number + 1} of {len(plan.segments)}")
        elif item.kind == "join" and plan.output is not None:
            self.told(f"{film.target}: {len(plan.ticks)} frames")
