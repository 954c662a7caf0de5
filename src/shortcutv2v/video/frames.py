"""Random access to the frames of a clip, as training wants it."""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import _stream
from shortcutv2v.video import clip as clips
from shortcutv2v.video._av import PathLike, opened
from shortcutv2v.video._index import Index, index
from shortcutv2v.video.picture import Size, ToTensor

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Frames"]


class Frames:
    """A video file or folder of frames as a sequence of uint8 (3, H, W) tensors.

    Any frame in any order: it seeks to the key frame before and decodes from there. Frames read lately stay in memory
    up to `cache_bytes`. It pickles without its open file, and each process opens its own, so it serves `DataLoader`
    workers whether forked or spawned. Do not share one object between threads.

    Args:
        path: video file or folder.
        size: read at this size, see `open`.
        cache_bytes: how many bytes of decoded frames to keep.

    Attributes:
        path: where the frames come from.
        size: (H, W) of the frames as they come out.
        rate: frames per second.

    Raises:
        VideoError: as `open`; a truncated file is found out here and not in the middle of training.

    Example:
        ```python
        frames = video.Frames("clip.mp4", size=180)
        pair = frames.window(40, 2)             # frames 40 and 41: uint8 (2, 3, 180, W)
        ```
    """

    def __init__(self, path: PathLike, size: Size = None, cache_bytes: int = 256 * 2**20) -> None:
        self.path = Path(path)
        clip = clips.open(self.path, size=size)
        self.size, self.rate = clip.size, clip.rate
        self._size, self._cache_bytes = size, cache_bytes
        self._folder = clip if isinstance(clip, clips.FolderClip) else None
        self._index = Index.plain(len(clip.files)) if isinstance(clip, clips.FolderClip) else index(self.path)
        self._forget()

    def __len__(self) -> int:
        return len(self._index.stamps)

    def __getitem__(self, number: int) -> Tensor:
        """Frame `number`, uint8 (3, H, W); negative numbers count from the end.

        Raises:
            IndexError: there is no such frame.
            VideoError: it cannot be decoded.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} frames; there is no frame {number}")
        return self._frame(number % len(self)).clone()

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self)))

    def window(self, start: int, n: int) -> Tensor:
        """Frames `start` to `start + n - 1`, uint8 (n, 3, H, W).

        Raises:
            VideoError: the clip does not have them.
        """
        if start < 0 or n < 1 or start + n > len(self):
            raise VideoError(
                f"{self.path}: has {len(self)} frames; a window of {n} from frame {start} does not fit: "
                "give a longer clip or ask for fewer frames"
            )
        return torch.stack([self._frame(number) for number in range(start, start + n)])

    def close(self) -> None:
        """Close the file and empty the cache; the next access opens it again."""
        if self._process == os.getpid():
            self._stack.close()
        else:
            _ABANDONED.append((self._stack, self._run, self._convert))
        self._forget()

    def _forget(self) -> None:
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._stack = ExitStack()
        self._run: Iterator[tuple[int, VideoFrame]] | None = None
        self._next = 0
        self._convert: ToTensor | None = None
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        keep = ("path", "size", "rate", "_size", "_cache_bytes", "_index")
        return {name: self.__dict__[name] for name in keep} | {"_folder": self._folder is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._folder = None
        if state["_folder"]:
            folder = clips.open(self.path, size=self._size)
            self._folder = folder if isinstance(folder, clips.FolderClip) else None
        self._forget()

    def _frame(self, number: int) -> Tensor:
        """Frame `number` from the cache or the file; the caller must not write into it."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        if self._folder is not None:
            return self._keep(number, self._folder.read(number))
        return self._decode(number)

    def _keep(self, number: int, frame: Tensor) -> Tensor:
        self._cache[number] = frame
        while len(self._cache) * frame.nbytes > self._cache_bytes and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return frame

    def _decode(self, number: int) -> Tensor:
        if self._process != os.getpid():
            # Forked: the file position is shared with the parent, so this process opens the file for itself.
            self.close()
        if self._convert is None:
            self._convert = ToTensor(self._size)
        # Frames passed on the way are worth converting only if they can all stay.
        keep_all = len(self) * 3 * self.size[0] * self.size[1] <= self._cache_bytes
        for key in self._starts(number):
            if key is not None:
                self._seek(key)
            for found, frame in self._run or ():
                self._next = found + 1
                if found == number:
                    return self._keep(number, self._convert(frame))
                if found > number:
                    break
                if keep_all and found not in self._cache:
                    self._keep(found, self._convert(frame))
        raise VideoError(f"{self.path}: frame {number} cannot be decoded; the file is damaged or has changed")

    def _starts(self, number: int) -> Iterator[int | None]:
        """Where to decode from, best first: on from here (None), the key frame before, earlier ones, the beginning."""
        keys = self._index.keys
        last = bisect.bisect_right(keys, number) - 1
        if self._run is not None and keys[last] < self._next <= number:
            yield None
        # Some containers seek a little too far, so earlier key frames follow, at growing strides.
        stride = 1
        while last > 0:
            yield keys[last]
            last -= stride
            stride *= 2
        yield 0

    def _seek(self, key: int) -> None:
        """Make `_run` yield (number, frame) from frame `key`, a key frame, on."""
        self._stack.close()
        container, stream = self._stack.enter_context(opened(self.path))
        # One thread: frame threads would decode far ahead of every seek, and workers are processes already.
        stream.thread_type = "NONE"
        if key == 0 or not self._index.seekable:
            self._run = enumerate(_stream.decode(self.path, container, stream))
            return
        stamp = self._index.stamps[key]
        container.seek(stamp, stream=stream)
        self._run = self._numbered(_stream.decode(self.path, container, stream, since=stamp))

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        stamps = self._index.stamps
        for frame in frames:
            place = bisect.bisect_left(stamps, frame.pts) if frame.pts is not None else len(stamps)
            if place < len(stamps) and stamps[place] == frame.pts:
                yield place, frame


# Decoders inherited by a forked process: freeing them could wait for threads that live in the parent only.
_ABANDONED: list[Any] = []
