"""What a question offers to fill in: quotes, names, numbers, words. Imports ``words`` only."""

from __future__ import annotations

import re

from streamchat.local.words import (
    is_stop_word,
    names,
    numbers,
    quoted,
    split_name,
    stem,
    stems,
    words,
)

__all__ = ["COMMANDS", "Hints"]

NAME_LIMIT = 100
"""Code points of a property's name that are read."""
READ_LIMIT = 10_000
"""Code points of the question in which values are looked for."""
INSTRUCTION_LENGTH = 60
"""Code points before a colon that are taken for an instruction ("Extract the order: ...")."""

_ASKED_FOR_WHOLE = stems("question prompt text message code input request body content")
_SEARCHED = stems("query search keywords")
_NAMES_A_THING = stems("item product food thing task topic keyword category action kind subject")
COMMANDS = stems(
    """answer call create describe extract fill find generate get give json list make object output
    parse please print produce reply respond return run schema search send show tell use write"""
)
"""Words of an instruction: no values."""


class Hints:
    """What a question offers to fill in; each hint is handed out once.

    Args:
        question: what the user said.
        ignore: stems that belong to the tool or schema and are no values.
        more: what else is known, used after the question.
    """

    def __init__(self, question: str, ignore: frozenset[str] = frozenset(), more: str = "") -> None:
        self.question = question = question[:READ_LIMIT].strip()
        told_more = f"\n{more}" if more else ""
        self.question += told_more
        self._said = split_name(self.question).casefold()
        self._folded = self.question.casefold()
        self._in_format: dict[str, str | None] = {}
        ignored = ignore | COMMANDS
        instruction, _, told = question.partition(": ")
        if told and len(instruction) <= INSTRUCTION_LENGTH:
            question = told
        question += told_more
        self.names = names(question, ignored)
        self.quoted = quoted(question)
        self.numbers = numbers(question)
        self._has_numbers = bool(numbers(self.question))
        taken = stems(" ".join(self.names))
        self.rest = [
            word
            for word in words(question)
            if not (is_stop_word(word) or stem(word) in ignored | taken or numbers(word))
        ]

    def has_text_for(self, name: str) -> bool:
        """Whether the question says, quotes or names a text for this property."""
        wanted = stems(split_name(name[:NAME_LIMIT]))
        if wanted & (_SEARCHED | _ASKED_FOR_WHOLE):
            return bool(self.names or self.quoted or self.rest)
        return bool(self.names or self.quoted or self.said_of(name) or self.in_format(None, name))

    def text_for(self, name: str) -> str:
        """The best text for a property of this name; never empty."""
        name = split_name(name[:NAME_LIMIT])
        wanted = stems(name)
        if self.quoted:
            return self.quoted.pop(0)
        if wanted & _SEARCHED and self.names + self.rest:
            told = stems(" ".join([*self.names, *self.rest]))
            return " ".join(
                word.strip(".,;:?!")
                for word in self.question.split()
                if stems(word) & told or any(map(str.isdigit, word))
            )
        if wanted & _ASKED_FOR_WHOLE and self.question:
            return self.question
        pools = [self.rest, self.names] if wanted & _NAMES_A_THING else [self.names, self.rest]
        for pool in pools:
            if pool:
                return pool.pop(0)
        return name.strip() or "text"

    def number_beside(self, name: str) -> int | float | None:
        """The number beside the property's own name ("3 days" for ``days``), or ``None``."""
        if not self._has_numbers:
            return None
        for word in words(split_name(name[:NAME_LIMIT])):
            if stem(word) not in self._folded:
                continue
            said, root = re.escape(word), re.escape(stem(word))
            places = [rf"\b{said}\s*(?:is|=|:)\s*(\S{{1,20}})"]
            if len(word) > 2:
                places += [rf"(?<!\S)(\S{{1,20}})\s{root}", rf"\b{said}\s(?:of |to )?(\S{{1,20}})"]
            for place in places:
                near = re.search(place, self.question, re.IGNORECASE)
                found = numbers(near.group(1)) if near else []
                if found:
                    return found[0]
        return None

    def number_for(self, name: str) -> int | float | None:
        """The number beside the name, else the next one; ``None`` when there are no more."""
        value = self.number_beside(name)
        if value is None:
            return self.numbers.pop(0) if self.numbers else None
        if value in self.numbers:
            self.numbers.remove(value)
        return value

    def mentions(self, value: object) -> bool:
        """Whether the question says this value."""
        text = str(value) if isinstance(value, str | int | float) else ""
        text = split_name(text[: len(self.question) + 1]).casefold()
        start = self._said.find(text) if text else -1
        while start >= 0:
            around = self._said[max(0, start - 1) : start], self._said[start + len(text) :][:1]
            if not any(char.isalnum() or char == "_" for char in around):
                return True
            start = self._said.find(text, start + len(text))
        return False

    def said_of(self, name: str) -> str | None:
        """What follows the property's name ("color: red", "color=red"), or ``None``."""
        name = name[:NAME_LIMIT]
        if split_name(name).casefold() not in self._folded:
            return None
        pattern = rf"\b{re.escape(split_name(name))}\s*[:=]\s*([^\s,;]+)"
        found = re.search(pattern, self.question, re.IGNORECASE)
        return found.group(1) if found else None

    def denies(self, name: str) -> bool:
        """Whether the name stands behind a *no* ("without sugar")."""
        name = name[:NAME_LIMIT]
        denied = rf"\b(?:no|not|without|don't)\s(?:\w{{1,20}}\s)?{re.escape(split_name(name))}"
        return re.search(denied, self.question, re.IGNORECASE) is not None

    def in_format(self, stated: object, name: str) -> str | None:
        """What the question has in a JSON Schema ``format``; a property's name may be one."""
        last = (split_name(name[-NAME_LIMIT:]).split() or [""])[-1].casefold()
        kind = stated if isinstance(stated, str) else _FORMAT_OF_NAME.get(last, last)
        if kind not in _FORMATS:
            return None
        if kind not in self._in_format:
            found = re.search(_FORMATS[kind], self.question)
            self._in_format[kind] = found.group() if found else None
        return self._in_format[kind]


_MONTH = r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_ISO_DAY = r"\b\d{4}-\d{2}-\d{2}\b"
_DAY = r"\b\d{1,2}(?:st|nd|rd|th)?"
_TIME = r"\d{2}:\d{2}:\d{2}(?:Z|[+-]\d{2}:\d{2})"
_FORMATS = {
    "date": _ISO_DAY,
    "date-time": rf"\b\d{{4}}-\d{{2}}-\d{{2}}T{_TIME}",
    "time": rf"\b{_TIME}",
    "email": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "uri": r"https?://[^\s\"'<>]+",
    "uuid": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    "hostname": r"\b[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b",
    "ipv4": r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    "spoken date": (rf"{_ISO_DAY}|{_DAY}(?: of)? {_MONTH},? \d{{4}}|{_MONTH} {_DAY},? \d{{4}}"),
    "file": r"[\w./-]{1,200}\.[A-Za-z]\w{0,4}\b",
}
"""How each format is found in a question."""
_FORMAT_OF_NAME = {
    "date": "spoken date",
    "day": "spoken date",
    "url": "uri",
    "link": "uri",
    "path": "file",
    "filename": "file",
}
"""Property names that tell a format; others are formats by themselves, such as ``email``."""
