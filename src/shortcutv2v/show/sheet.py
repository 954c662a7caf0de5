"""Pictures for people: contact sheets with error maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["contact_sheet"]


def contact_sheet(
    rows: Sequence[tuple[str, Tensor, Tensor, Tensor, Tensor]], path: str | Path, error_range: float = 0.1
) -> None:
    """Write a PNG with one row per frame: input, teacher, ours, and maps of the errors of ours and of plain reuse.

    Args:
        rows: (label, input, teacher, ours, reuse); pictures are float (3, H, W) in [0, 1].
        path: of the PNG.
        error_range: the error that is drawn brightest, absolute and averaged over the colours.
    """
    # The object interface of matplotlib: no global state, no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = ("input", "teacher", "ours", "error of ours", "error of reuse")
    height, width = rows[0][2].shape[-2:]
    figure = Figure(figsize=(len(titles) * 3.2 + 1, len(rows) * 3.2 * height / width + 0.6), layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    drawn = None
    for line, (label, frame, teacher, ours, reuse) in zip(axes, rows, strict=True):
        for place, picture in zip(line, (frame, teacher, ours), strict=False):
            place.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        for place, picture in zip(line[3:], (ours, reuse), strict=True):
            error = (picture - teacher).abs().mean(0).numpy()
            drawn = place.imshow(error, vmin=0, vmax=error_range, cmap="magma", interpolation="nearest")
        line[0].set_ylabel(label, fontsize="small")
    for place, title in zip(axes[0], titles, strict=True):
        place.set_title(title)
    _strip(axes.flat)
    assert drawn is not None  # noqa: S101  (there are always two error maps in a row)
    figure.colorbar(drawn, ax=axes, label="mean absolute error, pictures in [0, 1]", shrink=0.6, pad=0.01)
    figure.savefig(path, dpi=110)


def _strip(axes: Iterable[Axes]) -> None:
    for place in axes:
        place.set_xticks([])
        place.set_yticks([])
