"""Kill workers on a folder of films at random moments and look at what is left; prints counts as JSON.

The process loads everything once and forks for each worker, so that kills hit the work and not the imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.batch import Film, Job, Worker, find_films

COUNT = 50
PAUSE = 0.03


class Slow:
    """Shows the negative of every frame, and takes its time."""

    def play(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        for frame in frames:
            time.sleep(PAUSE)
            yield 255 - frame


def start(films: list[Film], target: Path) -> int:
    """Work in a child; return its number."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            job = Job(target, Slow, 3, {})
            job.begin()
            worker = Worker(job)
            worker.run(films)
            code = len(worker.failed)
        os._exit(code)
    return child


def packets(path: Path) -> list[tuple[int | None, int | None, bytes]]:
    with av.open(str(path)) as file:
        return [(packet.pts, packet.stream_index, bytes(packet)) for packet in file.demux() if packet.size]


def whole(film: Film) -> bool:
    """Return False for a film that has its final name and is not complete."""
    if not film.target.exists():
        return True
    try:
        return sum(1 for _ in video.open(film.target)) == COUNT
    except Exception:
        return False


def run(folder: Path, workers: int, kills: int, count: int, source: Path | None) -> dict[str, Any]:
    sources = make(folder / "films", count) if source is None else source
    expected, films = (find_films([sources], folder / name) for name in ("expected", "found"))
    if os.waitstatus_to_exitcode(os.waitpid(start(expected, folder / "expected"), 0)[1]) != 0:
        raise SystemExit("a worker that nobody kills fails")
    began = time.monotonic()
    draw, incomplete, done = random.Random(5), 0, 0
    running = [start(films, folder / "found") for _ in range(workers)]
    while done < kills:
        time.sleep(draw.uniform(0.05, 0.3))
        victim = running.pop(draw.randrange(len(running)))
        ended = os.waitpid(victim, os.WNOHANG)[0]
        if not ended:
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
        done += 1
        incomplete += sum(not whole(film) for film in films)
        if all(film.target.exists() for film in films):
            break
        running.append(start(films, folder / "found"))
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in running]
    codes.append(os.waitstatus_to_exitcode(os.waitpid(start(films, folder / "found"), 0)[1]))
    logs = [(folder / name / ".shortcutv2v" / "log.txt").read_text() for name in ("expected", "found")]
    return {
        "workers": workers,
        "kills": done,
        "seconds": round(time.monotonic() - began, 1),
        "codes": codes,
        "incomplete": incomplete,
        "same": all(packets(a.target) == packets(b.target) for a, b in zip(expected, films, strict=True)),
        "segments": sum(" segment " in line and "begun" in line for line in logs[0].splitlines()),
        "segments begun": sum(" segment " in line and "begun" in line for line in logs[1].splitlines()),
    }


def make(folder: Path, count: int) -> Path:
    """Films of 2 frames a second, so that 20 frames are a segment."""
    folder.mkdir()
    draw = torch.Generator().manual_seed(1)
    for number in range(count):
        base = torch.randint(0, 256, (3, 64, 96), generator=draw, dtype=torch.uint8)
        with video.create(folder / f"{number}.mp4", rate=2) as out:
            for t in range(COUNT):
                out.write(base.roll(t, -1))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--films", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(json.dumps(run(options.folder, options.workers, options.kills, options.films, None)))
    sys.exit(0)
