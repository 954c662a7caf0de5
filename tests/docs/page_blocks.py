"""The fenced blocks of README and docs, and the small files and names that they use.

The blocks of a page run in order and share their names, as a reader would paste them. A mark in the line above a block,
`<!-- test: slow -->`, leaves it to the slow session; `<!-- test: needs onnx -->` skips it where the module is missing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples.unsup.teacher import build_teacher as build_unsup
from examples.vid2vid.maps import pack_labels
from examples.vid2vid.teacher import build_teacher as build_vid2vid
from examples.vtoonify.teacher import build_teacher as build_vtoonify
from torch import Tensor, nn

from shortcutv2v import Adapter, ShortcutV2V, video

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("**/*.md")))]
COMMANDS = ("", "console", "bash")
"""Languages of blocks of commands; output is marked as `text`."""
SIZE = (96, 128)
FILE = re.compile(r"# ([\w/]+\.(?:py|yaml))\n")


class MyGenerator(nn.Module):
    """An encoder and a decoder with batch norm and a skip: the teacher of all pages."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
        self.up1 = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.ConvTranspose2d(16, 3, 4, 2, 1)

    def forward(self, frame: Tensor) -> Tensor:
        skip = self.down1(frame)
        return self.last(torch.cat((self.up1(self.middle(skip)), skip), 1)).sigmoid()


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its code, and the mark above it, empty if there is none."""

    page: str
    line: int
    language: str
    code: str
    mark: str

    @property
    def file(self) -> str | None:
        """Name of the file that the reader saves the block as, if its first line is a comment with a name."""
        found = FILE.match(self.code)
        return found[1] if found else None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^(?:<!-- test: ([^>]+?) -->\n)?```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(page, text.count("\n", 0, at.start(3)), at[2], at[3], at[1] or "") for at in found]


def write_clip(path: Path, frames: int = 8) -> None:
    """Write a clip of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with video.create(path, rate=25) as writer:
        for _ in range(frames):
            writer.write(torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8))


def make_world(page: str) -> dict[str, Any]:
    """Write the files that pages speak of into the current folder, and return the names that their code uses."""
    for name in ("clip.mp4", "other.mp4", "held_out.mp4", "more.mp4", "more.mkv", "clips/one.mp4"):
        write_clip(Path(name))
    write_clip(Path("in.mp4"), frames=44)
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.code)
    teacher, frame = MyGenerator().eval(), torch.rand(1, 3, *SIZE)
    adapter = Adapter(teacher, "down1", "up1")
    model: ShortcutV2V = adapter.wrap(frame)
    model.save("block")
    frames = list(torch.rand(4, 1, 3, *SIZE))
    names = {"teacher": teacher, "adapter": adapter, "model": model, "frame": frame, "frames": frames, "video": frames}
    more = GIVEN.get(page)
    return {"__name__": "__main__", "torch": torch, "MyGenerator": MyGenerator, **names, **(more() if more else {})}


def _speed() -> dict[str, Any]:
    f, offset, mask = torch.rand(2, 1, 4, 6, 8), torch.zeros(1, 18, 6, 8), torch.rand(1, 9, 6, 8)
    return {"f_ref": f[0], "a_t": f[1], "offset": offset, "mask": mask, "weight": torch.rand(4, 4, 3, 3)}


def _unsup() -> dict[str, Any]:
    torch.save(build_unsup({"ngf": 4, "n_blocks": 6}).state_dict(), "latest_net_G_A.pth")
    return {}


def _vid2vid() -> dict[str, Any]:
    painter = build_vid2vid({"input_nc": 35, "ngf": 2, "n_downsampling": 1, "n_blocks": 1})
    torch.save(painter.state_dict(), "latest_net_G_512.pth")
    net = build_vid2vid({"input_nc": 108, "prev_output_nc": 6, "ngf": 2, "n_blocks": 2})
    torch.save(net.state_dict(), "latest_net_G0.pth")
    maps = [pack_labels(torch.randint(0, 35, (1, 32, 32)), torch.randint(0, 5, (1, 32, 32))) for _ in range(4)]
    return {"frame": maps[0], "frames": maps, "show": lambda picture: picture}


def _vtoonify() -> dict[str, Any]:
    config = {"backbone": "toonify", "in_size": 64, "out_size": 128, "style_channels": 8, "num_mlps": 7}
    net = build_vtoonify({**config, "generator_channels": {4: 6, 8: 6, 16: 6, 32: 6, 64: 5, 128: 4}})
    torch.save({"g_ema": net.state_dict()}, "vtoonify_s_d.pt")
    np.save("style.npy", torch.randn(1, 12, 8).numpy())
    return {"frame": torch.rand(1, 22, 32, 32)}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/speed.md": _speed,
    "docs/deploy.md": lambda: {"pictures": list(torch.randint(0, 256, (3, *SIZE, 3), dtype=torch.uint8).numpy())},
    "docs/teachers/unsup.md": _unsup,
    "docs/teachers/vid2vid.md": _vid2vid,
    "docs/teachers/vtoonify.md": _vtoonify,
}
"""Page -> what its code needs beyond the names of all pages."""
