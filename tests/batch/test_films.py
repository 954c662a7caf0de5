"""Folders of films: plans, segments, joins, and what interruptions, damage and other processes do to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.video.synthetic import encode, folder, numbers, packets, times
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.batch import Job, Plan, Worker, find_films
from shortcutv2v.batch import lease as leases
from shortcutv2v.batch.plan import scene_cuts, segments
from shortcutv2v.errors import InputError, VideoError

FAULTS = Path(__file__).parents[1] / "faults"


class Same:
    """Shows every frame as it is."""

    def play(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        yield from frames


def job(target: Path, **settings: Any) -> Job:
    made = Job(target, Same, interval=3, settings=settings)
    made.begin()
    return made


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films of 20, 50 and 45 frames at 2 frames a second, so that ten seconds are 20 frames."""
    place = tmp_path / "films"
    (place / "deep").mkdir(parents=True)
    encode(place / "a.mp4", 20, rate=2, size=(64, 96), sound=["aac"])
    encode(place / "deep" / "b.mkv", 50, rate=2, size=(64, 96), sound=["ac3", "aac"])
    encode(place / "c.avi", 45, rate=2, size=(64, 96), codec="mpeg4", options={})
    return place


def content(place: Path) -> dict[str, Any]:
    """All packets of all films below a folder."""
    found = sorted(
        path for path in place.rglob("*") if path.suffix in {".mp4", ".mkv"} and ".shortcutv2v" not in path.parts
    )
    return {path.name: (packets(path, "video"), packets(path)) for path in found}


def log(target: Path) -> Counter[str]:
    lines = (target / ".shortcutv2v" / "log.txt").read_text().splitlines()
    return Counter(" ".join(line.split()[3::3]) for line in lines)


@given(st.data())
def test_segments_cover_a_film(data: st.DataObject) -> None:
    count, interval = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 9))
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, count), max_size=8)) - {count})]
    longest = data.draw(st.integers(interval, 100))
    found = segments(cuts, count, longest, interval)
    assert [n for start, stop in found for n in range(start, stop)] == list(range(count))
    for start, stop in found:
        assert 0 < stop - start <= longest
        assert (start - max(cut for cut in cuts if cut <= start)) % interval == 0
    assert len(found) <= 2 * count // max(1, longest - interval) + len(cuts) + 1
    assert [start for start, _ in segments(cuts, count, None, interval)] == cuts


