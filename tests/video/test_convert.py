from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from synthetic import encode, folder, numbered, numbers, packets, times
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import VideoError
from shortcutv2v.video.create import writer_for

SOURCES = {
    "plain.mp4": {},
    "ntsc.mp4": {"rate": Fraction(30000, 1001)},
    "b_frames.mp4": {"options": {"g": "6", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}},
    "late.mp4": {"ticks": range(100, 112)},
    "late.ts": {"ticks": range(100, 112)},
    "plain.mkv": {},
    "clip.webm": {"codec": "libvpx-vp9", "options": {}},
    "uneven.mp4": {"base": Fraction(1, 1000), "ticks": [0, 40, 100, 101, 300, 301, 900, 950, 990, 1000, 1100, 1101]},
    "pieces.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
}


def same(frame: Tensor) -> Tensor:
    return frame


def left(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


@pytest.mark.filterwarnings("ignore:.*does not say how long it is")
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_count_times_and_order_are_kept(tmp_path: Path, name: str, suffix: str) -> None:
    source, target = encode(tmp_path / name, **SOURCES[name]), tmp_path / f"out{suffix}"
    assert video.convert(source, target, same, progress=False) == 12
    # Time counts from the file's beginning. Matroska counts in milliseconds, whatever one gives it.
    expected = [at - times(source)[0] for at in times(source)]
    if suffix == ".mkv":
        expected = [Fraction(round(at * 1000), 1000) for at in expected]
    assert times(target) == expected
    assert numbers(video.open(target)) == list(range(12))
    assert sorted(left(tmp_path)) == sorted([name, f"out{suffix}"])


@pytest.mark.parametrize("rate", [25, 10, 60, Fraction(30000, 1001), Fraction(24000, 1001)])
def test_rate_is_kept(tmp_path: Path, rate: Fraction) -> None:
    source = encode(tmp_path / "clip.mp4", rate=rate)
    video.convert(source, tmp_path / "out.mp4", same, progress=False)
    assert video.open(tmp_path / "out.mp4").rate == rate


def test_last_frame_lasts_as_long_as_the_others(tmp_path: Path) -> None:
    video.convert(encode(tmp_path / "clip.mp4"), tmp_path / "out.mp4", same, progress=False)
    with av.open(str(tmp_path / "out.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(12, 25)


def test_uneven_frames_have_their_own_lengths(tmp_path: Path) -> None:
    with video.create(tmp_path / "out.mp4", rate=10, time_base=Fraction(1, 1000)) as out:
        for number, tick in enumerate([0, 500, 510, 2000]):
            out.write(numbered(number), Fraction(tick, 1000))
    assert times(tmp_path / "out.mp4") == [0, Fraction(1, 2), Fraction(51, 100), 2]
    # FFmpeg adds up lengths in decoding order; players go by the movie header: milliseconds, then the duration.
    data = (tmp_path / "out.mp4").read_bytes()
    header = data.index(b"mvhd") + 16
    assert [int.from_bytes(data[at : at + 4], "big") for at in (header, header + 4)] == [1000, 2100]


@pytest.mark.parametrize("size", [(32, 64), (31, 64), (32, 63), (31, 63), (1, 1), (2, 2)])
def test_any_size_comes_out_exactly(tmp_path: Path, size: tuple[int, int]) -> None:
    def step(frame: Tensor) -> Tensor:
        return frame[:, : size[0], : size[1]]

    video.convert(encode(tmp_path / "clip.mp4", 4), tmp_path / "out.mp4", step, progress=False)
    clip = video.open(tmp_path / "out.mp4")
    assert clip.size == size
    assert len(list(clip)) == 4


@pytest.mark.parametrize("size", [(64, 64), (63, 63)])
def test_colours_survive(tmp_path: Path, size: tuple[int, int]) -> None:
    """Primary and secondary colours, written and read back: a wrong matrix or range is off by 10 and more."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 255, 255), (0, 0, 0)]
    with video.create(tmp_path / "out.mp4", crf=1) as out:
        for colour in colours:
            out.write(torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, *size))
    for frame, colour in zip(video.open(tmp_path / "out.mp4"), colours, strict=True):
        assert (frame.float().mean(dim=(1, 2)) - torch.tensor(colour)).abs().max() < 4


def test_crf_trades_quality_for_size(tmp_path: Path) -> None:
    source = encode(tmp_path / "clip.mp4", 12, size=(96, 96))
    for crf in (1, 40):
        video.convert(source, tmp_path / f"{crf}.mp4", same, crf=crf, progress=False)
    assert (tmp_path / "1.mp4").stat().st_size > 2 * (tmp_path / "40.mp4").stat().st_size


@pytest.mark.parametrize(("source", "target", "sound"), [
    ("clip.mp4", "out.mp4", ["aac"]),
    ("clip.mkv", "out.mkv", ["flac", "aac", "libopus"]),
    ("clip.mp4", "out.mkv", ["aac", "aac"]),
    ("clip.mkv", "out.mp4", ["aac", "libopus"]),
    ("clip.mov", "out.mov", ["pcm_s16le"]),
])  # fmt: skip
def test_sound_is_copied_bit_for_bit(tmp_path: Path, source: str, target: str, sound: list[str]) -> None:
    path = encode(tmp_path / source, 50, sound=sound)
    video.convert(path, tmp_path / target, same, progress=False)
    before, after = packets(path), packets(tmp_path / target)
    assert len(before) == len(after) == len(sound)
    for old, new in zip(before, after, strict=True):
        assert [content for _, content in new] == [content for _, content in old]
        assert max(abs(a - b) for (a, _), (b, _) in zip(new, old, strict=True)) <= Fraction(1, 1000)
    assert times(tmp_path / target) == times(path)


def test_late_sound_stays_beside_its_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 25, ticks=range(100, 125), sound=["aac"])
    video.convert(path, tmp_path / "out.mp4", same, progress=False)
    (before,), (after,) = packets(path), packets(tmp_path / "out.mp4")
    begin = times(path)[0] - times(tmp_path / "out.mp4")[0]
    assert begin > Fraction(39, 10)  # both tracks begin at 4 s, the target at 0
    assert [content for _, content in after] == [content for _, content in before]
    assert all(abs(old - new - begin) < Fraction(1, 1000) for (old, _), (new, _) in zip(before, after, strict=True))


def test_cut_takes_picture_and_sound(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mkv", 50, sound=["flac"])
    video.convert(path, tmp_path / "out.mkv", same, start=10, stop=35, progress=False)
    assert numbers(video.open(tmp_path / "out.mkv")) == list(range(10, 35))
    assert times(tmp_path / "out.mkv") == [Fraction(i, 25) for i in range(25)]
    (before,), (after,) = packets(path), packets(tmp_path / "out.mkv")
    begin, end = Fraction(10, 25), Fraction(35, 25)
    assert [content for _, content in after] == [content for at, content in before if begin <= at < end]
    assert after[0][0] < Fraction(1, 10)


def test_sound_can_be_left_out(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 25, sound=["aac"])
    video.convert(path, tmp_path / "out.mp4", same, audio=False, progress=False)
    assert packets(tmp_path / "out.mp4") == []


def test_one_frame(tmp_path: Path) -> None:
    source = encode(tmp_path / "clip.mp4", 1)
    assert video.convert(source, tmp_path / "out.mp4", same, progress=False) == 1
    assert times(tmp_path / "out.mp4") == [0]


def test_folder_to_video_to_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "frames", 12)
    assert video.convert(source, tmp_path / "clip.mp4", same, rate=10, progress=False) == 12
    clip = video.open(tmp_path / "clip.mp4")
    assert clip.rate == 10
    assert video.convert(tmp_path / "clip.mp4", tmp_path / "again", same, progress=False) == 12
    assert left(tmp_path / "again") == [f"{i:06d}.png" for i in range(12)]
    for written, shown in zip(video.open(tmp_path / "again"), clip, strict=True):
        assert torch.equal(written, shown)


def test_folder_to_folder_keeps_names_and_pixels(tmp_path: Path) -> None:
    source = folder(tmp_path / "frames", 11)
    (tmp_path / "out").mkdir()
    video.convert(source, tmp_path / "out", same, start=2, progress=False)
    assert left(tmp_path / "out") == sorted(f"frame{i}.png" for i in range(2, 11))
    assert torch.equal(next(iter(video.open(tmp_path / "out"))), numbered(2))
    assert left(tmp_path) == ["frames", "out"]


def test_folder_of_jpg(tmp_path: Path) -> None:
    video.convert(folder(tmp_path / "frames"), tmp_path / "out", same, image=".jpg", progress=False)
    assert left(tmp_path / "out") == [f"frame{i}.jpg" for i in range(5)]
    assert numbers(video.open(tmp_path / "out")) == list(range(5))


def test_existing_video_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    source, target = encode(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    target.write_bytes(b"old")

    def fail(frame: Tensor) -> Tensor:
        raise RuntimeError("from the model")

    with pytest.raises(RuntimeError, match="from the model"):
        video.convert(source, target, fail, progress=False)
    assert target.read_bytes() == b"old"
    assert left(tmp_path) == ["clip.mp4", "out.mp4"]
    video.convert(source, target, same, progress=False)
    assert numbers(video.open(target)) == list(range(12))


@pytest.mark.parametrize("target", ["out.mp4", "out"])
def test_failure_midway_leaves_nothing(tmp_path: Path, target: str) -> None:
    seen = []

    def fail(frame: Tensor) -> Tensor:
        seen.append(frame)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return frame

    with pytest.raises(KeyboardInterrupt):
        video.convert(encode(tmp_path / "clip.mp4"), tmp_path / target, fail, progress=False)
    assert left(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("target", ["out.mp4", "out"])
def test_truncated_source_leaves_nothing(tmp_path: Path, target: str) -> None:
    path = encode(tmp_path / "clip.mp4", 60, container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    with pytest.raises(VideoError, match="truncated"):
        video.convert(path, tmp_path / target, same, progress=False)
    assert left(tmp_path) == ["clip.mp4"]


KILLED = """
import sys
from shortcutv2v import video
def step(frame):
    print("frame", flush=True)
    if step.count == 20:
        sys.stdin.read()
    step.count += 1
    return frame
step.count = 0
video.convert(sys.argv[1], sys.argv[2], step, preset="ultrafast", progress=False)
"""


@pytest.mark.parametrize("target", ["out.mp4", "out"])
def test_killed_run_leaves_no_half_file_under_the_name(tmp_path: Path, target: str) -> None:
    source = encode(tmp_path / "clip.mp4", 40)
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        for _ in range(21):
            run.stdout.readline()
        time.sleep(0.05)
        part = [name for name in left(tmp_path) if name.startswith(f".{target}.")]
        run.send_signal(signal.SIGKILL)
    assert len(part) == 1  # it was writing
    assert not (tmp_path / target).exists()


def test_same_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4")
    (tmp_path / "link.mp4").symlink_to(path)
    data = path.read_bytes()
    for target in (path, tmp_path / "link.mp4"):
        with pytest.raises(VideoError, match="source and target are the same"):
            video.convert(path, target, same, progress=False)
    assert path.read_bytes() == data


def test_same_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames")
    with pytest.raises(VideoError, match="source and target are the same"):
        video.convert(path, path, same, progress=False)


@pytest.mark.parametrize(("target", "words"), [
    ("out.avi", "cannot write .avi"),
    ("out.webm", "cannot write .webm"),
    ("out.png", "give a folder"),
    ("no/such/out.mp4", "does not exist"),
    ("no/such/out", "does not exist"),
    ("clip.mp4/out.mp4", "does not exist"),
    ("full", "not empty"),
    ("full/thesis", "is a file already"),
])  # fmt: skip
def test_target_that_cannot_be(tmp_path: Path, target: str, words: str) -> None:
    path = encode(tmp_path / "clip.mp4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").write_text("mine")

    def never(frame: Tensor) -> Tensor:
        raise AssertionError("the target is checked before any work is done")

    with pytest.raises(VideoError, match=words) as info:
        video.convert(path, tmp_path / target, never, progress=False)
    assert str(tmp_path / target) in str(info.value)
    assert left(tmp_path) == ["clip.mp4", "full"]
    assert left(tmp_path / "full") == ["thesis"]


def test_no_write_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, since tests may run as a user to whom nothing is forbidden."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    source = encode(tmp_path / "clip.mp4")
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    for target in ("out.mp4", "out"):
        with pytest.raises(VideoError, match=r"cannot be written .Permission denied."):
            video.convert(source, tmp_path / target, same, progress=False)


def _write_all(out: video.Writer, frames: list[Tensor], at: list[Fraction | None]) -> None:
    with out:
        for frame, moment in zip(frames, at, strict=True):
            out.write(frame, moment)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = video.create(tmp_path / "out.mp4", preset="ultrafast")
    out._part.path.unlink()
    out._part.path.symlink_to("/dev/full")
    noise = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(30)]
    with pytest.raises(VideoError, match="cannot be written"):
        _write_all(out, noise, [None] * 30)
    assert left(tmp_path) == []


@pytest.mark.parametrize(("result", "words"), [
    (None, "NoneType"),
    (torch.zeros(3, 8, 8), "torch.float32"),
    (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"\(1, 3, 8, 8\)"),
    (torch.zeros(4, 8, 8, dtype=torch.uint8), r"\(4, 8, 8\)"),
])  # fmt: skip
def test_step_that_returns_no_picture(tmp_path: Path, result: Tensor, words: str) -> None:
    with pytest.raises(VideoError, match=f"frame 0 to be written is .*{words}.*expected"):
        video.convert(encode(tmp_path / "clip.mp4"), tmp_path / "out.mp4", lambda frame: result, progress=False)
    assert left(tmp_path) == ["clip.mp4"]


def test_step_that_changes_its_size(tmp_path: Path) -> None:
    sizes = iter([8, 8, 8, 10])
    with pytest.raises(VideoError, match=r"frame 3 to be written is 10x64 .*frame 0 was 8x64"):
        video.convert(
            encode(tmp_path / "clip.mp4"), tmp_path / "out.mp4", lambda frame: frame[:, : next(sizes)], progress=False
        )


def test_create_counts_time_by_rate(tmp_path: Path) -> None:
    with video.create(tmp_path / "out.mp4", rate=Fraction(24000, 1001)) as out:
        for number in range(6):
            out.write(numbered(number))
        assert out.count == 6
        assert not (tmp_path / "out.mp4").exists()
    clip = video.open(tmp_path / "out.mp4")
    assert clip.rate == Fraction(24000, 1001)
    assert [t for t, _ in clip.timed()] == [Fraction(1001 * i, 24000) for i in range(6)]


def test_create_refuses_times_that_do_not_rise(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="not above the one before"):
        _write_all(video.create(tmp_path / "out.mp4"), [numbered(0), numbered(1)], [Fraction(1), Fraction(1)])
    assert left(tmp_path) == []


@pytest.mark.parametrize("target", ["out.mp4", "out"])
def test_nothing_written_is_an_error(tmp_path: Path, target: str) -> None:
    with pytest.raises(VideoError, match="no frame was written"), video.create(tmp_path / target):
        pass
    assert left(tmp_path) == []


@pytest.mark.parametrize("target", ["out.mp4", "out"])
def test_closed_by_hand_and_by_the_block(tmp_path: Path, target: str) -> None:
    with video.create(tmp_path / target) as out:
        out.write(numbered(5))
        out.close()
        with pytest.raises(VideoError, match="frame 1 comes too late"):
            out.write(numbered(6))
    assert left(tmp_path) == [target]
    assert numbers(video.open(tmp_path / target)) == [5]


def test_given_up_by_hand(tmp_path: Path) -> None:
    with video.create(tmp_path / "out.mp4") as out:
        out.write(numbered(0))
        out.discard()
    assert left(tmp_path) == []


@pytest.mark.parametrize(("target", "options", "words"), [
    ("out", {"image": ".gif"}, r"image='\.gif'"),
    ("out.mp4", {"crf": -1}, "crf=-1"),
    ("out.mp4", {"crf": 52}, "crf=52"),
    ("out.mp4", {"crf": float("nan")}, "crf=nan"),
    ("out.mp4", {"preset": "quick"}, "preset='quick'.*veryslow"),
    ("out.mp4", {"rate": 0}, "rate=0 is no frame rate"),
    ("out", {"rate": -25}, "rate=-25 is no frame rate"),
    ("out.mp4", {"rate": float("inf")}, "rate=inf is no frame rate"),
])  # fmt: skip
def test_options_out_of_range(tmp_path: Path, target: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(VideoError, match=words):
        video.create(tmp_path / target, **options)
    assert left(tmp_path) == []


def test_bar_knows_its_total(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.convert(encode(tmp_path / "clip.mp4"), tmp_path / "out.mp4", same)
    assert "12/12" in capsys.readouterr().err
    video.convert(tmp_path / "clip.mp4", tmp_path / "out.mp4", same, progress=False)
    assert capsys.readouterr().err == ""


def test_anamorphic_video_keeps_its_shape(tmp_path: Path) -> None:
    how = (Fraction(25), Fraction(1, 25), 16, "medium", ".png")
    writer = writer_for(tmp_path / "clip.mp4", *how, pixel_aspect=Fraction(4, 3))
    _write_all(writer, [numbered(0), numbered(1)], [None, None])
    video.convert(tmp_path / "clip.mp4", tmp_path / "out.mp4", same, size=16, progress=False)
    clip = video.open(tmp_path / "out.mp4")
    assert (clip.size, clip.pixel_aspect) == ((16, 32), Fraction(4, 3))
    assert video.open(tmp_path / "out.mp4", size=(32, 32)).pixel_aspect == 1
