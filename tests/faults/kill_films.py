"""Kill workers on a folder of films at random moments and look at what is left; prints counts as JSON.

python tests/faults/kill_films.py FOLDER [--clips] [--workers 2 | --ray] [--kills 10]

The process loads everything once and forks for each run, so that kills hit the work and not the imports. Everything is
kept in FOLDER, and the films and the run that nobody kills are made there once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import torch
from clips import real_clips
from kill_ray import Cluster
from killing import ended, forked

from shortcutv2v import video
from shortcutv2v.batch import Film, find_films
from shortcutv2v.cli.adapters import find_adapter

COUNT = 50
HEIGHT = 64
ADAPTER = """
import time
from torch import nn
from shortcutv2v import Adapter

class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.03)
        return 1 - x

def build_adapter():
    return Adapter(Slow())
"""


class Workers:
    """Processes of one machine, each of which runs the same command."""

    start = 0.0

    def __init__(self, line: Sequence[str], count: int, said: Path) -> None:
        self.line, self.said, self.codes = line, said, list[int]()
        self.running = [forked(line, said) for _ in range(count)]

    def kill(self, draw: random.Random) -> int:
        """Kill one and begin it again; return how many processes that made segments are lost."""
        victim = self.running.pop(draw.randrange(len(self.running)))
        os.kill(victim, signal.SIGKILL)
        ended(victim)
        self.running.append(forked(self.line, self.said))
        return 1

    def over(self) -> bool:
        """Return True when all have ended."""
        for child in list(self.running):
            number, status = os.waitpid(child, os.WNOHANG)
            if number:
                self.running.remove(child)
                self.codes.append(os.waitstatus_to_exitcode(status))
        return not self.running

    def close(self) -> None:
        """End those that still run."""
        for child in self.running:
            os.kill(child, signal.SIGKILL)
            ended(child)


class Watch:
    """Looks at the films under their final names while they are made, and counts those that are not complete."""

    def __init__(self, films: Sequence[Film], expected: Sequence[Film]) -> None:
        pairs = zip(films, expected, strict=True)
        self._counts = {film.target: frames(whole.target) for film, whole in pairs}
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self.incomplete = 0

    def look(self) -> None:
        """Decode every film that is new, or another file than before."""
        for path, count in self._counts.items():
            if path.exists():
                state = path.stat()
                file = state.st_ino, state.st_size, state.st_mtime_ns
                if self._seen.get(path) != file:
                    self._seen[path] = file
                    self.incomplete += frames(path) != count

    def wait(self, seconds: float) -> bool:
        """Look for some seconds; return whether all films are there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(0.01)
        return len(self._seen) == len(self._counts)


def frames(path: Path) -> int:
    """Return how many frames a film has; -1 if it cannot be read."""
    try:
        return sum(1 for _ in video.open(path))
    except Exception:
        return -1


def packets(path: Path) -> list[tuple[int | None, int | None, bytes]]:
    with av.open(str(path)) as file:
        return [(packet.pts, packet.stream_index, bytes(packet)) for packet in file.demux() if packet.size]


def begun(folder: Path) -> int:
    """Return how many segments were begun."""
    lines = (folder / ".shortcutv2v" / "log.txt").read_text().splitlines()
    return sum(" segment " in line and "begun" in line for line in lines)


def seconds(folder: Path, films: Sequence[Film]) -> float:
    """Return the time from the first file to the last film, without the start of the process."""
    first = (folder / ".shortcutv2v" / "settings.json").stat().st_mtime
    return max(film.target.stat().st_mtime for film in films) - first


def run(folder: Path, line: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    name, said = f"found-{options.workers}-{options.kills}{'-ray' * options.ray}", folder / "said.txt"
    lines = [[*line[:2], str(folder / target), *line[2:]] for target in ("expected", name)]
    expected, films = (find_films([Path(line[1])], Path(each[2])) for each in lines)
    if ended(forked(lines[0], said)):
        raise SystemExit(f"a run that nobody kills fails: {said.read_text()}")
    draw, watch, kills, lost = random.Random(5), Watch(films, expected), 0, 0
    fleet = Cluster(lines[1], said) if options.ray else Workers(lines[1], options.workers, said)
    pause = fleet.start + seconds(folder / "expected", expected) / options.workers / max(1, options.kills)
    with contextlib.closing(fleet):
        while kills < options.kills and not watch.wait(draw.uniform(0.1, 1) * pause):
            cost = fleet.kill(draw)
            lost, kills = lost + cost, kills + (cost > 0)
        while not fleet.over():
            watch.wait(0.1)
    watch.look()
    return {
        "workers": options.workers,
        "kills": kills,
        "lost": lost,
        "seconds": round(seconds(folder / name, films), 1),
        "codes": [*fleet.codes, ended(forked(lines[1], said))],
        "incomplete": watch.incomplete,
        "same": all(packets(a.target) == packets(b.target) for a, b in zip(expected, films, strict=True)),
        "films": len(films),
        "segments": begun(folder / "expected"),
        "segments begun": begun(folder / name),
    }


def made(folder: Path, count: int) -> list[str]:
    """Return the command for films of 2 frames a second, so that 20 frames are a segment, and a network that rests."""
    films, adapter = folder / "films", folder / "slow.py"
    if not films.exists():
        films.mkdir()
        adapter.write_text(ADAPTER)
        draw = torch.Generator().manual_seed(1)
        for number in range(count):
            base = torch.randint(0, 256, (3, 64, 96), generator=draw, dtype=torch.uint8)
            with video.create(films / f"{number}.mp4", rate=2) as out:
                for t in range(COUNT):
                    out.write(base.roll(t, -1))
    return ["translate", str(films), "--adapter", str(adapter)]


def real(folder: Path) -> list[str]:
    """Return the command for real clips and a pretrained network, with a block that has not been trained."""
    films, block = folder / "films", folder / "block"
    if not films.exists():
        torch.manual_seed(0)
        find_adapter("real_esrgan", []).wrap(torch.rand(1, 3, HEIGHT, HEIGHT), max_interval=3).save(block)
        real_clips(films)
    options = ["--adapter", "real_esrgan", "--block", str(block), "--size", str(HEIGHT), "--device", "cpu"]
    return ["translate", str(films), *options]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--clips", action="store_true", help="real clips instead of made films")
    parser.add_argument("--ray", action="store_true", help="two nodes of a Ray cluster instead of processes")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    line = real(options.folder) if options.clips else made(options.folder, options.films)
    print(json.dumps(run(options.folder, line, options)))
