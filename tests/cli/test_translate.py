"""`translate` as a process: signals, streams that nobody reads, and what it prints at the end."""

from __future__ import annotations

import functools
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from shortcutv2v import bar, video
from shortcutv2v.cli import main

FRAMES = 20
ADAPTER = """
import time
import torch
from shortcutv2v import Adapter

class Slow(torch.nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x

def build_adapter(seconds: float = 0.0, middle: float = 0.0) -> Adapter:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Sequential(Slow(middle), torch.nn.Conv2d(3, 3, 1)),
                              Slow(seconds), torch.nn.Conv2d(3, 3, 1), torch.nn.Sigmoid())
    adapter = Adapter(net.eval(), "0", "1")
    return adapter
"""


def command(adapter: str, clip: Path, target: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "shortcutv2v", "translate", str(clip), str(target), "--adapter", adapter, *options]


@pytest.mark.parametrize(("stream", "how"), [("2", "full"), ("2", "closed"), ("2", "no reader"), ("1", "full")])
def test_a_stream_that_nobody_reads_does_not_matter(
    adapter: str, clip: Path, tmp_path: Path, stream: str, how: str
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a disk without room")
    to = {"full": f"{stream}>/dev/full", "closed": f"{stream}>&-", "no reader": f"{stream}> >(head -c 5 >/dev/null)"}
    line = " ".join(f"'{part}'" for part in command(adapter, clip, tmp_path / "out.mp4")) + f" {to[how]}"
    assert subprocess.run(["bash", "-c", line], check=False, timeout=120).returncode == 0
    assert len(list(video.open(tmp_path / "out.mp4"))) == 20
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(("number", "code", "name"), [
    (signal.SIGTERM, 143, "out.mp4"), (signal.SIGTERM, 143, "out"), (signal.SIGINT, 130, "out.mp4"),
    (signal.SIGHUP, 129, "out"),
])  # fmt: skip
def test_signals_clean_up_and_say_so(
    adapter: str, clip: Path, tmp_path: Path, number: signal.Signals, code: int, name: str
) -> None:
    line = command(adapter, clip, tmp_path / name, "--set", "seconds=0.5")
    # A shell in the background, or nohup, has the signal ignored in all that it starts.
    default = functools.partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, preexec_fn=default) as run:  # noqa: PLW1509
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f".{name}.*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert run.returncode == code
    assert re.search(rf"shortcutv2v: stopped after \d+ frames; .*{name} was not written\n$", said)
    assert not list(tmp_path.glob(".*.part"))
    assert not (tmp_path / name).exists()


