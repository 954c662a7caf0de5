"""Live video: drops are counted, nothing piles up, errors come through, and a governor holds a deadline."""

from __future__ import annotations

import gc
import http.server
import re
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.video.synthetic import encode, number_of, numbered, numbers
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.cli import main
from shortcutv2v.cli.live import gears, seconds
from shortcutv2v.errors import InputError, VideoError
from shortcutv2v.live import Governor, Live


def source(count: int, rate: float) -> Iterator[Tensor]:
    begun = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        yield numbered(number % 256)


class Sink:
    """Keeps the numbers of the pictures, and takes its time."""

    def __init__(self, pause: float = 0.0, broken_at: int = -1) -> None:
        self.pause, self.broken_at = pause, broken_at
        self.numbers: list[int] = []
        self.times: list[Fraction] = []

    def write(self, frame: Tensor, at: Fraction) -> None:
        if len(self.numbers) == self.broken_at:
            raise VideoError("the disk is full")
        time.sleep(self.pause)
        self.numbers.append(number_of(frame))
        self.times.append(at)


def pausing(pause: float) -> Any:
    def step(frame: Tensor) -> Tensor:
        time.sleep(pause)
        return frame

    return step


@pytest.mark.parametrize(("step", "sink"), [(0.03, 0.0), (0.0, 0.03)])
def test_every_frame_is_shown_or_counted_as_dropped(step: float, sink: float) -> None:
    """A source three times as fast as the network, or as the encoder."""
    out = Sink(sink)
    live = Live(pausing(step), out)
    live.run(source(100, 100.0))
    figures = live.figures
    assert (figures.read, figures.shown) == (100, len(out.numbers))
    assert figures.read == figures.shown + figures.dropped
    assert 15 < figures.shown < 60
    assert out.numbers == sorted(set(out.numbers))
    assert all(abs(float(at) - number / 100) < 0.1 for at, number in zip(out.times, out.numbers, strict=True))
    assert out.numbers[-1] >= 98  # the newest is kept
    assert figures.latency(0.5) < 0.3  # and nothing waits behind others: 100 frames are a second
    assert re.search(r"in \d+\.\d fps, out \d+\.\d fps, dropped \d+ \(\d+%\), refreshed 0%, latency p50", str(figures))


def test_a_source_that_is_slow_enough_loses_nothing() -> None:
    out, latencies = Sink(), list[float]()
    live = Live(lambda frame: frame, out, deadline=5.0, noted=latencies.append)
    live.run(source(12, 15.0))
    assert out.numbers == list(range(12))
    assert (live.figures.dropped, live.figures.punctual) == (0, 12)
    assert len(latencies) >= 10
    assert "100.0% under 5000 ms" in str(live.figures)


