"""What CI and maintainers run, one command each: ``nox -s soak``, ``nox -l`` lists them.

Needs nox alone; each session makes an environment of its own.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session: nox.Session) -> None:
    """The README's test command; further arguments go to pytest."""
    session.install("-q", "-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "2", *session.posargs)


@nox.session
def pure(session: nox.Session) -> None:
    """The catalogue of faults on aiohttp's parser in pure Python, as in .ci/run."""
    session.install("-q", "-e", ".[test]")
    session.run(
        *("python", "-m", "pytest", "-q", "-n", "2", "tests/catalogue", "tests/wire"),
        *session.posargs,
        env={"AIOHTTP_NO_EXTENSIONS": "1"},
    )


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy and pyright, as in .ci/run."""
    session.install("-q", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "streamchat", "tests/typing", "examples")
    session.run("pyright")


@nox.session
def ray(session: nox.Session) -> None:
    """Fan-out over a Ray cluster of this machine."""
    session.install("-q", "-e", ".[test,ray]")
    session.run("python", "-m", "pytest", "-q", "tests/ray", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """The right-hand column of issue 3, hours long; ``-- --scale 0.001`` for a quick trial."""
    session.install("-q", "-e", ".[test]")
    session.run("python", "-m", "tests.resources.soak", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Coverage-guided fuzzing (atheris) for ten minutes; ``-- -max_total_time=28800`` for a night."""
    session.install("-q", "-e", ".[test]")
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


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests on the lowest versions that pyproject.toml allows."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cli"]]
    session.install("-q", "-e", ".[test]")
    session.install("-q", *(_lowest(requirement) for requirement in wanted))
    session.run("python", "-m", "pytest", "-q", "-n", "2", *session.posargs)


def _lowest(requirement: str) -> str:
    """``aiohttp>=3.14.4,<4`` as ``aiohttp==3.14.4``."""
    name, _, rest = requirement.partition(">=")
    return f"{name}=={rest.partition(',')[0].partition(';')[0].strip()}"
