"""Clocks that jump, wrap, begin late or are missing, and files with more than one picture: FFmpeg is the yardstick."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from synthetic import encode, number_of, numbered, numbers, packets, times
from torch import Tensor

from shortcutv2v import video

pytestmark = pytest.mark.filterwarnings("ignore:.*does not say how long it is", "ignore:.*damaged pieces of sound")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="compares with the ffmpeg program")


def same(frame: Tensor) -> Tensor:
    return frame


def converted(path: Path, suffix: str = ".mp4", **options: Any) -> tuple[list[int], list[Fraction]]:
    """Numbers and times of the frames that `convert` writes."""
    target = path.parent / f"converted{suffix}"
    video.convert(path, target, same, progress=False, **options)
    return numbers(video.open(target)), times(target)


def even(count: int, rate: int = 25) -> list[Fraction]:
    return [Fraction(i, rate) for i in range(count)]


def spans(path: Path) -> tuple[float, float]:
    """First and last time of a sound packet."""
    (sound,) = packets(path)
    return float(sound[0][0]), float(sound[-1][0])


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


DROPPED = [0, 1, 2, 3, 4, 5, 14, 15, 16, 17, 40, 41]


@pytest.mark.parametrize(("codec", "options"), [
    ("mpeg4", {"bf": "0"}),
    ("mpeg4", {"bf": "2"}),
    ("libx264", {"g": "6", "bf": "2"}),
    ("libx264", {"g": "6", "bf": "0"}),
    ("mjpeg", {}),
    ("msmpeg4v2", {}),
    ("ffv1", {}),
])  # fmt: skip
def test_frames_dropped_from_an_avi_leave_their_time(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = encode(tmp_path / "clip.avi", ticks=DROPPED, codec=codec, options=options, pixels=pixels)
    found, at = converted(path)
    assert found == list(range(12))
    # With B-frames, an AVI does not hold the time of the last frames.
    whole = 12 if options.get("bf", "0") == "0" else 9
    assert at[:whole] == [Fraction(tick, 25) for tick in DROPPED[:whole]]
    assert all(a < b for a, b in itertools.pairwise(at))


@pytest.mark.parametrize("sound", [[], ["mp2"]])
@pytest.mark.parametrize(
    "ticks", [range(12), range(5, 17), range(25_000, 25_012)]
)  # anew, back, by a quarter of an hour
def test_a_clock_that_jumps_goes_on(tmp_path: Path, sound: list[str], ticks: range) -> None:
    first = encode(tmp_path / "a.ts", options={"g": "12", "bf": "0"}, sound=sound)
    second = encode(tmp_path / "b.ts", ticks=ticks, options={"g": "12", "bf": "0"}, sound=sound)
    path = joined(tmp_path / "both.ts", first, second)
    found, at = converted(path)
    assert found == [*range(12)] * 2
    steps = {round((b - a) * 25, 2) for a, b in itertools.pairwise(at)}
    assert steps == {1}
    if sound:
        begin, end = spans(tmp_path / "converted.mp4")
        assert abs((end - begin) - float(at[-1] - at[0])) < 0.15


def test_random_access_in_a_joined_recording(tmp_path: Path) -> None:
    parts = [encode(tmp_path / name, ticks=ticks) for name, ticks in (("a.ts", range(12)), ("b.ts", range(5, 17)))]
    path = joined(tmp_path / "both.ts", *parts)
    frames = video.Frames(path)
    assert [number_of(frames[i]) for i in (23, 0, 12, 11, 14)] == [11, 0, 0, 11, 2]
    assert numbers(frames) == [*range(12)] * 2


@pytest.mark.parametrize("name", ["late.ts", "late.mkv", "late.mp4", "late.mpg"])
@pytest.mark.parametrize("sound", [[], ["mp2"]])
def test_a_clock_that_begins_late_begins_at_0(tmp_path: Path, name: str, sound: list[str]) -> None:
    codec = {"codec": "mpeg2video"} if name.endswith("mpg") else {}
    path = encode(tmp_path / name, ticks=range(500_000, 500_012), sound=sound, **codec)
    for audio in (True, False):
        found, at = converted(path, audio=audio)
        assert found == list(range(12))
        assert at[0] < Fraction(1, 10)
        assert all(abs(b - a - Fraction(1, 25)) < Fraction(1, 1000) for a, b in itertools.pairwise(at))


@pytest.mark.parametrize("begin", [95443.4, 95443.0, 95300.0])  # the clock counts to 95443.7 s
@pytest.mark.parametrize("sound", [[], ["mp2"]])
def test_a_clock_of_33_bits_wraps_unseen(tmp_path: Path, begin: float, sound: list[str]) -> None:
    path = encode(tmp_path / "wrap.ts", 60, container={"output_ts_offset": str(begin - 1.4)}, sound=sound)
    found, at = converted(path)
    assert found == list(range(60))
    assert all(abs((b - a) - Fraction(1, 25)) < Fraction(1, 1000) for a, b in itertools.pairwise(at))
    assert at[0] < Fraction(1, 10)


@pytest.mark.parametrize(("name", "codec"), [
    ("raw.h264", "libx264"), ("raw.hevc", "libx265"), ("raw.m2v", "mpeg2video"), ("raw.m4v", "mpeg4"),
])  # fmt: skip
@pytest.mark.parametrize("rate", [24, 50, 60])
def test_a_raw_stream_has_the_rate_of_its_codec(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"g": "6"}
    path = encode(tmp_path / name, 24, rate=rate, codec=codec, options=options)
    found, at = converted(path)
    assert found == list(range(24))
    assert [round(moment * rate) for moment in at] == list(range(24))
    assert video.open(path).rate == rate


def two_pictures(path: Path, sizes: list[tuple[int, int]], default: int) -> Path:
    """Several picture tracks; each frame says the number of its track."""
    with av.open(str(path), "w") as out:
        streams = []
        for place, size in enumerate(sizes):
            stream: Any = out.add_stream("libx264", rate=25)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            stream.disposition = 1 if place == default else 0
            streams.append(stream)
        for tick in range(12):
            for place, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
                picture = numbered(place, *size).permute(1, 2, 0).numpy().copy()
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = tick, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("sizes", "default", "chosen"), [
    ([(16, 32), (64, 128)], 1, 1),  # a preview in front of the film
    ([(64, 128), (16, 32)], 0, 0),
    ([(16, 32), (64, 128)], 0, 0),  # the default one, however small: FFmpeg's rule
    ([(32, 64), (32, 64)], 1, 1),
    ([(32, 64), (64, 128), (16, 32)], -1, 1),
])  # fmt: skip
def test_of_several_pictures_the_one_that_ffmpeg_takes(
    tmp_path: Path, sizes: list[tuple[int, int]], default: int, chosen: int
) -> None:
    path = two_pictures(tmp_path / "two.mkv", sizes, default)
    assert video.open(path).size == sizes[chosen]
    assert set(numbers(video.open(path))) == {chosen}
    assert len(video.Frames(path)) == 12
    with pytest.warns(UserWarning, match=r"not kept: other picture tracks \(\d\)"):
        assert len(converted(path)[0]) == 12


@pytest.mark.parametrize(
    "pixels", ["rgb555le", "rgb565le", "bgr555le", "bgr8", "rgb24", "gray", "gray16le", "gbrp10le"]
)
def test_few_bits_and_many_are_as_bright_as_ffmpeg_makes_them(tmp_path: Path, pixels: str) -> None:
    """White is white, and every level is FFmpeg's own."""
    from shortcutv2v.video.picture import ToTensor

    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, 2).repeat(16, 0)
    stored = av.VideoFrame.from_ndarray(ramp, format="rgb24").reformat(format=pixels)
    found = ToTensor()(stored)
    expected = torch.from_numpy(stored.reformat(format="rgb24").to_ndarray()).permute(2, 0, 1)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert found[:, :, -1].min() >= (252 if pixels == "bgr8" else 254)


