"""Single pictures: FFmpeg frames to tensors and back, image files to tensors and back, and sizes.

Resizing is done by swscale, in the same pass that turns YUV into RGB: bicubic with the kernel widened when it shrinks,
so it does not alias, and nothing is computed twice. Rejected: torch's antialiased `interpolate`, equal in quality, but
a second pass over full-size float frames; area averaging, softer at the mild ratios common here.

PyAV reads and writes image files, too. Rejected: torchvision.io, which would be a second decoder with its own rounding
of JPEG colours and its own list of formats; Pillow and OpenCV, which would be one more dependency each.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import animated_webp, load, reason, unsupported_webp
from shortcutv2v.video._shape import IMAGE_SUFFIXES, SDR, Colour, Size, fit

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = [
    "MAGIC",
    "ImageEncoder",
    "Size",
    "ToTensor",
    "check_frame",
    "codec_of",
    "fit",
    "new_scaler",
    "quarter_turns",
    "read_image",
    "to_frame",
    "upright_size",
]

_ABANDONED: list[Any] = []

# Without ACCURATE, swscale's quick tables make every picture about one grey level too dark.
# The numbers of libswscale/swscale.h: PyAV hands integers through, while its enum has changed between releases.
_BICUBIC, _FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE = 4, 0x2000, 0x4000, 0x40000
_FLAGS = _BICUBIC | _FULL_CHROMA_OUT | _FULL_CHROMA_IN | _ACCURATE
_BT709, _BT601, _UNSPECIFIED, _LIMITED = 1, 5, 2, 1

MAGIC = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "mjpeg",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"P6": "ppm",
}


class ToTensor:
    """Turns decoded frames into uint8 RGB tensors of one size, upright.

    Args:
        size: the size to read at, see `Size`.
        multiple: see `fit`.
        tone_map: map HDR to BT.709, by FFmpeg's filter; a clip that is none switches it off.

    Attributes:
        transparent: whether a frame so far had pixels that are not opaque.
    """

    def __init__(self, size: Size = None, multiple: int = 1, tone_map: bool = False) -> None:
        self._size, self._multiple, self.tone_map = size, multiple, tone_map
        self._graph: Any = None
        self.transparent = False
        self._scaler: Any = None
        self._process = 0

    @property
    def keeps_ratio(self) -> bool:
        """True if frames keep the shape that they are stored in."""
        return self._size is None or isinstance(self._size, int)

    def size(self, frame: VideoFrame) -> tuple[int, int]:
        """Return the (H, W) that `frame` comes out with."""
        return fit(self._size, upright_size(frame), self._multiple)

    def __call__(self, frame: VideoFrame) -> Tensor:
        """Return `frame` as uint8 (3, H, W), RGB in 0..255, its display rotation applied."""
        turns = quarter_turns(frame)
        height, width = self.size(frame)[::-1] if turns % 2 else self.size(frame)
        if self._process != os.getpid():
            self._renew()
        if self.tone_map:
            frame = self._mapped(frame)
        # Planar, because swscale has a fast exact path there, and the planes need no transposing.
        wanted = "gbrap" if _has_alpha(frame) else "gbrp"
        planar = self._scaler.reformat(
            _plain(frame),
            width=width,
            height=height,
            format=wanted,
            src_colorspace=_matrix(frame),
            interpolation=_FLAGS,
            **_one_thread(),
        )
        pixels = torch.empty(len(planar.planes), height, width, dtype=torch.uint8)
        for channel, plane in enumerate(planar.planes[place] for place in (2, 0, 1, 3)[: len(planar.planes)]):
            rows = torch.frombuffer(plane, dtype=torch.uint8)[: height * plane.line_size]
            pixels[channel] = rows.view(height, plane.line_size)[:, :width]
        self.transparent = self.transparent or (len(pixels) == 4 and bool((pixels[3] < 255).any()))
        pixels = pixels[:3]
        return torch.rot90(pixels, turns, (1, 2)).contiguous() if turns else pixels

    def _mapped(self, frame: VideoFrame) -> VideoFrame:
        """Return an HDR frame as BT.709."""
        av = load()
        try:
            if self._graph is None:
                graph = av.filter.Graph()
                source = graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1, 25)
                )
                scale = graph.add("scale", "out_color_matrix=bt709:out_transfer=bt709:out_primaries=bt709")
                source.link_to(scale)
                scale.link_to(graph.add("buffersink"))
                graph.configure()
                self._graph = graph
            self._graph.push(frame)
            mapped: VideoFrame = self._graph.pull()
        except (ValueError, av.error.FFmpegError) as error:
            raise VideoError(f"tone_map: this FFmpeg cannot map HDR ({reason(error)}); install a newer av") from error
        return mapped

    def _renew(self) -> None:
        """Make a scaler for the clip, because a frame's own `reformat` plans anew each time; and one per process."""
        if self._scaler is not None:
            # Keep a scaler inherited by a fork: its threads stayed in the parent, and freeing it would wait for them.
            _ABANDONED.append((self._scaler, self._graph))
            self._graph = None
        self._scaler, self._process = new_scaler(), os.getpid()


