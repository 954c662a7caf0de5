"""Train the blocks of a teacher that reads its own last output, as vid2vid does.

    python examples/training/recurrent_teacher.py clip.mp4 block/

Such a teacher needs an adapter that carries the state, sequences instead of pairs, and a choice: whose outputs are fed
back in training? With `feedback="own"` a shortcut frame is made from outputs of shortcut frames before it, as in
a video, and gradients flow back through `truncate` of them.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from shortcutv2v import Adapter, ShortcutV2V

__all__ = ["Denoiser", "DenoiserAdapter", "train"]


class Denoiser(nn.Module):
    """A stand-in for a pretrained recurrent network: cleans a frame with the help of the last clean one."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(6, width, 3, padding=1)
        self.deep = nn.Sequential(*(nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)) for _ in range(6)))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, frame: Tensor, last: Tensor) -> Tensor:
        """Clean `frame` (B, 3, H, W); `last` is the output before it."""
        cleaned: Tensor = frame + self.leave(self.deep(self.enter(torch.cat((frame, last), 1))))
        return cleaned


class DenoiserAdapter(Adapter):
    """Adapter whose state is the last output; before the first frame it is black."""

    def inputs(self, frame: Tensor, state: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the frame and the last output."""
        return (frame, torch.zeros_like(frame) if state is None else state), {}

    def advance(self, state: Tensor | None, frame: Tensor, output: Tensor) -> Tensor:
        """Return the output, not detached, because gradients must flow through it."""
        return output


def train(clip: Any, steps: int = 500, crop: int = 64, **trainer: Any) -> ShortcutV2V:
    """Train a block on windows of six frames: two references, four shortcut frames.

    Args:
        clip: frames, uint8, with `len` and `[i] -> (3, H, W)`.
        steps: number of training steps.
        crop: side of the training crops.
        trainer: options of `pytorch_lightning.Trainer`.
    """
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader

    from shortcutv2v.distill import Distiller, Sequences

    adapter = DenoiserAdapter(Denoiser().eval(), "enter", "deep")
    model = adapter.wrap(clip[0][None].float() / 255)
    windows = Sequences([clip], window=6, crop=(crop, crop))
    distiller = Distiller(model, adapter, lr=1e-3, feedback="own", truncate=2)
    pl.Trainer(max_steps=steps, **trainer).fit(distiller, DataLoader(windows, batch_size=4))
    return model.eval()


if __name__ == "__main__":
    from shortcutv2v import video

    train(video.Frames(sys.argv[1], size=180)).save(sys.argv[2])