def test_cuts_are_found_where_scenes_change_and_not_where_things_move() -> None:
    torch.manual_seed(0)
    scenes = [torch.randint(0, 256, (3, 9, 16), dtype=torch.uint8) for _ in range(3)]
    frames = [scene.roll(t, -1) // 8 + 60 * (n + 1) for n, scene in enumerate(scenes) for t in range(12)]
    assert scene_cuts(frames) == [0, 12, 24]


def test_films_become_films(films: Path, tmp_path: Path) -> None:
    told: list[str] = []
    found = find_films([films], tmp_path / "out")
    worker = Worker(job(tmp_path / "out"), told=told.append)
    worker.run(found)
    assert not worker.failed
    for film, count in zip(found, (20, 45, 50), strict=True):
        assert numbers(video.open(film.target)) == list(range(count))
        assert times(film.target) == [t - times(film.source)[0] for t in times(film.source)]
        if film.source.suffix != ".avi":
            assert packets(film.target) == packets(film.source)
    assert [film.name for film in found] == ["a.mp4", "c.avi.mp4", "deep/b.mkv"]
    assert f"{tmp_path / 'out' / 'deep' / 'b.mkv'}: 50 frames" in told
    left = [path.name for path in (tmp_path / "out" / ".shortcutv2v").rglob("*") if path.is_file()]
    assert sorted(left) == ["log.txt", "plan.json", "plan.json", "plan.json", "settings.json"]
    before = log(tmp_path / "out")
    assert before == {
        "plan done": 3,
        "plan begun": 3,
        "segment begun": 7,
        "segment done": 7,
        "join begun": 3,
        "join done": 3,
    }
    worker.run(found)
    assert log(tmp_path / "out") == before


def test_one_segment_is_what_convert_writes(tmp_path: Path) -> None:
    """An uneven film of one segment: the same pictures at the same times, up to x264's number of threads."""
    ticks = [0, 1, 2, 5, 6, 8, 9, 13, 14]
    source = encode(tmp_path / "films.mp4", 9, rate=25, ticks=ticks, sound=["aac"])
    worker = Worker(job(tmp_path / "out"))
    worker.run(find_films([source], tmp_path / "out"))
    video.convert(source, tmp_path / "whole.mp4", lambda frame: frame, progress=False)
    made, whole = (video.open(path) for path in (tmp_path / "out" / "films.mp4", tmp_path / "whole.mp4"))
    assert [t for t, _ in made.timed()] == [t for t, _ in whole.timed()]
    assert made.last == whole.last
    assert packets(made.path) == packets(whole.path)
    assert all((a.int() - b).abs().max() < 12 for a, b in zip(made, whole, strict=True))


class Stops:
    """Ends the run after so many frames in all, as Ctrl-C does."""

    left = 0

    def play(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        for frame in frames:
            Stops.left -= 1
            if Stops.left < 0:
                raise KeyboardInterrupt
            yield frame


def test_an_interrupted_run_goes_on_where_it_was(films: Path, tmp_path: Path) -> None:
    found, again = (find_films([films], tmp_path / name) for name in ("out", "again"))
    Worker(job(tmp_path / "again")).run(again)
    for frames in (5, 31, 33):
        Stops.left = frames
        stopped = job(tmp_path / "out")
        stopped.player = Stops
        with pytest.raises(KeyboardInterrupt):
            Worker(stopped).run(found)
    Worker(job(tmp_path / "out")).run(found)
    assert content(tmp_path / "out") == content(tmp_path / "again")
    assert log(tmp_path / "out")["segment begun"] == 7 + 3
    assert not list((tmp_path / "out").rglob("*.lease*"))


def test_shards_one_after_the_other(films: Path, tmp_path: Path) -> None:
    found, again = (find_films([films], tmp_path / name) for name in ("out", "again"))
    Worker(job(tmp_path / "again")).run(again)
    for index in (2, 1, 3):
        assert not (tmp_path / "out" / "deep" / "b.mkv").exists()
        Worker(job(tmp_path / "out"), shard=(index, 3)).run(found)
    assert content(tmp_path / "out") == content(tmp_path / "again")
    assert log(tmp_path / "out")["segment begun"] == 7


def test_a_film_that_fails_loses_nobody_elses_work(films: Path, tmp_path: Path) -> None:
    data = (films / "a.mp4").read_bytes()
    (films / "a.mp4").write_bytes(data[: len(data) // 2])
    found = find_films([films], tmp_path / "out")
    (films / "c.avi").unlink()
    worker = Worker(job(tmp_path / "out"))
    worker.run(found)
    assert sorted(content(tmp_path / "out")) == ["b.mkv"]
    assert {film.name for film in worker.failed} == {"a.mp4", "c.avi.mp4"}
    assert "No such file" in worker.failed[found[1]]


def test_a_source_that_changes_is_planned_anew(films: Path, tmp_path: Path) -> None:
    found = [film for film in find_films([films], tmp_path / "out") if film.name == "a.mp4"]
    Worker(job(tmp_path / "out")).run(found)
    encode(films / "a.mp4", 33, rate=2)
    Worker(job(tmp_path / "out")).run(found)
    assert numbers(video.open(found[0].target)) == list(range(33))
    found[0].target.unlink()
    Worker(job(tmp_path / "out")).run(found)
    assert numbers(video.open(found[0].target)) == list(range(33))


def test_a_segment_that_is_not_whole_is_made_again(films: Path, tmp_path: Path) -> None:
    """Whatever a list may say, the pieces are decoded before they are joined."""
    found = [film for film in find_films([films], tmp_path / "out") if film.name == "deep/b.mkv"]
    work = job(tmp_path / "out")
    Worker(work, shard=(1, 2)).run(found)
    whole = work.place(found[0]) / "00000.mp4"
    video.Pieces(found[0].source).write(whole, Same(), 0, times(found[0].source)[:7])
    Worker(work).run(found)
    assert numbers(video.open(found[0].target)) == list(range(50))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    job(tmp_path, crf=16, block=None)
    job(tmp_path, crf=16, block=None)
    with pytest.raises(InputError, match="was begun with crf 16, now it is 20; choose another folder"):
        job(tmp_path, crf=20, block=None)


def test_films_of_one_name(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        encode(tmp_path / name / "a.mp4", 2)
    with pytest.raises(InputError, match="would both become"):
        find_films([tmp_path / "x" / "a.mp4", tmp_path / "y" / "a.mp4"], tmp_path / "out")
    with pytest.raises(VideoError, match="no such file"):
        find_films([tmp_path / "z"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="no films in this folder"):
        find_films([tmp_path / "empty"], tmp_path / "out")
    assert [film.name for film in find_films([tmp_path], tmp_path / "out")] == ["x/a.mp4", "y/a.mp4"]


def test_a_folder_of_frames_is_a_film(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    folder(tmp_path / "films" / "drawn", 7)
    found = find_films([tmp_path / "films"], tmp_path / "out")
    Worker(job(tmp_path / "out")).run(found)
    assert numbers(video.open(tmp_path / "out" / "drawn.mp4")) == list(range(7))


@pytest.mark.parametrize(("change", "stale"), [
    ({}, False), ({"pid": 2**22 - 1}, True), ({"born": "1"}, True), ({"host": "elsewhere"}, False),
])  # fmt: skip
def test_leases_of_the_living_and_the_dead(tmp_path: Path, change: dict[str, Any], stale: bool) -> None:
    path = tmp_path / "x.lease"
    held = leases.take(path)
    assert held is not None
    assert leases.take(path) is None
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    other = leases.take(path)
    assert (other is not None) == stale
    if other is not None:
        with other, held:
            pass  # the first one no longer owns the file, and leaves it alone
    assert os.listdir(tmp_path) == ([] if stale else ["x.lease"])


def test_a_lease_from_elsewhere_goes_stale_by_the_clock_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    path.write_text('{"host": "elsewhere", "pid": 1}')
    assert leases.take(path) is None
    old = path.stat().st_mtime - leases.STALE - 1
    os.utime(path, (old, old))
    with leases.take(path) as found:
        assert found is not None
    assert os.listdir(tmp_path) == []


def test_a_plan_that_was_half_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"fingerprint": "x", "ticks": [1, 2')
    assert Plan.read(tmp_path / "plan.json") is None


def test_workers_killed_at_random(tmp_path: Path) -> None:
    line = [
        sys.executable,
        str(FAULTS / "kill_films.py"),
        str(tmp_path),
        "--workers",
        "2",
        "--kills",
        "4",
        "--films",
        "2",
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"]
    assert found["kills"] > 1
    assert found["incomplete"] == 0
    assert found["segments begun"] <= found["segments"] + found["kills"]
