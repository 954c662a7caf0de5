"""Streams in four threads, while the main thread captures new sizes: every frame as in one thread, bit for bit.

Captures by torch.export are left out: torch keeps state of the process while it exports, and rarely fails in a thread
beside it (`KeyError` in `torch.fx.traceback`). docs/capture.md says so.
"""

from __future__ import annotations

import threading
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import shortcutv2v

FRAMES, THREADS = 500, 4


def teacher() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 6, 3 if i == 5 else 6, 3, padding=1) for i in range(6)]
    return nn.Sequential(*layers[:3], nn.BatchNorm2d(6), *layers[3:]).eval()


def clip(thread: int) -> list[Tensor]:
    """Sizes change every 50 frames, so that streams capture, too."""
    draw = torch.Generator().manual_seed(thread)
    sizes = [(8 + 2 * (t // 50 % 5) + thread, 10 + thread) for t in range(FRAMES)]
    return [torch.rand(1, 3, *size, generator=draw) for size in sizes]


@torch.no_grad()
def play(model: shortcutv2v.ShortcutV2V, frames: list[Tensor]) -> list[Tensor]:
    stream = model.stream(refresh=4)
    return [stream(frame) for frame in frames]


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:the teacher was captured for 32 different signatures:UserWarning")
@pytest.mark.filterwarnings("ignore:.* in 100 frames:UserWarning")  # nothing is gained, at this size
@pytest.mark.parametrize("capture", ["fx", "hooks"])
def test_streams_with_captures_in_between(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = shortcutv2v.wrap(teacher(), "1", "5", example_inputs=torch.rand(1, 3, 8, 8), capture=capture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    alone = shortcutv2v.wrap(teacher(), "1", "5", example_inputs=torch.rand(1, 3, 8, 8), capture=capture)
    alone.load_state_dict(model.state_dict())
    expected = [play(alone, clip(thread)) for thread in range(THREADS)]
    found: dict[int, list[Tensor]] = {}

    def work(thread: int) -> None:
        found[thread] = play(model, clip(thread))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for size in range(20, 26):
        model.materialise()
        model.reference(torch.rand(1, 3, size, size))
    for thread in threads:
        thread.join(300)
    counts: Counter[str] = Counter()
    for thread in range(THREADS):
        for made, right in zip(found.get(thread, [torch.empty(0)] * FRAMES), expected[thread], strict=True):
            counts["right" if torch.equal(made, right) else "anything else"] += 1
    with capsys.disabled():
        print(
            f"\nframes in {THREADS} threads ({capture}): {FRAMES * THREADS} tried, {counts['right']} right, "
            f"{counts['anything else']} anything else"
        )
    assert counts == {"right": FRAMES * THREADS}
