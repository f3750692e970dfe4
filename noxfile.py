"""What CI and maintainers run, one command each: ``nox -s soak``, ``nox -l`` lists them.

Needs nox alone; each session makes an environment of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
PYTHONS = [
    found[1]
    for line in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
]
"""The versions that the package is declared for, the oldest first."""
PINNED = ("-c", "constraints.txt")
QUICK = ("python", "-m", "pytest", "-q", "-n", "2", "-m", "not slow")


def _interpreter(version: str) -> str | None:
    """Where a version of Python is: this one, one of pyenv, or one on the PATH.

    pyenv puts a ``python3.12`` on the PATH that fails unless the version is activated, so its versions
    are looked up where they are installed, and one on the PATH has to run.
    """
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(
        (pyenv / "versions").glob(f"{version}.*/bin/python{version}"),
        key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])],
    )
    if installed:
        return str(installed[-1])
    on_path = shutil.which(f"python{version}")
    if on_path and not subprocess.run([on_path, "-c", ""], capture_output=True).returncode:  # noqa: S603
        return on_path
    return None


FOUND = {version: path for version in PYTHONS if (path := _interpreter(version))}
NEWEST = max(FOUND, key=PYTHONS.index, default=PYTHONS[-1])
"""The newest declared Python that this machine has."""


@nox.session
def tests(session: nox.Session) -> None:
    """The README's test command; further arguments go to pytest."""
    session.install("-q", *PINNED, "-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "2", *session.posargs)


@nox.session
@nox.parametrize(
    "python,version",
    [nox.param(FOUND.get(each, sys.executable), each, id=each) for each in PYTHONS],
)
def pythons(session: nox.Session, version: str) -> None:
    """The tests without the slow ones on each Python of the classifiers: ``pythons(3.12)``."""
    if version not in FOUND:
        session.skip(f"Python {version} is neither with pyenv nor on the PATH, so it is not tried")
    session.install("-q", *PINNED, "-e", ".[test]")
    session.run(*QUICK, *session.posargs)


@nox.session(python=FOUND.get(NEWEST))
def newest(session: nox.Session) -> None:
    """The tests without the slow ones on the newest dependencies, and the newest Python found."""
    session.install("-q", "-U", "--upgrade-strategy", "eager", "-e", ".[test]")
    session.run(*QUICK, *session.posargs)


@nox.session(python=FOUND.get(PYTHONS[0]))
def lowest(session: nox.Session) -> None:
    """The tests without the slow ones on the lowest dependencies, and the oldest Python.

    The tools of the tests are pinned, so that a release of theirs breaks nothing here. Dependencies of
    dependencies are not: an old aiohttp wants an old multidict.
    """
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *(each for extra in ("cli", "partial", "uvloop") for each in extras[extra]),
    ]
    low = dict(_lowest(requirement) for requirement in wanted)
    pinned = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    tools = {re.split(r"[^\w-]", each)[0].lower() for each in extras["test"]}
    chosen = [line for line in pinned if line.partition("==")[0] in tools - low.keys()]
    chosen += [f"{name}=={version}" for name, version in low.items()]
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    session.install("-q", "-c", str(constraints), "-e", ".[test]")
    session.run(*QUICK, *session.posargs)


def _lowest(requirement: str) -> tuple[str, str]:
    """``aiohttp>=3.14.4,<4`` as ``("aiohttp", "3.14.4")``."""
    found = re.match(r"([\w-]+)(?:\[.*?\])?>=([\d.]+)", requirement)
    assert found, f"{requirement} has no lower bound"
    return found[1].lower(), found[2]


@nox.session(python=False)
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew: the newest versions of all that tests, checks and Ray need."""
    chosen: dict[str, dict[str, str]] = {}
    for version in FOUND:
        place = Path(session.create_tmp()) / version
        session.run(FOUND[version], "-m", "venv", "--clear", str(place), external=True)
        report = place / "report.json"
        session.run(
            *(str(place / "bin" / "pip"), "install", "-q", "--dry-run", "--report", str(report)),
            *("-e", ".[test,dev,ray]"),
            external=True,
        )
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
            name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
            if name != PROJECT["name"]:
                chosen.setdefault(name, {})[version] = item["metadata"]["version"]
    lines = [
        "# Exact versions of everything that the tests and checks install, written by",
        "# `python -m nox -s constraints` on Linux with Python " + ", ".join(FOUND) + ".",
    ]
    for name, by_python in sorted(chosen.items()):
        for wanted in sorted(set(by_python.values())):
            having = [version for version in FOUND if by_python.get(version) == wanted]
            marker = " or ".join(f"python_version == '{version}'" for version in having)
            everywhere = len(set(by_python.values())) == 1
            lines.append(f"{name}=={wanted}" + ("" if everywhere else f"; {marker}"))
    Path("constraints.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@nox.session
def pure(session: nox.Session) -> None:
    """The catalogue of faults on aiohttp's parser in pure Python, as in .ci/run."""
    session.install("-q", *PINNED, "-e", ".[test]")
    session.run(
        *("python", "-m", "pytest", "-q", "-n", "2", "tests/catalogue", "tests/wire"),
        *session.posargs,
        env={"AIOHTTP_NO_EXTENSIONS": "1"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy and pyright, as in .ci/run."""
    session.install("-q", *PINNED, "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "streamchat", "tests/typing", "examples")
    session.run("pyright")


@nox.session
def ray(session: nox.Session) -> None:
    """Fan-out over a Ray cluster of this machine."""
    session.install("-q", *PINNED, "-e", ".[test,ray]")
    session.run("python", "-m", "pytest", "-q", "tests/ray", *session.posargs)


@nox.session
def hostile(session: nox.Session) -> None:
    """Hostile servers, with their times judged: for a quiet machine, and in one process."""
    session.install("-q", *PINNED, "-e", ".[test]")
    session.run(
        *("python", "-m", "pytest", "-q", "tests/hostile", *session.posargs),
        env={"STREAMCHAT_TIMED": "1"},
    )


@nox.session
def soak(session: nox.Session) -> None:
    """Many streams with faults, for hours, and what they leave; ``-- --scale 0.001`` for a quick trial."""
    session.install("-q", *PINNED, "-e", ".[test]")
    session.run("python", "-m", "tests.resources.soak", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Coverage-guided fuzzing (atheris) for ten minutes; ``-- -max_total_time=28800`` for a night."""
    session.install("-q", *PINNED, "-e", ".[test]")
    try:
        session.install("-q", "atheris")
    except nox.command.CommandFailed:
        session.skip("atheris has no build for this Python, or the index does not answer")
    session.run(
        *(
            "python",
            "-m",
            "tests.fuzz.fuzz_stream",
            "tests/fuzz/corpus",
            *(session.posargs or ("-max_total_time=600",)),
        )
    )


@nox.session
def audit(session: nox.Session) -> None:
    """Known holes in the installed dependencies (pip-audit)."""
    session.install("-q", ".[cli,uvloop]")
    session.install("-q", "pip-audit")
    # 0: none known, 1: some found, or the index did not answer; only its words tell them apart.
    said = session.run(
        *("pip-audit", "--skip-editable", "--progress-spinner", "off", "--desc", "off"),
        silent=True,
        success_codes=[0, 1],
    )
    session.log(said)
    text = str(said)
    if "Found " in text and "vulnerabilit" in text:
        session.error("dependencies with known holes, see above")
    # A mirror that serves packages and no advisories is "clean" to pip-audit.
    if "No known vulnerabilities found" in text and "not be audited: aiohttp " not in text:
        return
    session.skip("SKIPPED: the advisory index did not answer, so nothing was audited")
