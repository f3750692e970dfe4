"""The architecture: what may import what, read from the source with ``ast``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from .helpers import ROOT

PACKAGE = ROOT / "streamchat"

TIERS: list[set[str]] = [
    {"_version", "asynchronous", "finite", "protocol.keywords", "protocol.models"},
    # What Chat v2 is, without I/O.
    {"protocol.errors", "protocol.plain"},
    {"protocol.record", "protocol.event_json"},
    {"protocol.growing"},
    {"protocol.sse", "protocol.messages", "protocol.error_body"},
    {"protocol.json_fields", "protocol.callables"},
    # Types as JSON Schema, and JSON as their values.
    {"protocol.kinds"},
    {"protocol.formats", "protocol.foreign"},
    {"protocol.constraints", "protocol.values"},
    {"protocol.annotations"},
    {"protocol.spans", "protocol.schema", "protocol.delta", "protocol.json_lines"},
    {"protocol.markdown"},
    {"protocol.response"},
    {"protocol.json_answers"},
    {"protocol.events", "protocol.request"},
    {"protocol.from_json", "protocol.wire", "protocol.places"},
    {"protocol.codec"},
    {"protocol.accumulator", "protocol.lane", "protocol.converters"},
    {"protocol.reader"},
    {"protocol"},
    # The shell: decisions, then I/O, then one stream, then many.
    {"timing", "markdown"},
    {"policy", "limiter", "journal", "credentials", "views", "context", "signatures", "steps"},
    {"stops", "conversation", "calling", "toolresults"},
    {"routes", "masking", "joining"},
    {"background"},
    {"binding"},
    {"dispatcher"},
    {"transport"},
    {"framing"},
    {"plan", "refusal"},
    {"watchdog"},
    {"source"},
    {"stream"},
    # Several streams as one: tool runs, structured answers.
    {"middleware", "runs", "pacing"},
    {"approval", "tools", "structured", "fanout"},
    {"toolrun"},
    {"client"},
    {"streamchat"},
    # What is built on it.
    {"ray"},
    {"local"},
    {"cli"},
    {"__main__"},
]
"""From the bottom up: a room imports only from rooms in the lines above it."""
RANK = {room: rank for rank, rooms in enumerate(TIERS) for room in rooms}

FOR_ANNOTATIONS = {("protocol.errors", "protocol.response"), ("protocol.errors", "protocol.sse")}
"""The one exception, under ``TYPE_CHECKING`` alone: an error may *name* what it carries."""

IMPURE = {
    *("asyncio", "aiohttp", "socket", "selectors", "ssl", "http", "urllib"),
    *("os", "io", "pathlib", "tempfile", "shutil", "subprocess", "sys", "signal"),
    *("time", "datetime", "random", "secrets", "uuid"),
    *("threading", "multiprocessing", "concurrent", "contextvars", "logging"),
}
OPTIONAL = {
    "aiohttp": ("streamchat.transport", "streamchat.local"),
    "click": ("streamchat.cli",),
    "rich": ("streamchat.cli",),
    "uvloop": ("streamchat.cli", "streamchat.__main__"),
    "cattrs": ("streamchat.protocol.converters",),
    "jiter": ("streamchat.protocol.growing",),
    "msgspec": ("streamchat.protocol",),
    "pydantic": ("streamchat.protocol.foreign",),
    "ray": ("streamchat.ray",),
}
"""A package to the rooms that may know it."""


class Import(NamedTuple):
    importer: str
    target: str
    for_types: bool
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PURE = [name for name in MODULES if name.startswith("streamchat.protocol")]


def type_checking_lines(tree: ast.Module) -> set[int]:
    """The lines inside ``if TYPE_CHECKING:``."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for inner in node.body:
                lines.update(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    return lines


def imports_of(name: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands: functions and ``TYPE_CHECKING`` count."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for_types = type_checking_lines(tree)
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            base = node.module or ""
            # `from package import module` imports the module, not the package's own names.
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            targets = [sub for sub in submodules if sub in MODULES]
            if len(targets) < len(submodules):
                targets.append(base)
        for target in targets:
            yield Import(name, target, node.lineno in for_types, node.lineno)


def room(module: str) -> str:
    """The entry of the table that a module belongs to."""
    parts = module.split(".")[1:]
    if not parts:
        return "streamchat"
    return ".".join(parts) if parts[0] == "protocol" else parts[0]


def inner_imports(name: str) -> list[Import]:
    return [found for found in imports_of(name) if found.target.split(".")[0] == "streamchat"]


def test_the_modules_are_found() -> None:
    """The table is held against the real package, not against an empty folder."""
    assert {"streamchat", "streamchat.protocol.sse", "streamchat.client"} <= MODULES.keys()
    assert len(PURE) >= 13


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_its_place(name: str) -> None:
    """A new module is given a line in the table before it is imported."""
    assert room(name) in RANK


def test_the_table_names_nothing_that_is_gone() -> None:
    """A room that was removed leaves the table too."""
    assert RANK.keys() == {room(name) for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards(name: str) -> None:
    """A module imports what stands lower, or its own room; nothing lower calls upward."""
    own = room(name)
    upward = [
        found
        for found in inner_imports(name)
        if RANK[room(found.target)] >= RANK[own]
        and not (room(found.target) == own and not own.startswith("protocol"))
        and not (found.for_types and (own, room(found.target)) in FOR_ANNOTATIONS)
    ]
    assert upward == []


def test_the_exception_is_for_annotations_alone() -> None:
    """The errors name what they carry, and load nothing to do so."""
    names = {(room(found.importer), room(found.target), found.for_types)
             for found in inner_imports("streamchat.protocol.errors")}  # fmt: skip
    assert {(*pair, True) for pair in FOR_ANNOTATIONS} == names


def test_nothing_goes_in_circles() -> None:
    """Inside a room too, modules can be put in an order in which each imports earlier ones."""
    graph = {
        name: {found.target for found in inner_imports(name) if not found.for_types} - {name}
        for name in MODULES
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {error.args[1]}")
    assert set(MODULES) == set(order)


@pytest.mark.parametrize("name", PURE)
def test_the_core_is_pure(name: str) -> None:
    """No loop, no network, no files, no clock, no chance, no threads: under any transport alike."""
    impure = [found for found in imports_of(name) if found.target.split(".")[0] in IMPURE]
    assert impure == []


@pytest.mark.parametrize("name", PURE)
def test_the_core_opens_and_prints_nothing(name: str) -> None:
    """Nor does it touch a file or a terminal by a builtin, or wait for anything."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "exec", "eval"), node.lineno


@pytest.mark.parametrize("package", OPTIONAL)
def test_a_foreign_package_is_known_in_its_own_room_alone(package: str) -> None:
    """Where another library changes, one room changes."""
    elsewhere = [
        found
        for name in MODULES
        for found in imports_of(name)
        if found.target.split(".")[0] == package
        and not any(name == at or name.startswith(at + ".") for at in OPTIONAL[package])
    ]
    assert elsewhere == []


def test_importing_the_package_loads_no_optional_part() -> None:
    """``import streamchat`` loads neither the command line nor the server, nor what they need."""
    code = "import streamchat, sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    assert "streamchat.client" in loaded
    parts = (
        "click",
        "rich",
        "uvloop",
        "streamchat.local",
        "streamchat.cli",
        "streamchat.markdown",
        "streamchat.protocol.markdown",
        "hypothesis",
        "pydantic",
    )
    assert [
        name
        for name in loaded
        if any(name == part or name.startswith(part + ".") for part in parts)
    ] == []


@pytest.mark.parametrize("name", PURE)
def test_what_a_module_exports_it_has(name: str) -> None:
    """``__all__`` is sorted within itself and names nothing that is not there."""
    module = import_module(name)
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name: str) -> None:
    """One module, one sentence: the docstring that a reader decides by."""
    assert ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))
