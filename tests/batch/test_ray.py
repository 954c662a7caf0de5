"""The same work items as Ray tasks: a cluster of two nodes on this machine, one of them killed midway."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tests.video.synthetic import encode, packets

from shortcutv2v.cli import main

ray = pytest.importorskip("ray", reason='needs Ray: pip install "shortcutv2v[ray]"')
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ADAPTER = """
import time
from torch import nn
from shortcutv2v import Adapter

class Net(nn.Module):
    def forward(self, x):
        time.sleep(0.03)
        return 1 - x

def build_adapter():
    return Adapter(Net())
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(ADAPTER)
    (tmp_path / "films").mkdir()
    for number in range(3):
        encode(tmp_path / "films" / f"{number}.mp4", 50, rate=2, size=(64, 96), sound=["aac"])
    return tmp_path / "films"


def test_a_node_is_killed_midway(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    victim = cluster.add_node(num_cpus=1)
    log, killed = tmp_path / "out" / ".shortcutv2v" / "log.txt", []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not log.exists() or log.read_text().count("segment") < 3):
            time.sleep(0.05)
        cluster.remove_node(victim, allow_graceful=False)
        killed.append(log.read_text().count("done"))

    killer = threading.Thread(target=kill)
    killer.start()
    options = ["--adapter", str(tmp_path / "net.py")]
    try:
        assert main(["translate", str(films), str(tmp_path / "out"), *options, "--ray", cluster.address]) == 0
    finally:
        killer.join()
        ray.shutdown()
        cluster.shutdown()
    assert main(["translate", str(films), str(tmp_path / "alone"), *options]) == 0
    for number in range(3):
        made, alone = (tmp_path / name / f"{number}.mp4" for name in ("out", "alone"))
        assert [packets(made, kind) for kind in ("video", "audio")] == [packets(alone, k) for k in ("video", "audio")]
    lines = log.read_text().splitlines()
    assert killed[0] < 15 <= sum("done" in line for line in lines)  # 3 plans, 9 segments, 3 joins
    assert sum("segment" in line and "begun" in line for line in lines) <= 9 + 1
    assert capsys.readouterr().out.count(": done") == 3


def test_no_cluster_there(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--adapter", str(tmp_path / "net.py"), "--ray", "127.0.0.1:1"]
    assert main(["translate", str(films), str(tmp_path / "out"), *options]) == 2
    assert "--ray 127.0.0.1:1: no cluster there" in capsys.readouterr().err
