"""The choice: what is ready without training, whether a search pays, what won, and why the others did not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from shortcutv2v import checkpoint
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.blocks.reuse import ReuseBlock
from shortcutv2v.distill.cache.features import first_features
from shortcutv2v.distill.cache.store import StoredClip
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.pace import LIMIT_GB
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.refresh import Every
from shortcutv2v.search import decide
from shortcutv2v.search.asked import Asked, Record, identity
from shortcutv2v.search.contest import BLOCK, GIVEN, Entry, Search
from shortcutv2v.search.decide import Goal, Worth, in_words, mean_at
from shortcutv2v.search.field import Candidate
from shortcutv2v.search.film import LEARN, samples_of
from shortcutv2v.search.table import rows_of
from shortcutv2v.translate import Translator

__all__ = ["chosen_model", "contest", "repeated", "searched", "trained", "tried"]

_SHORTEST, _FRAMES = 20.0, 60
"""Seconds of training, and shortcut frames that take as long, after which a candidate can be judged."""
_FEATURES = 0.25
"""Share of a search that may be spent on computing features."""
_GAIN = 1.05
"""Times as fast as the teacher that a choice must be, at least."""


def searched(adapter: Adapter, clips: Sequence[FrameSource], asked: Asked, record: Record, *, memory: bool) -> None:
    """Search; put the choice, all candidates and what they are worth into the record, and save the chosen block.

    Args:
        adapter: of the teacher.
        clips: to search on.
        asked: goal and limits.
        record: of the search.
        memory: measure the memory of every candidate.
    """
    goal = asked.goal(adapter)
    if goal is None:
        choice, found = _teacher("lossless was asked for, which is the teacher itself"), dict[str, Any]()
    else:
        search = Search(adapter, clips, goal, asked, record)
        entries = _compete(search)
        choice, candidates = _choice(search, entries)
        found = {
            "asked": str(asked),
            "candidates": candidates,
            "rows": [asdict(row) for row in rows_of(search, entries, memory)],
        }
    record.put(choice=choice, **found)
    say(f"choice: {choice['why']}")


def chosen_model(data: Mapping[str, Any], folder: Path, adapter: Adapter) -> ShortcutV2V | None:
    """Return the model that a search in a folder has chosen; None if the teacher does every frame."""
    return None if data["choice"]["kind"] == "teacher" else checkpoint.load(folder / BLOCK, adapter.teacher)


def repeated(path: Path, adapter: Adapter) -> dict[str, Any]:
    """Return the record of a search whose choice is to be repeated.

    Raises:
        InputError: the plan is unfinished, or of another adapter or network.
    """
    data, own = Record.read(path), identity(adapter)
    choice, saved = data.get("choice"), data["setting"]
    if choice is None:
        raise InputError(f"--plan {path}: its search has not ended: run the same `auto` again, without --plan")
    try:
        Record(path, own)
    except InputError:
        raise InputError(
            f"--plan {path} is of {saved.get('adapter')} and a {saved['teacher']['class']}; this is {own['adapter']} "
            f"and a {type(adapter.teacher).__name__}, of other settings, layers or weights: give the adapter and the "
            "--set of that search, or search anew"
        ) from None
    say(f"plan {path}: {choice['why']}")
    return data


def _compete(search: Search) -> list[Entry]:
    """Measure what is ready, and train blocks if that pays; return all of it, with equal candidates in any order."""
    ready, blocks = search.entries()
    field = search.promising(ready, blocks)
    seconds = search.price(ready, field) if field and search.learn else 0.0
    return [*(contest(search, field, seconds) if seconds else []), *ready]


def _choice(search: Search, entries: Sequence[Entry]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Choose the best candidate, and save its block; return the choice and the verdict on every candidate."""
    worth = {entry: search.worth(entry) for entry in entries}
    order = sorted(entries, key=lambda entry: search.key(worth[entry]))
    limit = max((entry.limit for entry in entries), default=0.0)
    if limit < _GAIN:
        reason = f"no cut makes a frame more than {limit:.2f}x as fast" if entries else "no cut leaves work out"
        choice = _teacher(f"nothing to gain, {reason}: the teacher does every frame")
        return choice, _verdicts(search, worth, None)
    finalists = order[:1]
    if any(entry.trained for entry in entries):
        kinds = (next((one for one in order if (one.trained > 0) == trained), None) for trained in (True, False))
        finalists = [entry for entry in kinds if entry is not None]
        worth |= {entry: tried(search, entry) for entry in finalists}
    best = min(finalists, key=lambda entry: search.key(worth[entry]))
    if worth[best].seconds > search.alone / _GAIN:
        first = max(mean_at(entry.curves, 1) for entry in entries)
        choice = _teacher(
            f"nothing to gain, none of {len(entries)} candidates makes {search.asked} faster than the teacher: a frame "
            f"can be {limit:.2f}x as fast, and has {first:.1f} dB after a refresh, at best; the teacher does all"
        )
        return choice, _verdicts(search, worth, None)
    saved = search.record.once("saved", lambda: _saved(search, best, worth[best]))
    return saved, _verdicts(search, worth, best)


