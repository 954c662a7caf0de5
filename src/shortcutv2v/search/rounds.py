"""The rounds of a search: candidates are trained on the film, and the worse half leaves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from shortcutv2v.bar import say
from shortcutv2v.distill.cache.features import first_features
from shortcutv2v.distill.cache.store import StoredClip
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.pace import LIMIT_GB
from shortcutv2v.refresh import Every
from shortcutv2v.search import decide
from shortcutv2v.search.contest import BLOCK, Entry, Search
from shortcutv2v.search.decide import Goal, in_words, mean_at
from shortcutv2v.search.field import Candidate
from shortcutv2v.search.film import LEARN

__all__ = ["contest", "trained"]

_SHORTEST, _FRAMES = 20.0, 60
"""Seconds of training, and shortcut frames that take as long, after which a candidate can be judged."""
_FEATURES = 0.25
"""Share of a search that may be spent on computing features."""


def contest(search: Search, field: Sequence[Entry], seconds: float) -> list[Entry]:
    """Train in rounds; return the winner first, then those that left, the last to leave first.

    Args:
        search: gives film, goal and record.
        field: candidates, the best hope first; where time is short, only the first take part.
        seconds: for all of it, features and judging included.
    """
    field, parts, amount = _lessons(search, field, seconds)
    shortest = max(_SHORTEST, _FRAMES * max(entry.times.shortcut for entry in field))
    size = decide.field_size(amount, len(field), shortest) if search.asked.steps is None else len(field)
    alive, left = list(field[:size]), list[Entry]()
    for number, (kept, until) in enumerate(decide.halving(size, amount), start=1):
        why = f"left after round {number - 1}, {alive[0]} led"
        alive, left = alive[:kept], [*(replace(entry, left=why) for entry in alive[kept:]), *left]
        after = [trained(search, number, entry, until, parts) for entry in alive]
        goal = decide.attainable([entry.curves for entry in after], search.goal)
        alive = sorted(after, key=lambda entry: search.key(search.worth(entry, goal)))
        _tell(search, number, alive, goal, until)
    shutil.rmtree(search.folder / "features", ignore_errors=True)
    return [*alive, *left]


def _tell(search: Search, number: int, alive: Sequence[Entry], goal: Goal, until: float) -> None:
    """Say what each candidate of a round is worth, and which leads."""
    for place, entry in enumerate(alive, start=1):
        worth, last = search.worth(entry, goal), max(map(len, entry.curves))
        say(
            f"round {number}, {place}. {entry}: {mean_at(entry.curves, 1):.1f} dB one frame after a refresh, "
            f"{mean_at(entry.curves, last):.1f} dB {last} after it; {worth.share:.0%} refreshes, "
            f"the film in {in_words(worth.seconds)}"
        )
    judged = "" if goal == search.goal else f"; judged at {goal.quality:.1f} dB, which the best holds so far"
    unit = "s" if search.asked.steps is None else "steps"
    say(f"round {number}: trained for {until:.4g} {unit} each{judged}; {alive[0]} leads")


def _lessons(search: Search, field: Sequence[Entry], seconds: float) -> tuple[list[Entry], list[FrameSource], float]:
    """Return the candidates and the parts that time and disk allow features for, and the amount of training."""
    learn, places = search.learn, list(dict.fromkeys(entry.candidate.place for entry in field))
    found = search.record.once("features", lambda: _sizes(search, field[0].candidate))
    room = min(1e9 * LIMIT_GB, found["free"] / 2) / max(1, LEARN * found["bytes"])
    afford = int(min(room, _FEATURES * seconds / (LEARN * search.teacher)))
    cuts, count = decide.lessons(afford, len(learn), len(places))
    field = [entry for entry in field if entry.candidate.place in places[:cuts]]
    parts = [learn[round(n * (len(learn) - 1) / max(1, count - 1))] for n in range(count)]
    judging = 2 * sum(map(len, search.held_out.parts)) * sum(entry.times.shortcut for entry in field)
    amount = max(seconds / 2, seconds - cuts * count * LEARN * search.teacher - judging)
    return field, list(parts), search.asked.steps or amount


def _sizes(search: Search, candidate: Candidate) -> dict[str, int]:
    """Return the bytes of a frame's features, and those that are free on the disk."""
    example = first_features(search.base(candidate), search.adapter, search.frame[None])
    size = 0 if example is None else StoredClip(Path(), example, (0, 0, 0), 1).nbytes
    return {"bytes": size, "free": shutil.disk_usage(search.record.path.parent).free}


def trained(search: Search, number: int, entry: Entry, until: float, parts: Sequence[FrameSource]) -> Entry:
    """Train a candidate in a round until it has had so many seconds, or steps, in all; return it as it is then."""
    train = partial(_train, search, entry.candidate, until, parts)
    return replace(entry, trained=until, **search.record.once(f"round {number}: {entry}", train))


def _train(search: Search, candidate: Candidate, until: float, parts: Sequence[FrameSource]) -> dict[str, Any]:
    """Train on from the candidate's checkpoint, and judge it on the held-out frames."""
    from shortcutv2v.distill import fit

    model, folder = candidate.on(search.base(candidate)), search.place(candidate)
    model.refresh = Every(model.horizon)  # pairs as far apart as a stream with a goal makes them
    last, by_time = folder / "last.ckpt", search.asked.steps is None
    fit(
        model,
        list(parts),
        minutes=until / 60 if by_time else None,
        steps=None if by_time else max(1, round(until)),
        adapter=search.adapter,
        validation=None,
        folder=folder,
        resume=last if last.exists() else None,
        cache=search.folder / "features",
        progress=False,
    )
    model.save(folder / BLOCK)
    return search.held_out.judge(model)
