"""Targets of every kind: long names, links, folders that cannot be replaced, pipes, and two runs at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from synthetic import encode, folder, numbered, numbers
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import VideoError


def same(frame: Tensor) -> Tensor:
    return frame


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def write(target: Path, count: int = 2) -> None:
    with video.create(target) as out:
        for number in range(count):
            out.write(numbered(number))


ODD = [
    "x" * 251 + ".mp4",
    "é" * 125 + ".mp4",
    "漢" * 83 + ".mkv",
    "y" * 255,
    "a b\nc.mp4",
    "100%d:[*]?'\".mp4",
    "-o.mp4",
    "file:x.mp4",
    ".hidden.mp4",
    "frames²",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    assert left(tmp_path) == [name]
    assert numbers(video.open(tmp_path / name)) == [0, 1]
    video.convert(tmp_path / name, tmp_path / "copy.mp4", same, progress=False)


def test_odd_names_of_frames(tmp_path: Path) -> None:
    path = folder(tmp_path / "frames", 3)
    for old, new in (("frame0", "²1"), ("frame1", "x³"), ("frame2", "y" * 251)):
        (path / f"{old}.png").rename(path / f"{new}.png")
    video.convert(path, tmp_path / "out", same, progress=False)
    assert left(tmp_path / "out") == left(path)


@pytest.mark.parametrize("name", ["x" * 252 + ".mp4", "z" * 256, "a\0b.mp4", "a\0b"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(VideoError, match="cannot be written") as info:
        video.create(tmp_path / name)
    assert "\0" not in str(info.value)
    with pytest.raises(VideoError):
        video.open(tmp_path / name)
    with pytest.raises(VideoError):
        video.convert(encode(tmp_path / "clip.mp4", 2), tmp_path / name, same, progress=False)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real.mp4").write_bytes(b"old")
    for name, to in (("out.mp4", "disk/real.mp4"), ("new.mp4", "disk/absent.mp4"), ("dir", "disk/frames")):
        (tmp_path / name).symlink_to(to)
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert numbers(video.open(tmp_path / to)) == [0, 1]
    assert left(tmp_path / "disk") == ["absent.mp4", "frames", "real.mp4"]


def test_a_link_to_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link")
    assert left(tmp_path / "real") == ["000000.png", "000001.png"]
    assert (tmp_path / "link").is_symlink()


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path())
    assert left(tmp_path / "here") == ["000000.png", "000001.png"]


def test_a_mount_point(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path / "disk")], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("may not mount here")
    try:
        (tmp_path / "disk" / "lost+found").mkdir()
        write(tmp_path / "disk")
        assert left(tmp_path / "disk") == ["000000.png", "000001.png", "lost+found"]
    finally:
        subprocess.run(["umount", str(tmp_path / "disk")], check=False)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", ".nfs123"])
def test_files_of_the_system_do_not_fill_a_folder(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / name).write_bytes(b"x")
    with video.create(target) as out:
        out.write(numbered(0))
        (target / "midway.DS_Store").write_bytes(b"x")
    assert left(target) == sorted([name, "000000.png", "midway.DS_Store"])


@pytest.mark.parametrize("exists", [True, False])
def test_a_result_that_cannot_get_its_name_is_kept(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    out = video.create(target)
    for number in range(2):
        out.write(numbered(number))
    target.mkdir(exist_ok=True)
    (target / "000001.png").write_bytes(b"of another program")
    with pytest.raises(VideoError, match=r"complete, but it cannot get this name .* it is kept as (.*)") as info:
        out.close()
    kept = Path(str(info.value).split("kept as ")[1])
    assert numbers(video.open(kept)) == [0, 1]
    assert (target / "000001.png").read_bytes() == b"of another program"
    assert not [name for name in left(tmp_path) + left(target) if name.endswith(".part")]


def test_a_video_that_cannot_get_its_name_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError(16, "Device or resource busy")

    (tmp_path / "out.mp4").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(VideoError, match="resource busy.*kept as"):
        write(tmp_path / "out.mp4")
    assert left(tmp_path) == ["out-1.mp4", "out.mp4"]
    assert numbers(video.open(tmp_path / "out-1.mp4")) == [0, 1]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_frames_move_into_a_folder_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target, rename = tmp_path / "out", Path.rename
    target.mkdir()

    def stop(self: Path, to: Path) -> Path:
        if self.name == "000002.png" and to.parent == target:
            raise error
        return rename(self, to)

    out = video.create(target)
    for number in range(4):
        out.write(numbered(number))
    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises((VideoError, KeyboardInterrupt)):
        out.close()
    kept = target / "out-1"
    assert left(target) == ([] if isinstance(error, KeyboardInterrupt) else ["out-1"])
    assert not kept.exists() or numbers(video.open(kept)) == [0, 1, 2, 3]


@pytest.mark.parametrize("target", ["out.mp4", "out", "empty"])
def test_a_second_run_to_one_target_is_refused_at_its_start(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    with video.create(tmp_path / target) as out:
        out.write(numbered(0))
        with pytest.raises(VideoError, match="another run is writing this target"):
            video.create(tmp_path / target)
        (tmp_path / "link.mp4").symlink_to(tmp_path / "out.mp4")
        if target == "out.mp4":
            with pytest.raises(VideoError, match="another run is writing this target"):
                video.create(tmp_path / "link.mp4")
        out.write(numbered(1))
    assert numbers(video.open(tmp_path / target)) == [0, 1]


KILLED = """
import sys, torch
from shortcutv2v import video
out = video.create(sys.argv[1])
for i in range(3): out.write(torch.zeros(3, 32, 64, dtype=torch.uint8))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("target", ["out.mp4", "out", "empty"])
def test_what_a_killed_run_leaves_is_no_lock_and_goes_with_the_next(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-c", KILLED, str(tmp_path / target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        with pytest.raises(VideoError, match="another run"):
            video.create(tmp_path / target)
        run.kill()
    write(tmp_path / target, 1)
    assert numbers(video.open(tmp_path / target)) == [0]
    assert left(tmp_path) == sorted({"empty", target})
    assert left(tmp_path / target if target == "empty" else tmp_path / "empty") == (
        ["000000.png"] * (target == "empty")
    )


@pytest.mark.parametrize("target", ["/dev/null", "/dev/zero", "fifo", "fifo.mp4"])
def test_devices_and_pipes_are_no_targets(tmp_path: Path, target: str) -> None:
    for name in ("fifo", "fifo.mp4"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(VideoError, match="is a file already|is not a file"):
        video.create(tmp_path / target)
    assert Path("/dev/null").is_char_device()


@pytest.mark.filterwarnings("ignore:.*does not say how long it is")
@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.mp4"])
def test_a_named_pipe_is_read(tmp_path: Path, name: str) -> None:
    """An mp4's table of contents stands at its end, where a pipe cannot be sought."""
    path = encode(tmp_path / name, sound=["aac"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def pour() -> None:
        with pipe.open("wb") as out:
            data = path.read_bytes()
            out.write(data[:100])
            out.flush()
            time.sleep(0.3)
            out.write(data[100:])

    writer = threading.Thread(target=pour)
    writer.start()
    with video.open(pipe) as clip:
        video.convert(clip, tmp_path / "out.mkv", same, progress=False)
        assert numbers(clip) == list(range(12))
    writer.join()
    assert numbers(video.open(tmp_path / "out.mkv")) == list(range(12))


def test_a_pipe_that_nobody_writes_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("shortcutv2v.video._pipe._PATIENCE", 0.2)
    with pytest.raises(VideoError, match="nobody writes into this pipe"):
        video.open(tmp_path / "pipe")
    with pytest.raises(VideoError, match="pipe"):
        video.Frames(tmp_path / "pipe")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_devices_are_no_sources(path: str) -> None:
    with pytest.raises(VideoError, match="neither a file nor a folder nor a pipe"):
        video.open(path)


TEXT = {
    "notes.txt": "hello world\n" * 50,
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nclip.ts\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile clip.ts\n",
    "film.srt": "1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    "page.html": "<html><body>x</body></html>",
    "art.ans": "\x1b[31mred\x1b[0m" * 40,
    "media.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 1234 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("renamed", [None, "clip.mp4"])
def test_text_and_playlists_are_no_videos(tmp_path: Path, name: str, renamed: str | None) -> None:
    encode(tmp_path / "clip.ts", 3)
    path = tmp_path / (renamed or name)
    path.write_text(TEXT[name])
    with pytest.raises(VideoError, match="not a readable video"):
        video.open(path)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4", "a.mov", "a.wmv"])
def test_a_title_that_is_not_utf8(tmp_path: Path, name: str) -> None:
    import av

    codec = "wmv2" if name.endswith("wmv") else "mpeg4"
    path = encode(tmp_path / name, codec=codec, options={}, container={"brand": "mp42"} if name == "a.mp4" else {})
    with av.open(str(path)) as source, av.open(str(tmp_path / f"t{name}"), "w") as out:
        out.metadata["title"] = "XXXXCafe"
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    data = (tmp_path / f"t{name}").read_bytes()
    old, new = b"XXXXCafe", b"XXXXCaf\xe9"
    if name.endswith("wmv"):
        old, new = "XXXXCafe".encode("utf-16-le"), b"X\0X\0X\0X\0C\0a\0f\0\x00\xd8"
    assert old in data
    (tmp_path / f"t{name}").write_bytes(data.replace(old, new))
    video.convert(tmp_path / f"t{name}", tmp_path / "out.mp4", same, progress=False)
    assert len(video.Frames(tmp_path / f"t{name}")) == 12


def test_an_animated_webp_is_unsupported_not_damaged(tmp_path: Path) -> None:
    data = b"RIFF\x5a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x3f\0\0\x1f\0\0ANIM\x06\0\0\0\0\0\0\0\0\0"
    (tmp_path / "a.webp").write_bytes(data + bytes(40))
    with pytest.raises(VideoError, match="animated WebP, which FFmpeg does not decode; convert it"):
        video.open(tmp_path / "a.webp")
    path = folder(tmp_path / "frames", 2)
    (path / "frame1.webp").write_bytes(data + bytes(40))
    with pytest.raises(VideoError, match=r"frame1\.webp: animated WebP"):
        list(video.open(path))


def test_a_folder_of_videos_says_so(tmp_path: Path) -> None:
    encode(tmp_path / "b.mp4", 2)
    encode(tmp_path / "a.mkv", 2)
    with pytest.raises(
        VideoError, match=r"a folder of videos, not of frames; give one of its 2 videos, such as .*a\.mkv"
    ):
        video.open(tmp_path)


@pytest.mark.parametrize("size", [99_999_999, (99_999_999, 99_999_999), (200_000, 8192)])
def test_sizes_that_no_machine_holds(tmp_path: Path, size: int | tuple[int, int]) -> None:
    for path in (encode(tmp_path / "clip.mp4", 2), folder(tmp_path / "frames", 2)):
        with pytest.raises(VideoError, match="too large"):
            video.open(path, size=size)


@pytest.mark.parametrize(("size", "multiple", "expected"), [
    (24, 1, (24, 48)), (25, 4, (24, 48)), (27, 8, (24, 56)), (30, 16, (32, 64)), (3, 8, (8, 8)),
    ((20, 36), 8, (20, 36)),
])  # fmt: skip
def test_a_size_that_keeps_the_ratio_rounds_to_a_multiple(
    tmp_path: Path, size: int, multiple: int, expected: tuple[int, int]
) -> None:
    for path in (encode(tmp_path / "clip.mp4", 2), folder(tmp_path / "frames", 2)):
        clip = video.open(path, size=size, multiple=multiple)
        assert clip.size == expected
        assert all(frame.shape[1:] == torch.Size(expected) for frame in clip)
