"""`shortcutv2v translate` for a folder of films, on one machine or many."""

from __future__ import annotations

import argparse
import functools
import json
import re
from pathlib import Path
from typing import Any

from shortcutv2v.bar import Harmless, say
from shortcutv2v.batch import Job, Worker, find_films, on_ray
from shortcutv2v.cli.setup import frame_size, load_model, open_adapter
from shortcutv2v.cli.translate import stoppable
from shortcutv2v.errors import InputError, VideoError
from shortcutv2v.translate import Translator

__all__ = ["run"]


def run(options: argparse.Namespace, goal: dict[str, Any]) -> None:
    """Translate all films; go on where an earlier run was ended.

    Raises:
        VideoError: films have failed; the others are done.
    """
    target: Path = options.target
    if options.frames or options.raw or options.report or options.windows:
        raise InputError("--frames, --raw, --report and --windows are for one clip; leave them out for several films")
    if target.suffix or (target.exists() and not target.is_dir()):
        raise InputError(f"{target}: several films need a folder as their target, a name without suffix")
    shard = _shard(options.shard)
    films = find_films(options.source, target)
    with stoppable(lambda: f"stopped; {target}: the same command goes on where this one was"):
        if options.ray:
            vars(options).pop("run", None)  # cannot be told from another one in another process
            if Path(options.adapter).suffix == ".py":
                options.adapter = str(Path(options.adapter).absolute())  # as other processes find it
            options.block = options.block and options.block.absolute()
            options.target = target.absolute()
            films = find_films([path.absolute() for path in options.source], options.target)
            _job(options, goal).begin()
            gpus = 1 if options.device.startswith("cuda") else 0
            failed = on_ray(functools.partial(_job, options, goal), films, options.ray, gpus=gpus, told=say)
        else:
            job = _job(options, goal)
            job.begin()
            worker = Worker(job, shard, _tell)
            worker.run(films)
            failed = worker.failed
    if failed:
        first = "; ".join(f"{film.name}: {why}" for film, why in failed.items())
        raise VideoError(f"{len(failed)} of {len(films)} films failed, the others are done: {first}")


def _tell(line: str) -> None:
    """Print finished films on standard output, the rest on standard error."""
    if ": segment " in line:
        Harmless().write(f"{line}\n")
    else:
        say(line)


def _job(options: argparse.Namespace, goal: dict[str, Any]) -> Job:
    """Return the job that the options describe, its network loaded."""
    adapter, goal = open_adapter(options), dict(goal)
    settings = {
        **goal,
        **{name: getattr(options, name) for name in ("adapter", "cut", "size", "crf", "tone_map", "dtype", "both")},
    }
    settings |= {"set": options.set, "lookahead": options.lookahead, "audio": not options.no_audio, "block": None}
    model = None
    if options.block:
        model = load_model(options.block, adapter, goal.pop("interval", None), options.both)
        settings["block"] = json.loads((options.block / "shortcut.json").read_text())["weights"]
    player = functools.partial(Translator, adapter, model, lookahead=options.lookahead, **goal)
    stream = player().stream
    interval = None if adapter.recurrent else 1 if stream is None else stream.refresh.interval
    reading = {"size": frame_size(options.size), "tone_map": options.tone_map}
    return Job(options.target, player, interval, settings, reading, options.crf, not options.no_audio)


def _shard(text: str | None) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/4")
    return int(found[1]), int(found[2])