def _verdicts(search: Search, worth: Mapping[Entry, Worth], best: Entry | None) -> list[dict[str, Any]]:
    """Return what each candidate is worth at the goal, and why it was dropped, as plain values."""

    def why(entry: Entry) -> str:
        mine = in_words(worth[entry].seconds)
        if entry is best or entry.left:
            return "chosen" if entry is best else entry.left
        if best is None:
            return f"no faster than the teacher: {mine}, not {in_words(search.alone)}"
        slower = "slower" if worth[entry].seconds > worth[best].seconds else "no better"
        return f"{slower} than the choice: {mine}, not {in_words(worth[best].seconds)}"

    return [
        {
            "choice": str(entry),
            "mean": each.mean if math.isfinite(each.mean) else None,
            "low": each.quality if math.isfinite(each.quality) else None,
            "speed": search.alone / each.seconds,
            "trained": entry.trained,
            "why": why(entry),
        }
        for entry, each in worth.items()
    ]


def tried(search: Search, entry: Entry) -> Worth:
    """Play stretches of all clips with a candidate, and predict the film from the refreshes that they took."""
    played = search.record.once(f"trial of {entry}", partial(_played, search, entry))
    share, frames = decide.refreshes_of(played), sum(each["frames"] for each in played)
    seconds = decide.film_seconds(search.frames, entry.times, share)
    say(
        f"trial: {entry} refreshes {share:.0%} of {frames} frames in {len(played)} places at {search.asked}; the film "
        f"in {in_words(seconds)}"
    )
    return replace(search.worth(entry), share=share, seconds=seconds)


def _played(search: Search, entry: Entry) -> list[dict[str, int]]:
    """Play each stretch as a video of its own; count its frames, its shortcut frames and the audit that begins it."""
    found = []
    for part in samples_of(search.clips):
        translator = Translator(search.adapter, search.model(entry), lookahead=True, **search.asked.stream)
        frames = sum(1 for _ in translator.play(part[number] for number in range(len(part))))
        stream = translator.stream
        assert stream is not None  # noqa: S101 (there is a model)
        begun = min(1, stream.refreshes["audit"])
        found.append({"start": part.start, "frames": frames, "shortcuts": stream.shortcuts, "begun": begun})
    return found


def _teacher(why: str) -> dict[str, Any]:
    return {"kind": "teacher", "why": why, "block": None}


def _saved(search: Search, entry: Entry, worth: Worth) -> dict[str, Any]:
    """Save the chosen block; return the choice."""
    search.model(entry).save(search.record.path.parent / BLOCK)
    kind = {GIVEN: "given block", ReuseBlock.variant: "reuse"}.get(entry.candidate.variant, "trained block")
    speed = search.alone / worth.seconds
    why = f"{entry}, predicted {speed:.2f}x as fast with {worth.share:.0%} refreshes at {search.asked}"
    found = {"kind": kind, "why": why, "block": BLOCK, "candidate": asdict(entry.candidate), "trained": entry.trained}
    return {**found, "predicted": {**asdict(worth), "speed": speed}}


def contest(search: Search, field: Sequence[Entry], seconds: float) -> list[Entry]:
    """Train in rounds; return the winner first, then those that left, the last to leave first.

    Args:
        search: gives film, goal and record.
        field: candidates, the best hope first; where time is short, only the first take part.
        seconds: for all of it, features and judging included.
    """
    field, parts, amount = _lessons(search, field, seconds)
    least = max(_SHORTEST, _FRAMES * max(entry.times.shortcut for entry in field))
    rounds = decide.halving(len(field), amount, 0.0 if search.asked.steps else least)
    alive, left = list(field[: rounds[0][0]]), list[Entry]()
    for number, (kept, until) in enumerate(rounds, start=1):
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
