"""What the user hands in: prompts, documents, tools; every fault of theirs is a usage error."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import click

from streamchat.cli.options import bad
from streamchat.protocol.plain import decode_json, repair_surrogates

__all__ = ["read_documents", "read_prompt", "read_tools", "standard_input"]

_TOOL_SHAPE = '{"name": "...", "description": "...", "parameters": {...}}'


def standard_input() -> TextIO | None:
    """stdin; ``None`` if whoever started us closed it (``<&-``), which the types do not say."""
    return sys.stdin


def read_prompt(prompt: str) -> str:
    """The prompt, or for ``-`` all of stdin.

    Raises:
        click.UsageError: it is empty, or not text.
    """
    if prompt == "-":
        try:
            prompt = stdin.read() if (stdin := standard_input()) else ""
        except UnicodeDecodeError:
            raise click.UsageError("the prompt is not text in this locale's encoding") from None
    if not prompt.strip():
        raise click.UsageError("the prompt is empty: there is nothing to ask")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        # How Python keeps bytes that are no text (PEP 383).
        raise click.UsageError("the prompt is not text in this locale's encoding")
    return prompt


def read_documents(paths: Iterable[str]) -> list[dict[str, Any]]:
    """The documents in these files, as the API takes them.

    A ``.json`` file holds an object or a list of them, each a document with ``data`` or what
    belongs into it; any other file is a text, and its name is the title.

    Raises:
        click.BadParameter: a file cannot be read, or holds something else.
    """
    documents: list[dict[str, Any]] = []
    for path in paths:
        if _is_json(path):
            objects = _objects(path, "--document")
            documents += [item if "data" in item else {"data": item} for item in objects]
        else:
            text = _text(path, "--document")
            title = repair_surrogates(
                Path(path).name
            )  # bytes of a name that are not text (PEP 383)
            documents.append({"data": {"title": title, "text": text}})
    return documents


def read_tools(paths: Iterable[str]) -> list[dict[str, Any]]:
    """The tool definitions in these files, as the API takes them.

    Raises:
        click.BadParameter: a file cannot be read, or holds something else.
    """
    tools: list[dict[str, Any]] = []
    for path in paths:
        for item in _objects(path, "--tool"):
            tool = item if "function" in item else {"type": "function", "function": item}
            if not _has_name(tool["function"]):
                raise bad("--tool", path, f"a tool must look like {_TOOL_SHAPE}")
            tools.append(tool)
    return tools


def _has_name(function: Any) -> bool:
    return isinstance(function, dict) and "name" in function


def _is_json(path: str) -> bool:
    return Path(path).suffix.lower() == ".json"


def _objects(path: str, option: str) -> list[dict[str, Any]]:
    """The object, or the list of objects, in a JSON file."""
    try:
        value = decode_json(_text(path, option))
    except ValueError as error:
        raise bad(option, path, str(error)) from None
    items = _as_list(value)
    if not items or not all(isinstance(item, dict) for item in items):
        raise bad(option, path, "must hold a JSON object or a list of objects")
    return items


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownArgumentType]  # JSON


def _text(path: str, option: str) -> str:
    """The text of a UTF-8 file that is not blank."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise bad(option, path, error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise bad(option, path, "is not UTF-8 text") from None
    except ValueError:
        raise bad(option, path, "is not a file name") from None
    if not text.strip():
        raise bad(option, path, "is empty")
    return text
