"""`training.html`: the curves of a run and its last pictures, in a page that any browser opens."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from shortcutv2v.distill.callbacks import PictureLog
from shortcutv2v.distill.verdict import Verdict

__all__ = ["PAGE", "TrainingPage"]

PAGE = "training.html"
_POINTS = 400
"""Losses that are kept; beyond, every second one is dropped."""


class TrainingPage(pl.Callback):
    """Writes `training.html` after every validation, and at the end; without matplotlib it writes nothing.

    It shows PSNR beside reuse and repetition, the loss, and the pictures that `PictureLog` drew last.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.losses: list[tuple[int, float]] = []
        self._every = 1
        self._sum = (0.0, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Keep the mean loss of the last few steps."""
        loss = trainer.callback_metrics.get("train/loss")
        if loss is None:
            return
        self._sum = (self._sum[0] + float(loss), self._sum[1] + 1)
        if self._sum[1] >= self._every:
            self.losses.append((trainer.global_step, self._sum[0] / self._sum[1]))
            self._sum = (0.0, 0)
        if len(self.losses) > _POINTS:
            self.losses, self._every = self.losses[::2], 2 * self._every

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the page."""
        self._write(trainer, pl_module)

    on_fit_end = on_validation_end  # also if nothing was validated

    def state_dict(self) -> dict[str, Any]:
        """The losses so far."""
        return {"losses": [list(point) for point in self.losses], "every": self._every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.losses, self._every = [(int(s), float(v)) for s, v in state_dict["losses"]], state_dict["every"]

    def _write(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        with contextlib.suppress(ImportError, OSError):  # a picture of a run never ends it
            from shortcutv2v.show.page import page, save

            text = page(f"Training in {self.folder.name}", self._parts(trainer, pl_module))
            save(text, self.folder / PAGE)

    def _parts(self, trainer: pl.Trainer, pl_module: Any) -> Iterator[str]:
        from shortcutv2v.show.page import data_uri, section
        from shortcutv2v.show.plots import both, lines

        verdict = getattr(pl_module, "verdict", "") or "not validated"
        name = html.escape(self.folder.name)
        yield f"<h1>Training in {name}</h1><p>{trainer.global_step} steps; {html.escape(verdict)}</p>"
        found: dict[type, Any] = {type(each): each for each in trainer.callbacks}  # type: ignore[attr-defined]
        if points := found[Verdict].points if Verdict in found else []:
            series = {
                title: [(float(p.step), float(getattr(p, key))) for p in points]
                for title, key in (("shortcut", "psnr"), ("reuse", "reuse"), ("repeat", "repeat"))
            }
            yield section("Quality on held-out clips", both(lines, series, "step", "PSNR, dB", verdict))
        if self.losses:
            series = {"loss": [(float(step), value) for step, value in self.losses]}
            yield section("Loss", both(lines, series, "step", "loss", f"loss {self.losses[-1][1]:.4g} at the end"))
        if pictures := found[PictureLog].pictures if PictureLog in found else {}:
            cells = "".join(
                f'<figure><img src="{data_uri(_shown(picture))}" alt="{name}"><figcaption>{name}</figcaption></figure>'
                for name, picture in pictures.items()
            )
            yield section("The last pictures", f'<div class="gallery">{cells}</div>')


def _shown(picture: Tensor) -> Tensor:
    """Float (3, H, W) or (1, H, W) in [0, 1] -> uint8 (3, H, W) or (H, W)."""
    return (255 * picture.float()).round().byte().cpu().squeeze(0)
