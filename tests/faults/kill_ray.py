"""A Ray cluster of two nodes on this machine, of which tasks, nodes and runs are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from killing import ended, forked

PATIENCE = 120.0
"""Seconds that a cluster may take to start, on a machine that does other things too."""
STARTED = "Ray runtime started"


class Cluster:
    """Two nodes, each with place for one task, and a run of the command on them.

    Ray repeats what a lost task or node did. A run that is killed is begun again, and Ray ends both its tasks.
    """

    start = 6.0
    """Seconds that a process of Ray needs, more or less, until it is at work."""

    def __init__(self, line: Sequence[str], said: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.line, self.said, self.codes = [*line, "--ray", self.address], said, list[int]()
        self.head = self._node("--head", f"--port={self.address.rpartition(':')[2]}", "--include-dashboard=false")
        until = time.monotonic() + PATIENCE
        while STARTED not in self.said.read_text():
            if time.monotonic() > until or self.head.poll() is not None:
                _end(self.head)
                raise SystemExit(f"the cluster does not start: {self.said.read_text()[-2000:]}")
            time.sleep(0.1)
        self.node = self._node(f"--address={self.address}")
        self.running = forked(self.line, said)

    def _node(self, *options: str) -> subprocess.Popen[bytes]:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *options]
        with self.said.open("ab") as said:
            return subprocess.Popen(ray, stdout=said, stderr=said)

    def kill(self, draw: random.Random) -> int:
        """Kill a task's process, a node, or the run; return how many processes that made segments are lost at most."""
        victim = draw.choice(["task", "task", "node", "run"])
        if self.over():
            self.running = forked(self.line, self.said)
            return 0
        if victim == "task":
            found = {**_below(self.head.pid), **_below(self.node.pid)}
            tasks = [pid for pid, title in found.items() if title.startswith("ray::_do")]
            if tasks:
                os.kill(draw.choice(tasks), signal.SIGKILL)
            return len(tasks[:1])
        if victim == "node":
            _end(self.node)
            self.node = self._node(f"--address={self.address}")
            return 1
        os.kill(self.running, signal.SIGKILL)
        ended(self.running)
        self.running = forked(self.line, self.said)
        return 2

    def over(self) -> bool:
        """Return True when the run has ended."""
        number, status = os.waitpid(self.running, os.WNOHANG)
        if number:
            self.codes.append(os.waitstatus_to_exitcode(status))
        return bool(number)

    def close(self) -> None:
        """End the nodes."""
        for node in (self.node, self.head):
            _end(node)


def _end(node: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a node at once, as if its machine had lost power."""
    for pid in (*_below(node.pid), node.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def _below(pid: int) -> dict[int, str]:
    """Return the processes that a process has started, and those that they have, with their command lines."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    found, new = dict[int, str](), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= {child: _title(child) for child in new}
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
