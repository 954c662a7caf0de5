"""Long runs: a long stream, kills by the dozen, a full disk, a vanished source; prints a table. Under 20 minutes.

python tests/faults/soak.py [--frames 20000] [--kills 50]     everything, on films made for it
python tests/faults/soak.py --clips [--kills 50]              a folder of real clips, a fifth of the kills per case
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.batch import Job, Worker, find_films
from shortcutv2v.errors import VideoError
from shortcutv2v.translate import Translator

HERE = Path(__file__).parent
SMALL = 24 * 2**20
"""Bytes of the disk that gets full."""
PATIENCE = 900
"""Seconds that the runs on one folder may take."""


def resident() -> float:
    """Return the memory of this process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def long_stream(folder: Path, options: argparse.Namespace) -> tuple[bool, str]:
    """Send many frames through one stream, with an adaptive policy, and look at the memory."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 8, 3 if i == 5 else 8, 3, padding=1) for i in range(6)]
    adapter = shortcutv2v.Adapter(nn.Sequential(*layers).eval(), "1", "4")
    translator = Translator(adapter, adapter.wrap(torch.rand(1, 3, 48, 64)), quality=30)
    base, sizes = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8), []
    for number in range(options.frames):
        translator(base.roll(number % 64, -1))
        if number % (options.frames // 10) == 0:
            sizes.append(resident())
    growth = sizes[-1] / sizes[2] - 1
    assert translator.stream is not None
    return growth < 0.05, f"{options.frames} frames, memory {sizes[2]:.0f} to {sizes[-1]:.0f} MiB ({growth:+.1%})"


def kills(*fleet: str, share: float = 1) -> Callable[[Path, argparse.Namespace], tuple[bool, str]]:
    """Kill workers on a folder of eight films; `fleet` are options of `kill_films.py`."""

    def case(folder: Path, options: argparse.Namespace) -> tuple[bool, str]:
        if "--ray" in fleet and importlib.util.find_spec("ray") is None:
            return True, 'skipped: needs Ray, pip install "shortcutv2v[ray]"'
        count = round(options.kills * share)
        line = [sys.executable, str(HERE / "kill_films.py"), str(folder), *fleet, "--kills", str(count)]
        run = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE)
        found: dict[str, Any] = json.loads(run.stdout)
        again = found["segments begun"] - found["segments"]
        whole = found["same"] and not found["incomplete"] and not any(found["codes"])
        return whole and found["kills"] == count and again <= found["lost"], (
            f"{found['films']} films in {found['seconds']:.0f} s, {found['kills']} kills that ended {found['lost']} "
            f"workers, {again} segments begun again (of {found['segments']}), {found['incomplete']} incomplete films, "
            f"packets {'identical' if found['same'] else 'DIFFER'}"
        )

    return case


class Noise:
    """Pictures that do not compress."""

    def play(self, frames: Any) -> Any:
        """Yield one for each frame."""
        draw = torch.Generator().manual_seed(0)
        for _ in frames:
            yield torch.randint(0, 256, (3, 256, 512), generator=draw, dtype=torch.uint8)


def films_of(folder: Path, count: int = 3) -> Path:
    """Make films of 30 frames."""
    folder.mkdir()
    for number in range(count):
        with video.create(folder / f"{number}.mp4", rate=2) as out:
            for t in range(30):
                out.write(torch.full((3, 32, 64), (number * 60 + t) % 256, dtype=torch.uint8))
    return folder


def full_disk(folder: Path, options: argparse.Namespace) -> tuple[bool, str]:
    """Fill a small disk, then make room: every film is refused or whole, and the rest is done the second time."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        return True, "skipped: mounting a small disk needs root"
    try:
        films = find_films([films_of(folder / "films")], disk / "out")
        (disk / "ballast").write_bytes(bytes(SMALL - 6 * 2**20))
        first = _work(disk / "out", films)
        there = [film for film in films if film.target.exists()]
        whole = all(sum(1 for _ in video.open(film.target)) == 30 for film in there)
        (disk / "ballast").unlink()
        second = _work(disk / "out", films)
        right = whole and len(first.failed) > 0 and not second.failed
        return right, f"{len(first.failed)} of {len(films)} films refused, none incomplete; with room again all done"
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _work(target: Path, films: Any) -> Worker:
    job = Job(target, Noise, 3, {}, crf=20)
    job.begin()
    worker = Worker(job)
    worker.run(films)
    return worker


def vanished(folder: Path, options: argparse.Namespace) -> tuple[bool, str]:
    """Remove a source while its film is being made."""
    films = find_films([films_of(folder / "films")], folder / "out")

    class Removes(Noise):
        def play(self, frames: Any) -> Any:
            films[1].source.unlink(missing_ok=True)
            yield from super().play(frames)

    job = Job(folder / "out", Removes, 3, {})
    job.begin()
    worker = Worker(job)
    worker.run(films)
    right = list(worker.failed) == [films[1]] and films[0].target.exists() and films[2].target.exists()
    return right, f"1 source vanished: {'its film failed, the others are done' if right else worker.failed}"


def truncated(folder: Path, options: argparse.Namespace) -> tuple[bool, str]:
    """Cut a finished segment short on disk: it is noticed before the film is joined."""
    films = find_films([films_of(folder / "films", 1)], folder / "out")
    job = Job(folder / "out", Noise, 3, {})
    job.begin()
    Worker(job, shard=(1, 2)).run(films)
    piece = job.place(films[0]) / "00000.mp4"
    os.truncate(piece, piece.stat().st_size // 2)
    Worker(job).run(films)
    try:
        count = sum(1 for _ in video.open(films[0].target))
    except VideoError as error:
        return False, str(error)
    return count == 30, f"half a segment was made again, {count} of 30 frames"


CASES: dict[str, Callable[[Path, argparse.Namespace], tuple[bool, str]]] = {
    "one long stream": long_stream,
    "kills, 1 worker": kills("--workers", "1", share=0.3),
    "kills, 2 workers": kills("--workers", "2", share=0.4),
    "kills, 3 workers": kills("--workers", "3", share=0.3),
    "a full disk": full_disk,
    "a vanished source": vanished,
    "a truncated segment": truncated,
}


CLIPS = {
    "1 process, undisturbed": kills("--clips", "--workers", "1", share=0),
    "2 processes, undisturbed": kills("--clips", "--workers", "2", share=0),
    "1 process, killed": kills("--clips", "--workers", "1", share=0.2),
    "2 processes, killed": kills("--clips", "--workers", "2", share=0.2),
    "3 processes, killed": kills("--clips", "--workers", "3", share=0.2),
    "2 nodes of Ray, killed": kills("--clips", "--ray", share=0.2),
}
"""The same for real clips and a pretrained network, whose runs share a folder."""


def main() -> int:
    """Run all cases; return how many went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clips", action="store_true", help="only the folder of real clips, killed in all ways")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wrong = 0
    print("| case | result | seconds | what was found |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for name, case in (CLIPS if options.clips else CASES).items():
            folder = Path(root, "clips" if options.clips else name)
            folder.mkdir(exist_ok=True)
            begun = time.monotonic()
            right, found = case(folder, options)
            wrong += not right
            took = time.monotonic() - begun
            print(f"| {name} | {'right' if right else 'WRONG'} | {took:.0f} | {found} |", flush=True)
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
