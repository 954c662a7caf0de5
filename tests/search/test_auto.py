"""From a network and a film to a faster film: choices and their lines, `auto.json`, going on, plans, tuning."""

from __future__ import annotations

import html
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shortcutv2v
from shortcutv2v import Adapter, distill, video
from shortcutv2v.cli.main import main
from shortcutv2v.errors import CheckpointError, InputError
from shortcutv2v.measure.advice import Times
from shortcutv2v.search import contest
from shortcutv2v.search.run import PAGE

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TEACHER = 0.1
BLOCKS = {"reuse": 0.0, "1/4": 0.004, "1/2": 0.008}


class Net(nn.Module):
    """A residual network whose middle is most of it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(4)))
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, frame: Tensor) -> Tensor:
        return (0.2 + 0.6 * frame + 0.1 * self.last(self.middle(self.first(frame)))).clamp(0, 1)


class Remembering(Adapter):
    """A teacher that mixes its last output in."""

    def start(self) -> Any:
        return None

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (frame if state is None else 0.8 * frame + 0.2 * state,), {}

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        return output


def write_film(path: Path, frames: int, step: int = 1) -> Path:
    torch.manual_seed(1)
    wide = F.interpolate(torch.rand(1, 3, 6, 16), (24, 96), mode="bicubic")[0].clamp(0, 1)
    with video.create(path, rate=25) as writer:
        for number in range(frames):
            writer.write((255 * wide.roll(step * number, 2)[..., :32]).byte())
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_film(tmp_path / "film.mp4", 30)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Times that do not depend on the machine; a test may change the dictionary."""
    pace = {"head": 0.002, "tail": 0.006}

    def timed(adapter: Any, frame: Any, models: Any) -> dict[str, Times]:
        head, tail, found = pace["head"], pace["tail"], {"teacher": Times(TEACHER, TEACHER, TEACHER, TEACHER, 0, 0)}
        for name in models:
            block = next((cost for key, cost in BLOCKS.items() if name.endswith(key)), 0.0)
            found[name] = Times(TEACHER, TEACHER + block, head + block + tail, head, block, tail)
        return found

    monkeypatch.setattr(contest, "timed", timed)
    return pace


def lines(capsys: pytest.CaptureFixture[str], word: str) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(word)]


def length(path: Path) -> int:
    return len(video.Frames(path))


