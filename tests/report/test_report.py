"""The page holds the numbers that were measured, and nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from report_page import COUNT, START, Written, moving, write_once  # noqa: F401 (a fixture)

from shortcutv2v.cli import main
from shortcutv2v.measure import METHODS, FrameScore, Pictures
from shortcutv2v.report import FRAMES, Reel
from shortcutv2v.report.collect import _arrows
from shortcutv2v.video import create


def test_the_numbers_are_those_of_the_measurement(written: Written) -> None:
    data, scores = written.data, written.report.scores
    assert list(data["runs"]) == ["interval 3", "interval 5"]
    assert data["main"] == "interval 3"
    assert data["runs"]["interval 3"] == written.report.runs["interval 3"] == scores.to_dict()
    for name in ("psnr", "ssim", "flicker", "warping"):
        for method in METHODS:
            spread = scores.spread(name, method)
            assert spread is not None
            assert data["runs"]["interval 3"]["metrics"][name]["methods"][method]["mean"] == spread.mean
    row = re.search(r'<th scope="row">PSNR, dB ↑</th>(.*?)</tr>', written.text)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[1])
    ours = scores.spread("psnr", "ours")
    assert ours is not None
    assert cells[: len(METHODS)] == [f"{scores.psnr(method):.2f}" for method in METHODS]
    assert cells[-2:] == [f"{ours.low:.2f}", f"{ours.worst:.2f} ({START + ours.frame})"]
    assert f"<b>{scores.psnr('ours'):.2f} dB</b>" in written.text


def test_every_frame_has_its_pictures(written: Written) -> None:
    from PIL import Image

    data = written.data
    assert {name: len(uris) for name, uris in data["pictures"].items()} == dict.fromkeys(
        ("input", "teacher", "ours", "error"), COUNT
    )
    for uri in data["pictures"]["ours"]:
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert picture.size == (80, 48)
    shortcuts = [bool(frame["distance"]) for frame in data["runs"]["interval 3"]["frames"]]
    for kind in ("arrows", "mask", "energy"):
        assert [each is not None for each in data[kind]] == shortcuts
    assert data["times"] == [pytest.approx((START + n) / 25) for n in range(COUNT)]


class Outside(HTMLParser):
    """Collects everything that a page would fetch, and the identifiers of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "xlink:href", "poster") and not (value or "").startswith(
                ("data:", "#")
            ):
                self.fetched.append(f"{tag} {value}")
            if name == "id":
                self.names.append(value or "")


def test_it_is_one_file_with_nothing_from_elsewhere(written: Written) -> None:
    page = Outside()
    page.feed(written.text)
    assert page.fetched == []
    assert len(page.names) == len(set(page.names))
    assert "@import" not in written.text
    assert not re.search(r"url\((?!#)", written.text)
    assert "<title>a &lt;clip&gt; &amp; more.mp4: shortcutv2v report</title>" in written.text
    assert "<clip>" not in written.text.replace("\\u003cclip>", "")


def test_the_colours_of_plots_are_the_pages(written: Written) -> None:
    plots = re.findall(r"<svg role.*?</svg>", written.text, re.DOTALL)
    assert len(plots) == 6  # curve, quality over speed, times: wide and narrow each
    for plot in plots:
        assert "aria-label=" in plot
        assert "var(--ink)" in plot
        assert not re.search(r"#(?!0{6}|f{6})[0-9a-f]{6}\b", plot.replace("#ffffff", ""))


def test_the_cut_the_command_and_the_versions_are_told(written: Written) -> None:
    assert torch.__version__.partition("+")[0] in written.text
    assert '<pre id="command">' in written.text
    assert "recommended: enc_layer=&#x27;" in written.text
    reuse = [cut["reuse"] for cut in written.data["inspection"]["cuts"]]
    assert reuse
    assert f"{max(reuse):.1f} dB" in written.text


def scored(number: int) -> FrameScore:
    return FrameScore(number, number % 3, {}, 0.1, 0.1)


def test_a_ten_second_clip_keeps_to_its_size() -> None:
    """Noise is the hardest picture to compress."""
    reel, generator = Reel(), torch.Generator().manual_seed(0)
    noise = torch.rand(3, 72, 128, generator=generator)
    for number in range(60):
        reel.add(Pictures(scored(number), noise, noise, noise.flip(-1), noise))
    found = reel.to_dict(largest=400_000)
    assert sum(len(uri) for uris in found["pictures"].values() for uri in uris) <= 400_000
    full = reel.to_dict()
    assert len(full["pictures"]["ours"][0]) > len(found["pictures"]["ours"][0])
    assert FRAMES == 300


