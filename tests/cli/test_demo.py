"""The main job from end to end, with seconds of training instead of minutes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shortcutv2v import video
from shortcutv2v.cli import main


@pytest.mark.slow
def test_demo_writes_all_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path), "--minutes", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "| fast motion | ours |" in out
    assert "| average video frame |" in out
    assert out.split("To the teacher's output")[1].strip().startswith(", mean over shortcut frames at interval 3")
    assert out.count("| quality 40 dB, references on both sides |") == 2
    assert out.count("| interval 4, every frame from both references |") == 2
    scores = json.loads((tmp_path / "frames.json").read_text())
    assert [len(part) for part in scores.values()] == [20, 32]
    assert {frame["distance"] for part in scores.values() for frame in part} == {0, 1, 2}
    with video.open(tmp_path / "side_by_side.mp4") as clip:
        assert clip.size == (360, 3 * 640)
        assert clip.rate == 25
        assert len(list(clip)) == 52
    assert (tmp_path / "contact_sheet.png").stat().st_size > 100_000
    assert (tmp_path / "block" / "block.safetensors").exists()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "bigbuckbunny.mp4: shortcutv2v report" in page
    assert "quality 40 dB" in page