def test_errors_come_through() -> None:
    def broken() -> Iterator[Tensor]:
        yield numbered(0)
        raise VideoError("the cable is out")

    out = Sink()
    with pytest.raises(VideoError, match="the cable is out"):
        Live(lambda frame: frame, out).run(broken())
    assert out.numbers == [0]
    with pytest.raises(VideoError, match="the disk is full"):
        Live(lambda frame: frame, Sink(broken_at=2)).run(source(10, 50.0))
    with pytest.raises(ZeroDivisionError):
        Live(lambda frame: frame // 0 if 1 // 0 else frame, Sink()).run(source(3, 50.0))


def test_ctrl_c_keeps_what_was_shown() -> None:
    out, steps = Sink(), []

    def step(frame: Tensor) -> Tensor:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return frame

    live = Live(step, out)
    live.run(source(1000, 50.0))
    assert len(out.numbers) == live.figures.shown == 4
    assert live.figures.read == live.figures.shown + live.figures.dropped < 100


def test_a_governor_follows_the_load() -> None:
    chosen: list[str] = []
    names = ["best", "good", "fast"]
    governor = Governor(0.1, [(name, lambda name=name: chosen.append(name)) for name in names])
    takes = {"best": 0.2, "good": 0.09, "fast": 0.02}
    for _ in range(200):
        governor.note(takes[governor.name])
    assert chosen == ["best", "good"]  # 90 % of the deadline: neither late nor early
    takes = {name: 3 * value for name, value in takes.items()}
    for _ in range(60):
        governor.note(takes[governor.name])
    assert chosen == ["best", "good", "fast"]
    takes = {"best": 0.2, "good": 0.15, "fast": 0.02}
    for _ in range(4000):
        governor.note(takes[governor.name])
    assert chosen.count("good") < 12  # each shift back that does not hold makes the next one rarer
    assert set(chosen[3:]) == {"good", "fast"}


def test_a_deadline_never_goes_below_the_quality_asked_for() -> None:
    class Model:
        trained_interval, max_interval = 4, 3

    one, two, translator = Model(), Model(), None
    translator = type("T", (), {"use": lambda self, model, **goal: None})()
    names = [name for name, _ in gears(translator, [one], {"quality": "40"}, None)]
    assert names == ["quality 49dB@95%", "quality 46dB@95%", "quality 43dB@95%", "quality 40dB@95%"]
    assert [name for name, _ in gears(translator, [one], {"quality": "40dB@99%"}, 36.0)][-1] == "quality 36dB@99%"
    assert [name for name, _ in gears(translator, [one, two], {}, None)][3:6] == [
        "interval 4", "fast block, interval 1", "fast block, interval 2",
    ]  # fmt: skip
    assert len(gears(translator, [one], {"interval": 2}, None)) == 2
    with pytest.raises(InputError, match="lossless leaves a --deadline nothing to choose"):
        gears(translator, [one], {"quality": "lossless"}, None)


def test_times_as_they_are_typed() -> None:
    assert (seconds("33ms"), seconds("2s")) == (0.033, 2.0)
    for text in ("33", "0ms", "fast"):
        with pytest.raises(InputError, match="expected a time above 0 with its unit"):
            seconds(text)


ADAPTER = """
import time
from torch import nn
from shortcutv2v import Adapter

class Net(nn.Module):
    def forward(self, x):
        time.sleep(0.1)
        return x

def build_adapter():
    return Adapter(Net())
"""


def test_a_file_at_its_own_pace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(ADAPTER)
    clip, out = encode(tmp_path / "clip.mp4", 50), tmp_path / "out.mkv"
    assert main(["translate", "--live", str(clip), str(out), "--adapter", str(tmp_path / "net.py")]) == 0
    said = capsys.readouterr().out
    shown, percent = re.search(r"out\.mkv: (\d+) frames; .* dropped \d+ \((\d+)%\), refreshed 100%", said).groups()
    found = numbers(video.open(out))
    assert len(found) == int(shown)
    assert found == sorted(set(found))
    assert int(percent) == round((50 - len(found)) / 50 * 100)
    assert 5 <= len(found) < 30
    assert list(video.open(out).timed())[-1][0] > 1.0  # of two seconds: drops leave their time


@pytest.mark.parametrize(("options", "said"), [
    ("--live x.mp4 out.mkv --frames 1:2", "--live takes one source"),
    ("--live x.mp4 out.mkv --deadline 33", "expected a time above 0"),
    ("--live x.mp4 out.mkv --deadline 33ms", "--deadline needs --block"),
    ("--live x.mp4 out.mkv --at-worst 30", "for the sake of a --deadline"),
    ("x.mp4 out.mkv --deadline 33ms", "are for --live"),
    ("--live x.mp4 out.mkv", "x.mp4: neither a file nor an address"),
    ("--live camera:93 out.mkv", "camera:93"),
])  # fmt: skip
def test_refused_at_once(
    options: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(ADAPTER)
    assert main(["translate", *options.split(), "--adapter", "net.py"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.mkv").exists()


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """Answers each request with the next body, of which it promises 1000 bytes more; then it refuses."""
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies.pop(0) if bodies else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body) + (1000 if bodies else 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/clip.ts", bodies
        made.shutdown()


def test_a_connection_that_breaks_off_is_made_again(
    server: tuple[str, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shortcutv2v.video.feed._FIRST_PAUSE", 0.05)
    address, bodies = server
    first, second = (encode(tmp_path / f"{n}.ts", n, size=(32 * n // 8, 64)).read_bytes() for n in (8, 16))
    bodies += [first, second]
    rate, frames = video.connect(address, size=32, attempts=3)
    found = list(frames)
    assert rate == 25
    assert numbers(found) == [*range(8), *range(16)]
    assert {tuple(frame.shape) for frame in found} == {(3, 32, 64)}
    with pytest.raises(VideoError, match="3 connections in a row brought no frame"):
        video.connect(address, attempts=3)


def test_a_camera_by_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")

    class Capture:
        left = 3

        def __init__(self, number: int) -> None:
            assert number == 2

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def get(self, what: int) -> float:
            return 29.97 if what == cv2.CAP_PROP_FPS else 0.0

        def read(self) -> tuple[bool, Any]:
            self.left -= 1
            return self.left >= 0, numbered(self.left).flip(0).permute(1, 2, 0).numpy().copy()

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    rate, frames = video.connect("camera:2")
    assert rate == Fraction(2997, 100)
    assert number_of(next(frames)) == 2
    assert torch.equal(next(frames), numbered(1))
    assert number_of(next(frames)) == 0
    with pytest.raises(VideoError, match="gives no more frames"):
        next(frames)


def resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory from /proc")
def test_a_minute_with_a_source_that_is_too_fast() -> None:
    sizes, deadline = list[int](), 0.06

    def frames() -> Iterator[Tensor]:
        for number, _ in enumerate(source(1800, 30.0)):
            if number % 100 == 50:
                gc.collect()
                sizes.append(resident())
            yield torch.full((3, 360, 640), number % 256, dtype=torch.uint8)

    class Screen:
        count = 0

        def write(self, frame: Tensor, at: Fraction) -> None:
            self.count += 1

    screen = Screen()
    live = Live(pausing(0.05), screen, deadline)
    gc.collect()
    gc.freeze()  # else each collection takes a tenth of a second, in which no frame is shown
    try:
        live.run(frames())
    finally:
        gc.unfreeze()
    assert live.figures.read == 1800 == screen.count + live.figures.dropped
    assert live.figures.dropped > 400
    assert max(sizes[2:]) < 1.05 * sizes[2]
    assert live.figures.latency(0.99) < 2 * deadline  # fails where other processes take the processor away


@pytest.mark.parametrize("number", range(3))
def test_the_page_runs_as_it_stands(number: int) -> None:
    page = (Path(__file__).parents[1] / "docs" / "live.md").read_text()
    found = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(found) == 3
    exec(found[number], {})
