"""Random access to the frames of a clip, for training."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import _stream
from shortcutv2v.video import clip as clips
from shortcutv2v.video._av import PathLike, load, opened, reason
from shortcutv2v.video._clock import Timeline, stores_no_stamps
from shortcutv2v.video._decode import ONE_PER_PACKET, decode
from shortcutv2v.video._pipe import is_pipe
from shortcutv2v.video.cache import Cache, Run
from shortcutv2v.video.picture import Size, ToTensor

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Frames"]


class Frames:
    """A video file or folder of frames as a sequence of uint8 (3, H, W) tensors.

    It gives any frame in any order: it seeks to the key frame before and decodes from there. Frames read lately stay in
    memory up to `cache_bytes`. It pickles without its open file, and each process opens its own, so it serves
    `DataLoader` workers, forked or spawned. Do not share one object between threads.

    Args:
        path: video file or folder.
        size: read at this size, see `open`.
        cache_bytes: how many bytes of decoded frames to keep.
        cache: a `Cache` shared with other clips, instead of one of its own; `cache_bytes` then has no effect. With many
            clips, share one: it also bounds how many files are open.
        tone_map: see `open`.

    Attributes:
        path: where the frames come from.
        size: (H, W) of the frames that come out.
        rate: frames per second.
        cache: the frames that it keeps in memory.

    Raises:
        VideoError: as `open`; a truncated file is found here and not in the middle of training.

    Examples:
        ```python
        frames = video.Frames("clip.mp4", size=180)
        pair = frames.window(40, 2)             # frames 40 and 41: uint8 (2, 3, 180, W)
        ```
    """

    def __init__(
        self,
        path: PathLike,
        size: Size = None,
        cache_bytes: int = 256 * 2**20,
        cache: Cache | None = None,
        tone_map: bool = False,
    ) -> None:
        self.path = Path(path)
        if is_pipe(self.path):
            raise VideoError(f"{self.path}: a pipe, which cannot be read in any order; write it to a file first")
        clip = clips.open(self.path, size=size, tone_map=tone_map)
        self.size, self.rate, self._tone_map = clip.size, clip.rate, clip.tone_mapped
        self.cache = Cache(cache_bytes) if cache is None else cache
        self._size = size
        self._index = _Index.plain(len(clip.files)) if isinstance(clip, clips.FolderClip) else _index(self.path)
        self._prepare()

    def __len__(self) -> int:
        return len(self._index.stamps)

    def __getitem__(self, number: int) -> Tensor:
        """Return frame `number`, uint8 (3, H, W); negative numbers count from the end.

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
        """Return frames `start` to `start + n - 1`, uint8 (n, 3, H, W).

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
        """Close the file and drop its frames from the cache; the next access opens it again."""
        self.cache.forget(self._token)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in {"_token", "_convert", "_folder"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        """Make the parts that are not pickled."""
        self._token = object()  # names this user of the cache
        self._convert = ToTensor(self._size, tone_map=self._tone_map)
        clip = clips.open(self.path, size=self._size) if self.path.is_dir() else None
        self._folder = clip if isinstance(clip, clips.FolderClip) else None

    def _frame(self, number: int) -> Tensor:
        """Return frame `number` from the cache or the file; the caller must not write into it."""
        frame = self.cache.get(self._token, number)
        if frame is None:
            frame = self._folder.read(number) if self._folder is not None else self._decode(number)
            self.cache.put(self._token, number, frame)
        return frame

    def _decode(self, number: int) -> Tensor:
        n_bytes = 3 * self.size[0] * self.size[1]
        for key in self._starts(number):
            run = self.cache.run(self._token) if key is None else self._seek(key)
            if run is None:
                continue
            for found, frame in run.frames:
                run.next = found + 1
                if found == number:
                    return self._convert(frame)
                if found > number:
                    break
                # Convert the frames on the way only if they can stay in the cache.
                if self.cache.wants(self._token, found, n_bytes):
                    self.cache.put(self._token, found, self._convert(frame))
        raise VideoError(f"{self.path}: frame {number} cannot be decoded; the file is damaged or has changed")

    def _starts(self, number: int) -> Iterator[int | None]:
        """Yield places to decode from, best first: here (None), the key frame before, earlier ones, the beginning."""
        keys = self._index.keys
        last = bisect.bisect_right(keys, number) - 1
        run = self.cache.run(self._token)
        if run is not None and keys[last] < run.next <= number:
            yield None
        # Some containers seek a little too far, so try earlier key frames in growing steps.
        stride = 1
        while last > 0:
            yield keys[last]
            last -= stride
            stride *= 2
        yield 0

    def _seek(self, key: int) -> Run:
        """Open the file at the key frame `key`."""
        run = self.cache.start(self._token)
        container, stream = run.stack.enter_context(opened(self.path))
        # One thread: frame threads would decode far ahead of every seek, and workers are processes already.
        stream.thread_type = "NONE"
        run.frames = enumerate(decode(self.path, container, stream))
        if key and self._index.seekable:
            stamp = self._index.stamps[key]
            # Some formats refuse to seek; then it begins at 0.
            with contextlib.suppress(load().error.FFmpegError):
                container.seek(stamp, stream=stream)
                run.frames = self._numbered(decode(self.path, container, stream, since=stamp, first=key))
        return run

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        stamps = self._index.stamps
        for frame in frames:
            place = bisect.bisect_left(stamps, frame.pts) if frame.pts is not None else len(stamps)
            if place < len(stamps) and stamps[place] == frame.pts:
                yield place, frame


@dataclass(frozen=True)
class _Index:
    """The frames of a clip in display order.

    Attributes:
        stamps: time stamp of every frame, rising, in ticks of the stream.
        keys: numbers of the frames at which decoding can begin; the first is 0.
        seekable: whether the time stamps can be sought; if not, `stamps` are frame numbers and decoding begins at 0.
    """

    stamps: list[int]
    keys: list[int]
    seekable: bool

    @staticmethod
    def plain(length: int) -> _Index:
        """Return the index of a clip that cannot be sought by time."""
        return _Index(list(range(length)), [0], seekable=False)


def _index(path: Path) -> _Index:
    """Read all packets of a video, decode them only if need be, and list its frames.

    Raises:
        VideoError: no readable video, damaged, truncated or empty.
    """
    with opened(path) as (container, stream):
        promise = _stream.promised(container, stream)
        countable = stream.codec_context.name in ONE_PER_PACKET and not stores_no_stamps(container)
        found = _from_packets(path, container, stream) if countable else None
    with opened(path) as (container, stream):
        last = None
        if found is None:
            found, last = _from_frames(path, container, stream)
        if not found.stamps:
            raise _stream.no_frames(path, promise)
        end = found.stamps[-1] if found.seekable else last
        _stream.check_complete(path, path, (container, stream), promise, len(found.stamps), end)
    return found


def _from_packets(path: Path, container: InputContainer, stream: VideoStream) -> _Index | None:
    """Return the index from the packets; None if they do not determine it."""
    av = load()
    stamps: dict[int, bool] = {}
    timeline, started = Timeline(container), False
    try:
        for packet in container.demux(stream):
            timeline.correct(packet)
            started = started or packet.is_keyframe
            if timeline.jumps:
                return None
            if not packet.size or packet.is_discard or not started:
                continue
            if packet.pts is None or packet.pts in stamps:
                return None
            if packet.is_corrupt:
                if timeline.may_jump:
                    return None
                raise _stream.damaged(path, len(stamps), "a packet is incomplete")
            stamps[packet.pts] = packet.is_keyframe
    except av.error.FFmpegError as error:
        raise _stream.damaged(path, len(stamps), reason(error)) from error
    ordered = sorted(stamps)
    if not ordered or not stamps[ordered[0]]:
        return None  # Recorded from the middle: only decoding shows how many of the first frames can be decoded.
    return _Index(ordered, [i for i, stamp in enumerate(ordered) if stamps[stamp]], seekable=True)


def _from_frames(path: Path, container: InputContainer, stream: VideoStream) -> tuple[_Index, int | None]:
    """Return the index from decoding the whole video, and the last frame's time stamp."""
    stream.thread_type = "AUTO"
    stamps: list[int | None] = []
    keys: list[int] = []
    timeline = Timeline(container)
    for frame in decode(path, container, stream, timeline=timeline):
        if frame.key_frame:
            keys.append(len(stamps))
        stamps.append(frame.pts)
    known = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in itertools.pairwise(known))
    if len(known) < len(stamps) or not rising or timeline.jumps or keys[:1] != [0]:
        return _Index.plain(len(stamps)), stamps[-1] if stamps else None
    return _Index(known, keys, seekable=True), known[-1]
