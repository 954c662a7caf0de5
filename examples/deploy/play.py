"""Translate a clip with exported programs: numpy, PyAV and an engine; no torch, and not this package either.

    pip install numpy av onnxruntime
    cp play.py programs/ && python programs/play.py programs/ clip.mp4 out.mp4

The folder is what `shortcutv2v export` wrote, for the clip's size; it holds `runner.py`.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import av

__all__ = ["play"]


def play(folder: Path, source: str, target: str, crf: int = 16, **options: object) -> int:
    """Translate `source`, and return how many frames it has.

    Args:
        folder: of the programs.
        source: a clip of the size that they were exported for.
        target: the clip to write, H.264.
        crf: quality of the clip, 0 is lossless.
        options: see `Runner`.
    """
    sys.path.insert(0, str(folder))
    from runner import Runner  # type: ignore[import-not-found]  # lies in the folder

    runner, count = Runner(folder, **options), 0
    with av.open(source) as given, av.open(target, "w") as made:
        clip = given.streams.video[0]
        written = None
        for frame in given.decode(clip):
            picture = runner(frame.to_ndarray(format="rgb24"))
            if written is None:
                written = made.add_stream("libx264", rate=clip.average_rate or Fraction(25), options={"crf": str(crf)})
                written.height, written.width = picture.shape[-3:-1]
                written.pix_fmt = "yuv420p"
            count += 1
            made.mux(written.encode(av.VideoFrame.from_ndarray(picture.reshape(picture.shape[-3:]), format="rgb24")))
        if written is not None:
            made.mux(written.encode())
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the programs")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--engine", choices=("onnxruntime", "openvino"), default=argparse.SUPPRESS)
    parser.add_argument("--quality", default=argparse.SUPPRESS, help="in dB, instead of the exported policy")
    print(play(**vars(parser.parse_args())), "frames")
