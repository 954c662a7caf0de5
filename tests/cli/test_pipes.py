"""`translate` in a pipe: ffmpeg before it and after it, pipes that end early, and what is refused at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.video.synthetic import encode, numbered, numbers

from shortcutv2v import video
from shortcutv2v.cli import main
from shortcutv2v.errors import VideoError

HERE = Path(__file__).parent
ADAPTER = """
from torch import nn
from shortcutv2v import Adapter

def build_adapter():
    print("a word of the adapter")
    return Adapter(nn.Identity())
"""
RAW = 3 * 32 * 64


def command(adapter: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "shortcutv2v", "translate", *options, "--adapter", adapter]


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the program ffmpeg")
def test_ffmpeg_through_the_command_and_back(adapter: str, tmp_path: Path) -> None:
    clip = encode(tmp_path / "clip.mp4", 30)
    work = tmp_path / "work"
    work.mkdir()
    script = ["bash", str(HERE / "pipes.sh"), str(clip), adapter, sys.executable]
    done = subprocess.run(script, cwd=work, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + (work / "words.txt").read_text()
    assert done.stdout.split() == ["30", str(30 * RAW)]
    assert numbers(video.open(work / "piped.mkv")) == list(range(30))
    words = (work / "words.txt").read_text()
    assert words.count("a word of the adapter") == 2  # the two piped runs; the others say it on standard output
    assert "standard output: 30 frames in" in words


def raw_frames(count: int) -> bytes:
    return b"".join(numbered(i).permute(1, 2, 0).contiguous().numpy().tobytes() for i in range(count))


@pytest.mark.parametrize("to", ["standard output", "file"])
def test_the_last_frame_of_a_pipe_is_incomplete(adapter: str, tmp_path: Path, to: str) -> None:
    target = "-" if to == "standard output" else str(tmp_path / "out.mp4")
    line = command(adapter, "-", target, "--raw", "64x32@25")
    done = subprocess.run(line, input=raw_frames(5)[:-7], capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "standard input: damaged or truncated near frame 4" in done.stderr.decode()
    assert done.stdout == (raw_frames(4) if target == "-" else b"a word of the adapter\n")
    assert not (tmp_path / "out.mp4").exists()


def test_a_reader_that_ends_early(adapter: str) -> None:
    line = " ".join(f"'{part}'" for part in command(adapter, "-", "-", "--raw", "64x32@25"))
    script = f"set -o pipefail; {line} | head -c 100 > /dev/null"
    done = subprocess.run(["bash", "-c", script], input=raw_frames(200), capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "the program that reads it has ended" in done.stderr.decode()


@pytest.mark.parametrize(
    ("stream", "arguments", "words"),
    [
        ("0<&-", "- out.mp4", "standard input: cannot be read"),
        ("1>&-", "clip.mp4 -", "standard output: cannot be written"),
        ("< /dev/null", "- out.mp4", "not a readable video"),
        ("", "clip.mp4 out.mp4 --raw 64x32@25", "--raw is for pipes"),
        ("< clip.mp4", "- out.mp4 --raw 64@25", "expected WIDTHxHEIGHT@RATE"),
    ],
)
def test_refused_at_once(adapter: str, tmp_path: Path, stream: str, arguments: str, words: str) -> None:
    encode(tmp_path / "clip.mp4", 3)
    line = " ".join(f"'{part}'" for part in command(adapter, *arguments.split()))
    done = subprocess.run(
        ["bash", "-c", f"{line} {stream}"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[Path]:
    """Standard input comes from the file that the test writes to this path."""
    kept, path = os.dup(0), tmp_path / "stdin"
    path.touch()
    handle = os.open(path, os.O_RDONLY)
    os.dup2(handle, 0)
    yield path
    os.dup2(kept, 0)
    os.close(kept)
    os.close(handle)


@pytest.mark.parametrize("suffix", [".mp4", ".y4m", ".nut"])
def test_standard_input_is_read_once(stdin: Path, tmp_path: Path, suffix: str) -> None:
    """A redirected file can be sought, so that an mp4 with its table of contents at the end works, too."""
    codec = "rawvideo" if suffix == ".y4m" else "libx264"
    stdin.write_bytes(encode(tmp_path / f"clip{suffix}", codec=codec).read_bytes())
    clip = video.open(video.StandardInput())
    assert (str(clip.path), clip.size, clip.rate) == ("standard input", (32, 64), 25)
    assert numbers(clip) == list(range(12))
    with pytest.raises(VideoError, match="was read already and comes only once"):
        list(clip)


def test_a_y4m_file_keeps_rate_shape_and_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = encode(tmp_path / "clip.mp4", 6, rate=30)
    video.convert(clip, tmp_path / "out.y4m", lambda frame: frame[:, 1:, :63], progress=False)
    written = video.open(tmp_path / "out.y4m")
    assert (written.size, written.rate) == ((31, 63), 30)
    pairs = zip(written, video.open(clip), strict=True)
    assert all((made.int() - read[:, 1:, :63]).abs().float().mean() < 2 for made, read in pairs)


def test_devices_are_refused(adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "/dev/zero", str(tmp_path / "out.mp4"), "--adapter", adapter]) == 2
    assert "neither a file nor a folder nor a pipe" in capsys.readouterr().err
