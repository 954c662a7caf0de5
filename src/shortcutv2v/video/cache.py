"""The memory of random access: decoded frames up to so many bytes, open files up to so many."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Cache", "Run"]


# Decoders inherited by a forked process are kept: freeing them could wait for threads that live in the parent only.
_ABANDONED: list[Any] = []


@dataclass
class Run:
    """An open file that is being decoded, and its position.

    Attributes:
        stack: closes the file.
        frames: yields (number, frame) from the current position on.
        next: the number that it yields next.
    """

    stack: ExitStack = field(default_factory=ExitStack)
    frames: Iterator[tuple[int, VideoFrame]] = field(default_factory=lambda: iter(()))
    next: int = 0


class Cache:
    """Bounds the memory of one `Frames`, or of many that share it.

    It drops the frames and closes the files that were used longest ago. It pickles empty; each process fills its own,
    so the bounds hold per process.

    Args:
        max_bytes: how many bytes of decoded frames to keep; the last frame asked for always stays.
        max_open: how many files to keep open, each with its decoder.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, max_open: int = 8) -> None:
        self.max_bytes, self.max_open = max_bytes, max_open
        self._empty()

    def _empty(self) -> None:
        self._frames: OrderedDict[tuple[object, int], Tensor] = OrderedDict()
        self._runs: OrderedDict[object, Run] = OrderedDict()
        self._process = os.getpid()
        self.bytes = 0

    def __getstate__(self) -> dict[str, int]:
        return {"max_bytes": self.max_bytes, "max_open": self.max_open}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__.update(state)
        self._empty()

    def get(self, token: object, number: int) -> Tensor | None:
        """Return the kept frame and mark it as used last; None if it is not kept."""
        frame = self._frames.get((token, number))
        if frame is not None:
            self._frames.move_to_end((token, number))
        return frame

    def put(self, token: object, number: int, frame: Tensor) -> None:
        """Keep a frame; drop others to make room."""
        self._frames[token, number] = frame
        self.bytes += frame.nbytes
        while self.bytes > self.max_bytes and len(self._frames) > 1:
            self.bytes -= self._frames.popitem(last=False)[1].nbytes

    def wants(self, token: object, number: int, n_bytes: int) -> bool:
        """Return whether a frame that nobody has asked for yet could stay without pushing another out."""
        return self.bytes + n_bytes <= self.max_bytes and (token, number) not in self._frames

    def run(self, token: object) -> Run | None:
        """Return the user's open file, if this process has it open."""
        if self._process != os.getpid():
            # Forked: the position in the file is shared with the parent, so this process opens its own.
            _ABANDONED.append(self._runs)
            self._runs, self._process = OrderedDict(), os.getpid()
        if token in self._runs:
            self._runs.move_to_end(token)
        return self._runs.get(token)

    def start(self, token: object) -> Run:
        """Return a new, empty run instead of the user's old one; close the files unused for longest."""
        self.stop(token)
        while len(self._runs) >= max(1, self.max_open):
            self._runs.popitem(last=False)[1].stack.close()
        run = self._runs[token] = Run()
        return run

    def stop(self, token: object) -> None:
        """Close the user's file."""
        if self.run(token) is not None:
            self._runs.pop(token).stack.close()

    def forget(self, token: object) -> None:
        """Close the user's file and drop its frames."""
        self.stop(token)
        for key in [key for key in self._frames if key[0] == token]:
            self.bytes -= self._frames.pop(key).nbytes