def program(path: Path, *options: str) -> bytes:
    return subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-an", *options, "-"], capture_output=True, check=False
    ).stdout


MADE = {
    "drop.avi": "-vf select='not(between(n\\,20\\,27))' -fps_mode vfr -c:v mpeg4 -bf 0",
    "drop_b.avi": "-vf select='mod(n\\,3)' -fps_mode vfr -c:v mpeg4 -bf 2",
    "plain.ts": "-c:v libx264",
    "wrapped.ts": "-c:v libx264 -output_ts_offset 95442",
    "late.mkv": "-c:v libx264 -output_ts_offset 20000",
    "raw50.h264": "-r 50 -c:v libx264",
    "repeats.ogv": "-c:v libtheora",
    "clip.wmv": "-c:v wmv2",
    "ntsc.mov": "-r 30000/1001 -c:v prores_ks",
    "vfr.webm": "-vf select='mod(n\\,4)' -fps_mode vfr -c:v libvpx-vp9",
    "anim.gif": "-r 10",
    "program.mpg": "-c:v mpeg2video",
}


@needs_ffmpeg
@pytest.mark.parametrize("name", MADE)
def test_frame_by_frame_as_ffmpeg(tmp_path: Path, name: str) -> None:
    """Count, times (to half a frame) and pictures are those of FFmpeg's program."""
    path = tmp_path / name
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2"]
    made = subprocess.run(["ffmpeg", "-v", "error", *source, *MADE[name].split(), str(path)], check=False)
    if made.returncode:
        pytest.skip("this ffmpeg has not the encoder")
    lines = program(path, "-fps_mode", "passthrough", "-f", "framecrc").decode().splitlines()
    base = next(Fraction(line.split()[-1]) for line in lines if line.startswith("#tb 0"))
    expected = [int(line.split(",")[2]) * base for line in lines if not line.startswith("#")]
    pixels = np.frombuffer(program(path, "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"), np.uint8)
    target = tmp_path / "out.mp4"
    video.convert(path, target, same, progress=False)
    at = times(target)
    offset = expected[0] - at[0]  # of an AVI with B-frames, FFmpeg counts the decoder's delay as time
    assert len(at) == len(expected)
    assert abs(offset) <= Fraction(2, 25)
    assert max(abs(b - a - offset) for a, b in zip(at, expected, strict=True)) <= Fraction(1, 50)
    frames = torch.stack(list(video.open(path))).permute(0, 2, 3, 1).float()
    theirs = torch.from_numpy(pixels.copy()).view(frames.shape).float()
    assert (frames - theirs).abs().mean(dim=(1, 2, 3)).max() < 12  # they scale colours by other filters