@pytest.mark.usefixtures("paced")
class TestChoice:
    def test_a_short_film_is_not_searched(self, film: Path, tmp_path: Path, capsys) -> None:
        found = shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=30, report=False)
        out = capsys.readouterr().out
        (price,) = [line for line in out.splitlines() if line.startswith("price")]
        assert "training one takes" in price
        assert price.endswith("with 30 frames it does not") or "never pays" in price
        assert found["choice"]["kind"] == "reuse"
        assert sum("x as fast; features" in line for line in out.splitlines()) == 2  # the cheapest may be poor
        assert not any(step.startswith("round") for step in found["steps"])
        assert length(tmp_path / "out.mp4") == 30
        assert json.loads((tmp_path / "out.auto" / "auto.json").read_text()) == json.loads(json.dumps(found))
        assert found["film"]["sample"]["low"] >= 30
        assert {"look", "cuts", "times", "saved"} <= found["seconds"].keys()
        for word in ("look:", "cut ", "choice: reuse of features at cut ", "sample: "):
            assert any(line.startswith(word) for line in out.splitlines()), word

    def test_the_break_even_is_in_frames(self, tmp_path: Path, capsys) -> None:
        film = write_film(tmp_path / "fast.mp4", 30, step=3)  # reuse does not hold on such motion
        shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=50, report=False)
        (price,) = lines(capsys, "price")
        assert "it pays from about" in price or "never pays" in price

    def test_a_given_block_serves_a_short_film(self, film: Path, tmp_path: Path) -> None:
        net = Net()
        model = Adapter(net, "first", "middle").wrap(torch.rand(1, 3, 24, 32))
        model.save(tmp_path / "block")
        asked = {"quality": 30, "block": tmp_path / "block", "report": False}
        found = shortcutv2v.auto(net, film, tmp_path / "out.mp4", **asked)
        assert found["steps"]["held out: the given block"]["curves"]
        assert found["choice"]["kind"] == "given block"

    def test_nothing_to_gain(self, film: Path, tmp_path: Path, paced, capsys) -> None:
        paced["tail"] = TEACHER
        found = shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=30, report=False)
        (choice,) = lines(capsys, "choice")
        assert "nothing to gain, no cut makes a frame more than 0.98x as fast" in choice
        assert found["choice"] == {"kind": "teacher", "why": choice.removeprefix("choice: "), "block": None}
        assert length(tmp_path / "out.mp4") == 30

    def test_no_cut_at_all(self, film: Path, tmp_path: Path, capsys) -> None:
        net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())
        found = shortcutv2v.auto(net, film, tmp_path / "out.mp4", report=False)
        assert found["choice"]["kind"] == "teacher"
        assert "no cut leaves work out" in "".join(lines(capsys, "choice"))

    def test_a_quality_that_nothing_holds(self, tmp_path: Path, capsys) -> None:
        film = write_film(tmp_path / "fast.mp4", 30, step=9)
        found = shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=90, report=False)
        assert found["choice"]["kind"] == "teacher"
        assert "makes 90 dB faster than the teacher" in "".join(lines(capsys, "choice"))

    def test_lossless_is_the_teacher(self, film: Path, tmp_path: Path) -> None:
        found = shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality="lossless", report=False)
        assert found["choice"]["kind"] == "teacher"
        assert found["steps"] == {}

    def test_a_speed(self, film: Path, tmp_path: Path) -> None:
        found = shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", speed=2.5, report=False)
        assert found["choice"]["predicted"]["speed"] == pytest.approx(2.5, abs=0.01)
        assert json.loads((tmp_path / "out.auto" / "block" / "shortcut.json").read_text())["refresh"]["name"] == "Speed"

    def test_a_recurrent_teacher_cannot_look_ahead(self, film: Path, tmp_path: Path) -> None:
        found = shortcutv2v.auto(Remembering(Net()), film, tmp_path / "out.mp4", quality=30, steps=2, report=False)
        shares = found["choice"]["predicted"]["share"]
        assert shares >= 1 / 9  # references lie nine frames apart, not 17
        assert length(tmp_path / "out.mp4") == 30

    def test_a_part_of_a_film(self, film: Path, tmp_path: Path) -> None:
        shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=30, start=2, stop=14, report=False)
        assert length(tmp_path / "out.mp4") == 12

    def test_a_report(self, film: Path, tmp_path: Path) -> None:
        shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=30)
        assert "Quality per frame" in (tmp_path / "out.auto" / "report.html").read_text()

    def test_the_report_of_a_film_that_the_teacher_makes_shows_what_was_tried(self, tmp_path: Path) -> None:
        film = write_film(tmp_path / "fast.mp4", 30, step=9)
        shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=90)
        page = (tmp_path / "out.auto" / "report.html").read_text()
        assert "no faster than the teacher" in page
        assert "As predicted for 90 dB" in page

    def test_both_goals_are_refused(self, film: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="give one of refresh=, quality= and speed="):
            shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", quality=40, speed=2)


def searched(film: Path, folder: Path, **options: Any) -> dict[str, Any]:
    given = {"quality": 45, "steps": 24, "folder": folder, "report": False, **options}
    return shortcutv2v.auto(Net(), film, folder.with_suffix(".mp4"), **given)


def rounds(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found["steps"].items() if name.startswith("round")}


