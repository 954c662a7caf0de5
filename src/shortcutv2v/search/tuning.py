"""`tune()`: what every cut, block and width is worth on some clips, without translating them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.bar import say
from shortcutv2v.distill.checks import checked_folder, only_run_in
from shortcutv2v.distill.clips import open_clips
from shortcutv2v.errors import InputError
from shortcutv2v.search.asked import Asked, open_record
from shortcutv2v.search.choose import searched
from shortcutv2v.search.table import HEADINGS, Row, write_page
from shortcutv2v.show.page import markdown
from shortcutv2v.translate import from_uint8
from shortcutv2v.video import find_clips

__all__ = ["PAGE", "tune"]

PAGE = "tune.html"


def tune(
    teacher: Adapter | nn.Module,
    clips: str | Path | Sequence[str | Path],
    *,
    quality: str | float | None = None,
    speed: float | None = None,
    minutes: float | None = 10.0,
    steps: int | None = None,
    folder: str | Path = "tuned",
    size: int | tuple[int, int] | None = None,
) -> list[Row]:
    """Search as `auto` does, over several clips, and print what every choice is worth; nothing is translated.

    Args:
        teacher: the adapter, which needs no cut, or a network that takes and gives frames in [0, 1].
        clips: video files, folders of videos, or folders of frames.
        quality: candidates are judged by their time at this quality; default: 40 dB, if no speed is given.
        speed: candidates are judged by their quality at this speed.
        minutes: of the search.
        steps: of training in all, instead of a time.
        folder: where `auto.json`, the block of the best choice and `tune.html` go. `auto --plan` takes the file.
        size: read clips at this size.

    Returns:
        One row per choice and interval, the fastest first. The table is printed, and drawn in `tune.html`.

    Raises:
        InputError: an argument is out of range, `folder` holds another search, or the teacher cannot be cut.
        VideoError: no clip can be read.

    Examples:
        ```python
        rows = shortcutv2v.tune(network, ["one.mp4", "other.mp4"], minutes=20)
        best = [row for row in rows if not row.dominated]
        ```
    """
    adapter = teacher if isinstance(teacher, Adapter) else Adapter(teacher)
    asked = Asked(quality, speed, None if steps is not None else minutes, steps)
    paths = find_clips([Path(clips)] if isinstance(clips, str | Path) else list(map(Path, clips)), min_frames=2)
    opened = open_clips(list(paths), size)
    check_adapter(adapter, from_uint8(opened[0][0], adapter.teacher))
    with only_run_in(checked_folder(folder)):
        record = open_record(Path(folder), adapter, paths, asked, [size, 0, None])
        searched(adapter, opened, asked, record, memory=True)
    rows = [Row(**row) for row in record.data.get("rows", ())]
    if not rows:
        raise InputError("there is nothing to tune: give a PSNR below lossless, and a teacher that can be cut")
    say("\n".join(markdown([HEADINGS, *(row.cells() for row in rows)])))
    write_page("tune", record.data, Path(folder) / PAGE)
    return rows