def test_frames_that_an_edit_list_hides(tmp_path: Path) -> None:
    """A film cut without encoding it anew begins before its first shown frame, in the middle of a group."""
    path = encode(tmp_path / "cut.mp4", 20, ticks=range(-5, 15), options={"g": "12", "bf": "2"})
    with av.open(str(path)) as file:
        if not hasattr(file.streams.video[0], "index_entries"):
            pytest.skip("this PyAV does not tell which frames an edit list hides")
    shown = list(range(5, 20))
    assert numbers(video.open(path)) == shown
    frames = video.Frames(path)
    assert [number_of(frames[i]) for i in (14, 0, 7, 3)] == [19, 5, 12, 8]
    assert converted(path) == (shown, even(15))


def test_pictures_without_a_mark_of_key_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "film.swf", codec="flv1", options={})
    assert numbers(video.open(path)) == list(range(12))
    frames = video.Frames(path, cache_bytes=1)
    assert [number_of(frames[i]) for i in (11, 0, 7, 3)] == [11, 0, 7, 3]  # a format that cannot be sought
    assert converted(path)[0] == list(range(12))


def test_a_recording_that_began_midway_says_what_it_skips(tmp_path: Path) -> None:
    path = encode(tmp_path / "whole.ts", 24, options={"g": "8", "bf": "0"})
    target = tmp_path / "late.ts"
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= 3:
                packet.stream = copy
                out.mux(packet)
    with pytest.warns(UserWarning, match=r"pictures before the first key frame \(5\)"):
        assert converted(target)[0] == list(range(8, 24))