@pytest.mark.usefixtures("paced")
class TestSearch:
    def test_the_field_is_halved(self, film: Path, tmp_path: Path, capsys) -> None:
        found = searched(film, tmp_path / "a")
        numbers = [int(name.split()[1].rstrip(":")) for name in rounds(found)]
        counts = [numbers.count(number) for number in sorted(set(numbers))]
        assert counts[-1] == 1
        assert all(one >= other for one, other in itertools.pairwise(counts))
        said = lines(capsys, "round")
        assert sum(" leads" in line for line in said) == len(counts)
        assert not (tmp_path / "a" / "search" / "features").exists()

    def test_the_report_shows_all_candidates_and_why_they_were_dropped(self, film: Path, tmp_path: Path) -> None:
        found = searched(film, tmp_path / "a", report=True)
        page = html.unescape((tmp_path / "a" / "report.html").read_text())
        assert "Quality per frame" in page
        assert "<h2>Candidates</h2>" in re.sub(r' id="[^"]*"', "", page)
        names = [one["choice"] for one in found["candidates"]]
        assert len(names) == len(set(names)) > 3
        assert [one["why"] for one in found["candidates"]].count("chosen") == 1
        assert sum(one["why"].startswith("left after round") for one in found["candidates"]) >= 2
        for one in found["candidates"]:
            assert one["why"] == "chosen" or "led" in one["why"] or "than the choice" in one["why"], one
            assert f'<th scope="row">{one["choice"]}</th>' in page
            assert f"<td>{one['why']}</td>" in page
        assert {row["choice"] for row in found["rows"]} == set(names)
        assert all(f"{name}: " in page or f"{name} at 9: " in page for name in names)  # the plot, in words

    def test_begun_again_it_repeats_nothing(self, film: Path, tmp_path: Path, monkeypatch) -> None:
        first = searched(film, tmp_path / "a")
        monkeypatch.setattr(distill, "fit", None, raising=False)
        again = searched(film, tmp_path / "a")
        assert again["steps"] == first["steps"]
        assert again["choice"] == first["choice"]

    def test_killed_in_a_round_it_goes_on(self, film: Path, tmp_path: Path, monkeypatch) -> None:
        whole = searched(film, tmp_path / "a")
        calls, step = [], distill.Distiller.training_step

        def killed(self: Any, batch: Any, batch_idx: int) -> Any:
            calls.append(1)
            if len(calls) == 10:
                raise RuntimeError("killed")
            return step(self, batch, batch_idx)

        monkeypatch.setattr(distill.Distiller, "training_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            searched(film, tmp_path / "b")
        done = json.loads((tmp_path / "b" / "auto.json").read_text())
        assert rounds(done)
        assert len(rounds(done)) < len(rounds(whole))
        assert "choice" not in done
        assert not (tmp_path / "b.mp4").exists()
        trained, fit = [], distill.fit
        monkeypatch.setattr(
            distill, "fit", lambda *args, **options: trained.append(1) or fit(*args, **options), raising=False
        )
        after = searched(film, tmp_path / "b")
        assert len(trained) == len(rounds(whole)) - len(rounds(done))
        assert rounds(after) == rounds(whole)
        assert after["choice"] == whole["choice"]

    def test_the_finalists_play_in_several_places(self, tmp_path: Path, capsys) -> None:
        """The middle of this film is still; one stretch from there alone would promise a film of no refreshes."""
        torch.manual_seed(1)
        wide = F.interpolate(torch.rand(1, 3, 6, 16), (24, 96), mode="bicubic")[0].clamp(0, 1)
        places = [5 * max(0, 40 - n) if n < 70 else 5 * (n - 70) for n in range(140)]  # moves, rests from 40 on, moves
        with video.create(tmp_path / "film.mp4", rate=25) as writer:
            for place in places:
                writer.write((255 * wide.roll(place, 2)[..., :32]).byte())
        found = searched(tmp_path / "film.mp4", tmp_path / "a", steps=4)
        trials = [played for name, played in found["steps"].items() if name.startswith("trial")]
        assert trials
        for played in trials:
            assert [each["start"] for each in played] == sorted(each["start"] for each in played)
            assert played[0]["start"] < 40
            assert played[-1]["start"] >= 70
            assert sum(each["frames"] for each in played) == 34
        assert "34 frames in 2 places" in lines(capsys, "trial")[0]

    def test_another_search_in_the_folder_is_refused(self, film: Path, tmp_path: Path) -> None:
        searched(film, tmp_path / "a", steps=None)
        before = (tmp_path / "a" / "auto.json").read_bytes()
        with pytest.raises(InputError, match="is of another search, its goal differs: expected the same command"):
            searched(film, tmp_path / "a", steps=None, quality=44)
        assert (tmp_path / "a" / "auto.json").read_bytes() == before

    def test_a_damaged_record_is_refused(self, film: Path, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "auto.json").write_text('{"format": 1')
        with pytest.raises(InputError, match="cannot be used"):
            searched(film, tmp_path / "a")


@pytest.mark.usefixtures("paced")
class TestPlan:
    @pytest.fixture
    def plan(self, film: Path, tmp_path: Path) -> Path:
        searched(film, tmp_path / "plan", quality=30, steps=None)
        return tmp_path / "plan" / "auto.json"

    def test_it_repeats_the_choice(self, plan: Path, tmp_path: Path, monkeypatch, capsys) -> None:
        monkeypatch.setattr(contest, "timed", None)
        other = write_film(tmp_path / "other.mp4", 12)
        found = shortcutv2v.auto(Net(), other, tmp_path / "out.mp4", plan=plan, report=False)
        assert length(tmp_path / "out.mp4") == 12
        assert found["choice"] == json.loads(plan.read_text())["choice"]
        (line,) = lines(capsys, "plan")
        assert found["choice"]["why"] in line

    def test_another_network_is_refused(self, plan: Path, film: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"is of Adapter\(\) and a Net; this is Adapter\(\) and a Net"):
            shortcutv2v.auto(Net(seed=1), film, tmp_path / "out.mp4", plan=plan)
        assert not list(tmp_path.glob("out*"))

    def test_another_adapter_is_refused(self, plan: Path, film: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"is of Adapter\(\) and a Net; this is Remembering\(\) and a Net"):
            shortcutv2v.auto(Remembering(Net()), film, tmp_path / "out.mp4", plan=plan)

    def test_another_setting_is_refused(self, plan: Path, film: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"this is Adapter\(range=\(-1, 1\)\) and a Net"):
            shortcutv2v.auto(Adapter(Net(), range=(-1, 1)), film, tmp_path / "out.mp4", plan=plan)

    def test_another_cut_of_the_adapter_is_none_of_its_business(self, plan: Path, film: Path, tmp_path: Path) -> None:
        shortcutv2v.auto(Adapter(Net(), "first", "middle.1"), film, tmp_path / "out.mp4", plan=plan, report=False)
        assert length(tmp_path / "out.mp4") == 30

    def test_an_unfinished_one_is_refused(self, plan: Path, film: Path, tmp_path: Path) -> None:
        data = json.loads(plan.read_text())
        del data["choice"]
        plan.write_text(json.dumps(data))
        with pytest.raises(InputError, match="its search has not ended"):
            shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", plan=plan)

    def test_a_lost_block_is_named(self, plan: Path, film: Path, tmp_path: Path) -> None:
        (plan.parent / "block" / "shortcut.json").unlink()
        with pytest.raises(CheckpointError, match=r"holds no shortcut\.json"):
            shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", plan=plan)


@pytest.mark.usefixtures("paced")
class TestTune:
    def test_every_choice_has_its_rows(self, film: Path, tmp_path: Path, capsys) -> None:
        other = write_film(tmp_path / "other.mp4", 30, step=2)
        rows = shortcutv2v.tune(Net(), [film, other], quality=45, steps=12, folder=tmp_path / "tuned")
        names = {row.name for row in rows}
        assert len(names) == len(rows)
        assert {row.interval for row in rows} == {2, 3, 5, 9}
        assert all(row.dominated in {"", *names} for row in rows)
        assert any(not row.dominated for row in rows)
        assert [row.speed for row in rows] == sorted((row.speed for row in rows), reverse=True)
        assert all(row.low <= row.mean for row in rows)
        assert all(row.memory > 0 for row in rows)
        out = capsys.readouterr().out
        shown = [line for line in out.splitlines() if line.startswith("|")]
        assert shown[1].count("---") == shown[0].count("|") - 1
        assert shown[2:] == [f"| {' | '.join(row.cells())} |" for row in rows]
        page = (tmp_path / "tuned" / PAGE).read_text()
        assert "<svg" in page
        assert "dominated by" in page
        assert "As predicted for 45 dB" in page
        found = shortcutv2v.auto(Net(), film, tmp_path / "out.mp4", plan=tmp_path / "tuned" / "auto.json", report=False)
        assert found["choice"]["kind"] != "teacher"

    def test_nothing_to_tune(self, film: Path, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())
        with pytest.raises(InputError, match="there is nothing to tune"):
            shortcutv2v.tune(net, film, steps=2, folder=tmp_path / "tuned")


class TestCommands:
    def test_auto(self, adapter: str, clip: Path, tmp_path: Path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        given = ["auto", "clip.mp4", "out.mp4", "--adapter", adapter, "--quality", "20", "--minutes", "0.02"]
        assert main([*given, "--frames", "1:", "--no-report"]) == 0
        assert length(tmp_path / "out.mp4") == 7
        assert main(["auto", "clip.mp4", "b.mp4", "--adapter", adapter, "--plan", "out.auto/auto.json"]) == 0
        assert main([*given, "--frames", "1:", "--speed", "2"]) == 2
        assert "give one of refresh=, quality= and speed=" in capsys.readouterr().err

    def test_tune(self, adapter: str, clip: Path, tmp_path: Path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["tune", "clip.mp4", "--adapter", adapter, "--quality", "20", "--minutes", "0.02"]) == 0
        assert "dominated by" in capsys.readouterr().out
        assert (tmp_path / "tuned" / "auto.json").exists()

    @pytest.mark.parametrize("command", ["auto no.mp4 out.mp4", "tune no.mp4"])
    def test_no_such_film(self, command: str, adapter: str, tmp_path: Path, monkeypatch, capsys) -> None:
        monkeypatch.chdir(tmp_path)
        assert main([*command.split(), "--adapter", adapter]) == 2
        assert "no.mp4: no such file or folder" in capsys.readouterr().err
        assert list(tmp_path.glob("*.auto")) == []


class TestReuse:
    def test_it_holds_a_quality(self, film: Path) -> None:
        net, frames = Net(), list(video.open(film))
        for parameter in net.parameters():
            parameter.data *= 2.5
        model = Adapter(net, "first", "middle").wrap(torch.rand(1, 3, 24, 32), variant="reuse", channels=1)
        model.calibrate([frames])
        stream, values = model.stream(quality=38), []
        for frame in (frame[None].float() / 255 for frame in frames):
            made = stream(frame)
            if stream.distance:
                values.append(shortcutv2v.measure.psnr(made, net(frame)))
        assert len(values) >= 10
        assert min(values) >= 37.5
        # So few frames pass before the margin has moved.
        assert sum(value >= 38 for value in values) >= 0.85 * len(values)

    def test_it_is_loaded_by_its_name_alone(self, tmp_path: Path) -> None:
        code = (
            "import torch, shortcutv2v\n"
            "torch.manual_seed(0)\n"
            "net = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))\n"
        )
        names: dict[str, Any] = {}
        exec(code, names)
        shortcutv2v.wrap(names["net"], "0", "2", variant="reuse", example_inputs=(torch.rand(1, 3, 8, 8),)).save(
            tmp_path / "block"
        )
        code += f"assert shortcutv2v.load({str(tmp_path / 'block')!r}, net).blocks[0].variant == 'reuse'\n"
        subprocess.run([sys.executable, "-c", code], check=True)


def test_import_loads_no_search() -> None:
    code = "import sys, shortcutv2v\nassert 'shortcutv2v.search' not in sys.modules\nassert callable(shortcutv2v.auto)"
    subprocess.run([sys.executable, "-c", code], check=True)
