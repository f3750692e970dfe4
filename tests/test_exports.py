"""What the package exports, and that each public thing says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import attrs
import pytest

import streamchat
from streamchat import protocol
from streamchat.protocol import errors, events, messages

PACKAGE = Path(streamchat.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__main__.py", "_version.py")
)


def test_the_package_exports_each_name_once_and_all_of_the_vocabulary() -> None:
    """No name twice; every event, message class and error is at the top."""
    assert len(streamchat.__all__) == len(set(streamchat.__all__))
    assert all(hasattr(streamchat, name) for name in streamchat.__all__)
    own = {"EVENT_CLASSES", "ContentKind", "GrowingText", "status_error_class"}
    own |= {"MAX_INDEX", "NO_INDEX", "EventRecord", "event_fields"}
    for module in (errors, events, messages):
        assert set(module.__all__) - own <= set(streamchat.__all__)


def test_a_service_that_relays_streams_starts_without_the_other_rooms() -> None:
    """They are imported with the first use of one of their names, and are the same objects then."""
    program = """
import sys, streamchat
later = set(streamchat._LATER.values())
assert not [room for room in later if f"streamchat.{room}" in sys.modules]
assert set(dir(streamchat)) >= set(streamchat.__all__)
for name, room in streamchat._LATER.items():
    assert getattr(streamchat, name) is getattr(sys.modules[f"streamchat.{room}"], name)
try:
    streamchat.Lmiter
except AttributeError as error:
    assert "Lmiter" in str(error)
else:
    raise AssertionError("any name is there")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_owns_and_what_it_exports(name: str) -> None:
    """A docstring, and an __all__ whose names exist."""
    module = importlib.import_module(name)
    assert module.__doc__
    for exported in getattr(module, "__all__", []):
        assert hasattr(module, exported), exported


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    """Classes, functions, methods and properties without a leading underscore."""
    module = importlib.import_module(name)
    silent = [place for place, doc in _public(module) if not doc]
    assert not silent


def _public(module: ModuleType) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    if module.__name__ == "streamchat.protocol.wire":
        return found  # a struct a wire object, named after the event whose class has the words
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            found.append((name, value.__doc__))
            for attribute, member in vars(value).items():
                if attribute.startswith(("_", "on_")):  # a handler's name says it all
                    continue
                if isinstance(member, property):
                    found.append((f"{name}.{attribute}", member.__doc__))
                elif inspect.isfunction(member):
                    found.append((f"{name}.{attribute}", inspect.getdoc(getattr(value, attribute))))
        elif inspect.isfunction(value):
            found.append((name, value.__doc__))
    return found


@pytest.mark.parametrize("module", [events, messages])
def test_every_field_of_the_wire_names_its_json_path(module: ModuleType) -> None:
    """A docstring under each attrs field: the class is the protocol reference."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        cls = getattr(module, node.name, None) if isinstance(node, ast.ClassDef) else None
        if cls is None or not attrs.has(cls) or not isinstance(node, ast.ClassDef):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                private = field.target.id.startswith("_")
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                class_variable = "ClassVar" in ast.unparse(field.annotation)
                assert private or class_variable or documented, f"{cls.__name__}.{field.target.id}"


def test_the_core_has_every_error_for_those_who_use_it_alone() -> None:
    """The same classes as `streamchat` has."""
    for name in set(errors.__all__) - {"status_error_class"}:
        assert name in protocol.__all__
        assert getattr(protocol, name) is getattr(errors, name) is getattr(streamchat, name)