def test_arrows_point_to_where_the_features_come_from() -> None:
    field = torch.zeros(2, 9, 16)
    field[0], field[1] = 0.9, -1.6  # down by a tenth of the height, left by a tenth of the width
    arrows = torch.tensor(_arrows(field)).view(9, 16, 4)
    assert (arrows[..., 2] == -100).all()
    assert (arrows[..., 3] == 100).all()
    assert arrows[0, :, 0].tolist() == [round(1000 * (i + 0.5) / 16) for i in range(16)]


ADAPTER = """
import torch
from torch import nn
from shortcutv2v import Adapter

def build_adapter():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 8, 3 if i == 5 else 8, 3, padding=1) for i in range(6)]
    return Adapter(nn.Sequential(*layers), "1", "4")
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, a clip and a block."""
    from shortcutv2v.cli.adapters import find_adapter

    folder = tmp_path_factory.mktemp("files")
    (folder / "mine.py").write_text(ADAPTER)
    with create(folder / "clip.mkv", rate=25) as writer:
        for frame in moving(10):
            writer.write(frame)
    find_adapter(str(folder / "mine.py")).wrap(moving(1) / 255, channels=4).save(folder / "block")
    return folder


def test_report_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(files / "clip.mkv"), "--adapter", str(files / "mine.py"), "--block", str(files / "block")]
    assert main(["measure", *given, "--json", str(tmp_path / "other.json"), "--csv", str(tmp_path / "other.csv")]) == 0
    assert "| PSNR, dB ↑ |" in capsys.readouterr().out
    out = tmp_path / "page.html"
    command = ["report", *given, "--frames", "2:9", "--out", str(out), "--compare", str(tmp_path / "other.json")]
    assert main([*command, "--intervals", "2,3"]) == 0
    assert f"{out}: " in capsys.readouterr().out
    data = Written(out, None).data
    assert list(data["runs"]) == ["interval 2", "interval 3", "other: the block's own policy"]
    assert len(data["times"]) == 7
    assert data["start"] == 2
    for wrong, named in (
        (["--compare", str(files / "mine.py")], "measure --json"),
        (["--use", "psrn=x"], "METRIC=FILE"),
    ):
        assert main([*command, *wrong]) == 2
        assert named in capsys.readouterr().err
    assert main([*command[:-3], str(tmp_path / "none" / "page.html")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_translate_writes_a_report_of_its_run(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(files / "clip.mkv"), str(tmp_path / "out.mkv"), "--adapter", str(files / "mine.py")]
    page = tmp_path / "page.html"
    block = ["--block", str(files / "block"), "--interval", "4"]
    assert main(["translate", *given, *block, "--report", str(page)]) == 0
    data = Written(page, None).data
    assert list(data["runs"]) == ["interval 4"]
    distances = [frame["distance"] for frame in data["runs"]["interval 4"]["frames"]]
    assert distances == [0, 1, 2, 3, 3, 2, 1, 0, 1, 2]  # from both sides, as translate does
    assert main(["translate", *given, "--report", str(page)]) == 2
    assert "--report needs --block" in capsys.readouterr().err
    assert main(["translate", *given, *block[:2], "--report", str(page), "--windows"]) == 2
    assert "leave out --windows" in capsys.readouterr().err


def test_figures_command(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(files / "clip.mkv"), "--adapter", str(files / "mine.py"), "--block", str(files / "block")]
    assert main(["figures", *given, "--out", str(tmp_path / "figures")]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"sampling_positions.png", "error_maps.png", "efficiency.svg", "redundancy.json"}
    out = capsys.readouterr().out
    assert "no blending mask" in out  # the default block has none
    assert "1: correlation" in out


def test_the_sample_in_the_docs_is_small_and_names_no_machine() -> None:
    sample = Path(__file__).parents[2] / "docs" / "report.html"
    assert sample.stat().st_size < 1_000_000
    data = Written(sample, None).data
    command = data["about"]["command"]
    assert command.startswith("shortcutv2v report bigbuckbunny.mp4 --adapter real_esrgan --block demo_output/block")
    assert command.replace(" --intervals", " \\\n    --intervals") in (sample.parent / "quality.md").read_text()
    assert not re.search(r"/(?:home|root|tmp|Users|work)/", sample.read_text())
    assert len(data["pictures"]["ours"]) == len(data["times"]) == 15
