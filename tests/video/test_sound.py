"""Sound that cannot be copied, sound of unknown codecs, and the line that says so."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from synthetic import encode, packets, times
from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import VideoError


def same(frame: Tensor) -> Tensor:
    return frame


def loudness(path: Path) -> tuple[float, float]:
    """Seconds and mean square of the first sound track."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler("fltp", "mono", stream.rate)
        parts = [part.to_ndarray() for frame in file.decode(stream) for part in resampler.resample(frame)]
    samples = np.concatenate(parts, axis=1)
    return samples.shape[1] / stream.rate, float((samples**2).mean())


# No PyAV writes these into the target as they are: FFmpeg's tables or its muxers refuse.
@pytest.mark.parametrize(("source", "codec", "target"), [
    ("clip.avi", "wmav2", "out.mp4"),
    ("clip.avi", "wmav2", "out.mkv"),
    ("clip.avi", "wmav1", "out.mov"),
    ("clip.avi", "adpcm_ms", "out.mkv"),
    ("clip.avi", "adpcm_ima_wav", "out.mp4"),
    ("clip.avi", "pcm_alaw", "out.mkv"),
    ("clip.avi", "pcm_mulaw", "out.mp4"),
    ("clip.avi", "pcm_s16le", "out.mp4"),  # no channel layout: found out only when the index is written, at the end
    ("clip.mkv", "flac", "out.mov"),
    ("clip.mkv", "libopus", "out.mov"),
])  # fmt: skip
def test_sound_that_the_target_cannot_hold_becomes_aac(tmp_path: Path, source: str, codec: str, target: str) -> None:
    path = encode(tmp_path / source, 50, sound=[codec])
    with pytest.warns(UserWarning, match="sound encoded anew as AAC") as caught:
        video.convert(path, tmp_path / target, same, progress=False)
    assert len(caught) == 1
    with av.open(str(tmp_path / target)) as file:
        assert file.streams.audio[0].codec_context.name == "aac"
    (old_seconds, old), (seconds, power) = loudness(path), loudness(tmp_path / target)
    assert abs(seconds - old_seconds) < 0.1
    assert 0.5 < power / old < 2
    assert len(times(tmp_path / target)) == 50


def test_sound_encoded_anew_is_cut_with_the_picture(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.avi", 50, sound=["wmav2"])
    with pytest.warns(UserWarning, match="AAC"):
        video.convert(path, tmp_path / "out.mp4", same, start=10, stop=35, progress=False)
    assert abs(loudness(tmp_path / "out.mp4")[0] - 1) < 0.15


def test_tracks_are_copied_or_encoded_one_by_one(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mkv", 25, sound=["aac", "flac", "libopus"])
    with pytest.warns(UserWarning, match=r"\.mov takes no flac, opus"):
        video.convert(path, tmp_path / "out.mov", same, progress=False)
    assert len(packets(tmp_path / "out.mov")) == 3
    assert [content for _, content in packets(tmp_path / "out.mov")[0]] == [content for _, content in packets(path)[0]]


def unknown(path: Path, key: bytes, new: bytes) -> Path:
    """Rename the last track's codec in an mp4, as phones write codecs that FFmpeg does not know."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"trak")
    data[at:] = data[at:].replace(key, new)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov"])
def test_sound_of_an_unknown_codec_is_left_out_and_named(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, 25, sound=["aac", "aac"])
    unknown(unknown(path, b"mp4a", b"apac"), b"esds", b"dapa")
    with pytest.warns(UserWarning, match=r"not kept: sound tracks of an unknown codec \(1\)$"):
        video.convert(path, tmp_path / "out.mp4", same, progress=False)
    assert len(packets(tmp_path / "out.mp4")) == 1
    assert len(times(tmp_path / "out.mp4")) == 25


def test_pictures_of_an_unknown_codec_are_refused_and_left_out_of_training(tmp_path: Path) -> None:
    good = encode(tmp_path / "good.mp4")
    bad = unknown(unknown(encode(tmp_path / "bad.mp4"), b"avc1", b"zzz1"), b"avcC", b"zzzC")
    with pytest.raises(VideoError, match=r"bad\.mp4: FFmpeg does not know the codec"):
        video.open(bad)
    with pytest.warns(UserWarning, match="1 of 2 clips left out"):
        assert video.find_clips(tmp_path) == [good]


def test_sound_that_a_folder_cannot_hold_is_said(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", 25, sound=["aac"])
    with pytest.warns(UserWarning, match=r"not kept: sound tracks \(1\), because a folder holds none"):
        video.convert(path, tmp_path / "out", same, progress=False)
    video.convert(path, tmp_path / "again", same, audio=False, progress=False)  # as asked: nothing to say


def test_damaged_sound_does_not_end_a_run(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.avi", 50, sound=["wmav2"])
    data = bytearray(path.read_bytes())
    for _, content in packets(path)[0][10:14]:
        at = data.index(content)
        data[at : at + len(content)] = bytes(255 - byte for byte in content)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="AAC"):
        assert video.convert(path, tmp_path / "out.mp4", same, progress=False) == 50


def test_channels_in_an_order_of_their_own_are_not_decoded() -> None:
    """PyAV ends the process when it frees a decoded frame of such sound."""
    from types import SimpleNamespace

    from shortcutv2v.video.audio import _Encoded

    layout = SimpleNamespace(name="8 channels (FL+FR+FC+LFE+SL+SR+BL+BR)")
    assert _Encoded.of(None, SimpleNamespace(codec_context=SimpleNamespace(layout=layout))) is None
