"""The choice of `auto` beside an exhaustive search: every candidate is trained alone, as long as the winner was.

    python benchmarks/auto.py film.mp4 --folder faster.auto --adapter real_esrgan --size 180 --minutes 8

Give the arguments of an `auto` run that has ended, and its folder. Each candidate that `auto` could have trained is
trained for the winner's seconds on the same stretches, then plays the sample with the goal. The table goes to
`exhaustive.md` in the folder; a killed run goes on. It takes the minutes times the number of candidates.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from shortcutv2v import video
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.cli.setup import frame_size
from shortcutv2v.search.asked import NAME, Asked, Record, open_record
from shortcutv2v.search.choose import trained, tried
from shortcutv2v.search.contest import Entry, Search
from shortcutv2v.search.decide import Worth


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")
    chosen = Record.read(options.folder / NAME)
    asked = Asked(**chosen["setting"]["goal"], minutes=options.minutes)
    adapter = find_adapter(options.adapter, options.set)
    clip = video.Frames(options.film, size=frame_size(options.size))
    goal = asked.goal(adapter)
    assert goal is not None
    place = options.folder / "exhaustive"
    place.mkdir(exist_ok=True)
    record = open_record(place, adapter, [options.film], asked, [options.size, 0, None])
    search = Search(adapter, [clip], goal, asked, record)
    seconds = chosen["choice"].get("trained") or 30 * options.minutes
    reuse, blocks = search.entries()
    found: dict[Entry, Worth] = {entry: tried(search, entry) for entry in reuse}
    for entry in blocks:
        alone = trained(search, 1, entry, seconds, search.learn)
        found[alone] = tried(search, alone)
    text = table(search, found, chosen)
    (options.folder / "exhaustive.md").write_text(text)
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--size")
    parser.add_argument("--minutes", type=float, required=True)
    return parser.parse_args()


def table(search: Search, found: dict[Entry, Worth], chosen: dict[str, Any]) -> str:
    """Return the table, the best first, with the choice of `auto` marked."""
    lines = ["| choice | refreshes | film, s | times as fast | of the best |", "|---|---:|---:|---:|---:|"]
    best = min(worth.seconds for worth in found.values())
    for entry, worth in sorted(found.items(), key=lambda pair: pair[1].seconds):
        mark = "**auto** " if entry.candidate.name == chosen["choice"].get("candidate", {}).get("name") else ""
        speed, share = search.frames * search.teacher / worth.seconds, best / worth.seconds
        lines.append(f"| {mark}{entry} | {worth.share:.0%} | {worth.seconds:.1f} | {speed:.2f} | {share:.0%} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