def test_the_end_says_how_fast(adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The middle takes 200 ms and everything else little, so that shortcut frames show in the figures."""
    options = ["--adapter", adapter, "--set", "middle=0.2"]
    train = ["--steps", "1", "--minutes", "1", "--crop", "16", "--batch-size", "1", "--workers", "0"]
    assert main(["train", str(clip), *options, *train, "--out", str(tmp_path / "block")]) == 0
    capsys.readouterr()
    block = ["--block", str(tmp_path / "block"), "--interval", "3"]
    assert main(["translate", str(clip), str(tmp_path / "out.mp4"), *options, *block]) == 0
    out = capsys.readouterr().out
    pattern = (
        r"out\.mp4: 20 frames: 15 shortcut, 5 full \(first 1, distance 4\); (\d+) ms a frame, p99 (\d+) ms; "
        r"([\d.]+)x as fast as the teacher; ([\d.]+) s \(([\d.]+) fps\)\n"
    )
    short, slowest, speed, seconds, rate = map(float, re.search(pattern, out).groups())
    assert rate == pytest.approx(20 / seconds, rel=0.2)
    assert slowest >= 200 > short
    assert 1.3 < speed < 5
    assert main(["translate", str(clip), str(tmp_path / "both.mp4"), *options, *block, "--both"]) == 0
    assert "both.mp4: 20 frames: 15 shortcut, 5 full (first 1, distance 4)" in capsys.readouterr().out
    assert (tmp_path / "both.mp4").read_bytes() != (tmp_path / "out.mp4").read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--quality", "good"], "quality='good': expected a PSNR in dB such as 40"),
        (["--speed", "0.5"], "speed must be a number above 1"),
        (["--speed", "2", "--quality", "40"], "give one of --quality, --speed"),
        (["--quality", "40", "--interval", "2"], "give one of --interval, --quality"),
        (["--both"], "--both goes with --interval"),
        (["--both", "--interval", "2", "--no-lookahead"], "without --live, --windows and --no-lookahead"),
    ],
)
def test_goals_that_are_refused(
    adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    block = tmp_path / "block"
    train = ["--steps", "1", "--minutes", "1", "--crop", "16", "--batch-size", "1", "--out", str(block)]
    assert main(["train", str(clip), "--adapter", adapter, *train]) == 0
    arguments = ["translate", str(clip), str(tmp_path / "out.mp4"), "--adapter", adapter, "--block", str(block), *given]
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert main(["translate", str(clip), str(tmp_path / "out.mp4"), "--adapter", adapter, *given]) == 2
    assert not (tmp_path / "out.mp4").exists()


def test_a_quality_is_held_and_lossless_is_the_teacher(
    adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = tmp_path / "block"
    train = ["--steps", "1", "--minutes", "1", "--crop", "16", "--batch-size", "1", "--out", str(block)]
    assert main(["train", str(clip), "--adapter", adapter, *train]) == 0
    files = {name: tmp_path / f"{name}.mp4" for name in ("teacher", "lossless", "quality")}
    common = ["--adapter", adapter, "--crf", "0"]
    assert main(["translate", str(clip), str(files["teacher"]), *common]) == 0
    for name, value in (("lossless", "lossless"), ("quality", "30dB@90%")):
        goal = ["--block", str(block), "--quality", value]
        assert main(["translate", str(clip), str(files[name]), *common, *goal]) == 0
    frames = {name: video.Frames(file) for name, file in files.items()}
    assert all(torch.equal(frames["lossless"][i], frames["teacher"][i]) for i in range(20))
    assert re.search(r"quality\.mp4: 20 frames: \d+ shortcut, .*audit 1.*; estimated .* dB", capsys.readouterr().out)


def test_without_a_block_there_is_nothing_to_compare(
    adapter: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translate", str(clip), str(tmp_path / "out.mp4"), "--adapter", adapter]) == 0
    assert re.search(r"out\.mp4: 20 frames in [\d.]+ s \([\d.]+ fps\)\n$", capsys.readouterr().out)


def test_part_of_a_clip_and_no_sound(adapter: str, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    assert main(["translate", str(clip), str(target), "--adapter", adapter, "--frames", "5:12", "--no-audio"]) == 0
    assert len(list(video.open(target))) == 7


class Broken:
    """A stream whose every use fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, text: str = "") -> int:
        raise self._error

    flush = isatty = fileno = write


@pytest.mark.parametrize("error", [OSError(28, "full"), BrokenPipeError(), ValueError("closed file")])
def test_a_bar_never_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Broken(error))
    with bar.bar(total=3, desc="x" * 300, mininterval=0) as shown:
        for _ in range(3):
            shown.update()
    monkeypatch.setattr(sys, "stdout", Broken(error))
    bar.say("lost")


def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    with bar.bar(total=3) as shown:
        shown.update()
    bar.say("lost")


def test_a_line_that_the_terminal_cannot_spell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "ascii").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        bar.say("é\udcff")
        monkeypatch.undo()
    assert (tmp_path / "ascii").read_text() == "\\xe9\\udcff\n"


def test_windows_work_without_a_block(adapter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = torch.randint(0, 256, (3, 96, 160), dtype=torch.uint8)
    with video.create(tmp_path / "still.mp4", rate=Fraction(25)) as writer:
        for _ in range(6):
            writer.write(frame)
    arguments = [str(tmp_path / "still.mp4"), str(tmp_path / "out.mp4"), "--adapter", adapter]
    slow = ["--set", "middle=0.1"]  # so that looking for windows takes less time than the teacher
    assert main(["translate", *arguments, *slow, "--windows", "--quality", "35"]) == 0
    assert re.search(r"5 shortcut, 1 full \(first 1\); .*windows: 9\d% kept", capsys.readouterr().out)
    assert main(["translate", *arguments, "--windows", "--quality", "lossless"]) == 2
    assert "give a PSNR in dB" in capsys.readouterr().err
    assert main(["translate", *arguments, "--windows", "--speed", "2"]) == 2
    assert "--speed needs --block" in capsys.readouterr().err