def new_scaler() -> Any:
    """Return a scaler, which plans its work once for all frames of a kind."""
    load()
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _plain(frame: VideoFrame) -> VideoFrame:
    """Return RGB frames of fewer than 8 bits, and grey ones, as plain RGB.

    Scaled directly, white would become 248, and older releases would stretch grey as if it were limited.
    """
    bits = [c.bits for c in frame.format.components if not c.is_alpha]
    shallow = frame.format.is_rgb and min(bits) < 8
    if frame.format.has_palette or not (shallow or len(bits) == 1):
        return frame
    return frame.reformat(format="rgba" if _has_alpha(frame) else "rgb24", **_one_thread())


def _has_alpha(frame: VideoFrame) -> bool:
    """Return whether pixels of `frame` may be transparent."""
    return frame.format.has_palette or any(c.is_alpha for c in frame.format.components)


def quarter_turns(frame: VideoFrame) -> int:
    """Return the quarter turns counterclockwise that make the picture upright (phones store videos lying)."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Return the (H, W) of the picture once it is upright."""
    return (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)


def _matrix(frame: VideoFrame) -> int:
    """Return the YUV matrix to decode with; if the file does not say, as players assume: BT.709 from 720 lines up."""
    stated = int(frame.colorspace)
    if stated != _UNSPECIFIED:
        return stated
    return _BT709 if frame.height >= 720 else _BT601


def _one_thread() -> dict[str, int]:
    """Return the option that keeps swscale to the calling thread, if PyAV has it (from release 17 on).

    A forked worker that inherits a pool of threads would wait for ever.
    """
    return {"threads": 1} if int(load().__version__.split(".")[0]) >= 17 else {}


def check_frame(frame: Tensor, name: str) -> Tensor:
    """Return `frame` on the CPU, if it is a picture.

    Raises:
        VideoError: it is not a uint8 tensor of shape (3, H, W); the message begins with `name`.
    """
    if not isinstance(frame, Tensor):
        raise VideoError(f"{name} is a {type(frame).__name__}; expected a uint8 tensor of shape (3, H, W)")
    if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[0] != 3 or frame.numel() == 0:
        raise VideoError(
            f"{name} is {frame.dtype} of shape {tuple(frame.shape)}; expected uint8 of shape (3, H, W): "
            "for floats in 0..1 use (x.clamp(0, 1) * 255).round().to(torch.uint8)"
        )
    return frame.detach().cpu()


def to_frame(picture: Tensor, pixel_format: str = "rgb24", scaler: Any = None, colour: Colour = SDR) -> VideoFrame:
    """Return a uint8 (3, H, W) tensor as an FFmpeg frame; with a scaler, as YUV in limited range."""
    av = load()
    frame: VideoFrame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
    if scaler is None:
        return frame
    converted: VideoFrame = scaler.reformat(
        frame,
        format=pixel_format,
        src_colorspace=colour.matrix,
        dst_colorspace=colour.matrix,
        dst_color_range=_LIMITED,
        interpolation=_FLAGS,
        **_one_thread(),
    )
    return converted


def codec_of(path: Path, data: bytes) -> str:
    """Return the codec of an image that begins with `data`.

    Raises:
        VideoError: it is no image of a known kind.
    """
    codec = next((codec for magic, codec in MAGIC.items() if data.startswith(magic)), None)
    if codec is None:
        raise VideoError(f"{path}: not an image; expected one of {', '.join(sorted(IMAGE_SUFFIXES))}")
    return codec


def read_image(path: Path) -> VideoFrame:
    """Return the picture in an image file, recognised by its content and not by its name.

    Raises:
        VideoError: the file is missing, damaged, or no image of a known kind.
    """
    av = load()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({reason(error)})") from error
    if animated_webp(data[:21]):
        raise unsupported_webp(path)
    codec = codec_of(path, data)
    decoder = av.CodecContext.create(codec, "r")
    decoder.thread_count = 1
    if codec == "mjpeg":  # else the missing part of a truncated file would be grey
        decoder.options = {"err_detect": "explode"}
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: damaged image ({reason(error)}); replace the file or remove it") from error
    if not frames:
        raise VideoError(f"{path}: damaged image (nothing decoded); replace the file or remove it")
    frame: VideoFrame = frames[0]
    return frame


class ImageEncoder:
    """Encodes pictures of one size, one file's bytes each.

    Args:
        suffix: `.png` (lossless) or `.jpg` (best quality, full-resolution colour).
        size: (H, W) of the pictures.
    """

    def __init__(self, suffix: str, size: tuple[int, int]) -> None:
        av = load()
        codec, self._format = ("png", "rgb24") if suffix == ".png" else ("mjpeg", "yuvj444p")
        self._encoder = av.CodecContext.create(codec, "w")
        self._encoder.height, self._encoder.width = size
        self._encoder.pix_fmt = self._format
        self._encoder.time_base = Fraction(1, 25)
        self._encoder.thread_count = 1

    def __call__(self, picture: Tensor) -> bytes:
        """Return the file content for one uint8 (3, H, W) picture."""
        frame = to_frame(picture)
        if self._format != "rgb24":
            # JPEG has its own convention: BT.601, full range.
            frame = frame.reformat(
                format=self._format, dst_colorspace=_BT601, dst_color_range=2, interpolation=_FLAGS, **_one_thread()
            )
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))
