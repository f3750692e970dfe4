"""Answers, conversations and failures as Markdown, for notebooks; imports the vocabulary and its spans.

A model's text goes through as it is, but for two things. Outside of code, ``<`` loses its meaning where
it could begin HTML: a notebook that is exported as a page would run a script that a server sent. And
markers of footnotes stand after cited text, never inside code, links or formulas.

Where code begins and ends is read as CommonMark reads it (0.31.2, sections 4.5 and 6.1). Renderers
differ in formulas, tables and lists. So where two readings are possible, tags are escaped in what looks
like code as well: a stray ``&lt;`` is shown then, and no script is run.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

import attrs

from streamchat.protocol.messages import AssistantMessage, Citation, Source, ToolCall, Usage
from streamchat.protocol.spans import CitedKind, cited_spans

__all__ = [
    "Page",
    "answer_markdown",
    "message_markdown",
    "paragraphs",
    "plain_words",
    "shortened",
]

MOST_WORDS = 200
"""Characters of an id, a title or a name that are shown."""
MOST_ARGUMENTS = 500
"""Characters of a tool call's arguments that are shown."""
MOST_SPACE = 1000
"""Characters between a word and the end of a citation."""
MOST_COUNT = 10**15
"""Tokens; a JSON integer may be too large for a float."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_FENCE = re.compile(r"(?P<before>[ \t>*+\d.)-]*)(?P<fence>`{3,}(?=[^`]*$)|~{3,})")
_BLOCK = re.compile(r"^[ \t]*(?:[-*+>#|]|\d{1,9}[.)])", re.MULTILINE)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_INLINE = re.compile(
    r"""
      (?P<math>   \$\$.{1,1000}?\$\$ | \\\\?\[.{1,1000}?\\\\?\]
                | \\begin\{(?P<name>\w{1,30}\*?)\}.{1,1000}?\\end\{(?P=name)\}
                | \$(?=\S)[^$\n`]{1,2000}(?<=\S)\$(?!\d) )
    | (?P<open>   \$\$ | \\\\?\[ | \\begin\{ )
    | (?P<escape> \\. )
    | (?P<code>   (?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`) )
    | (?P<ticking>`+ )
    | (?P<signs>  [*_~]{2,} )
    | (?P<auto>   <(?:https?://|mailto:)[^\s<>"'`]{1,2000}> )
    | (?P<link>   !?\[[^\]\n`]{0,300}\]\([^)\n`]{0,2000}\) | https?://[^\s<>`]{1,2000} )
    """,
    re.VERBOSE | re.DOTALL,
)
_RULE = re.compile(r"[\s|:=*_>-]*")
_ROW = re.compile(r"[ \t>]*\|")
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$^\"':()])")


@attrs.frozen
class _Atom:
    """A part of a text that no marker may stand in."""

    start: int
    end: int
    is_code: bool = False
    """Whether every renderer takes it as code, so that HTML in it is only shown."""
    is_math: bool = False
    indent: str | None = None
    """Of fenced code: what a line begins with. A marker needs a line of its own."""


@attrs.frozen
class _Fence:
    """The beginning of fenced code."""

    start: int
    indent: str
    """What its lines begin with: white space, and the signs of a quotation."""
    signs: str
    before: str

    @property
    def is_inner(self) -> bool:
        """Whether it is in a list or a quotation, whose end is its end too."""
        return len(self.before) > 3 or bool(self.before.strip(" "))

    def is_left_by(self, words: str) -> bool:
        """Whether a line is outside of the list or quotation."""
        is_in = words.startswith(self.indent) or (
            ">" in self.indent and words.lstrip().startswith(">")
        )
        return self.is_inner and bool(words.strip()) and not is_in


class _Reader:
    """Finds the code, links and formulas of a text; see :attr:`atoms`."""

    def __init__(self, text: str, is_certain: bool) -> None:
        self._text = text
        self.atoms: list[_Atom] = []
        """In order, apart from each other."""
        self.open_fence = ""
        """The fence that is still open at the end, with its indent."""
        self.is_certain = is_certain
        """Whether all renderers agree so far about what is code."""
        self._read()

    def _read(self) -> None:
        begin = 0
        fence: _Fence | None = None
        for line in _LINE.finditer(self._text):
            words = line[0].rstrip("\r\n")
            if fence is not None and fence.is_left_by(words):
                self.atoms.append(_Atom(fence.start, line.start() - 1, indent=""))
                fence, begin = None, line.start()
            found = _FENCE.match(words)
            if fence is not None:
                if self._closes(words, fence):
                    end = line.start() + len(words)
                    self.atoms.append(_Atom(fence.start, end, self.is_certain, indent=fence.indent))
                    fence, begin = None, line.end()
            elif found is not None:
                self._inline(begin, line.start())
                fence = _Fence(line.start(), re.sub(r"[^ \t>]", " ", found[1]), found[2], found[1])
                # A pipe: some read the head of a table where others read a fence.
                self.is_certain &= not fence.is_inner and "|" not in words
            elif not words.strip(" \t"):
                self._inline(begin, line.start())
                begin = line.end()
        if fence is None:
            self._inline(begin, len(self._text))
        else:
            self.open_fence = fence.indent + fence.signs
            whole = (fence.start, len(self._text), self.is_certain)
            self.atoms.append(_Atom(*whole, indent=fence.indent))

    def _closes(self, words: str, fence: _Fence) -> bool:
        """Whether a line ends the fenced code; one that only some renderers end makes it uncertain."""
        bare = words.strip(" \t>")
        if not bare:
            return False
        own = words[: len(words) - len(words.lstrip(" \t>"))]
        closes = len(bare) >= len(fence.signs) and not bare.strip(fence.signs[0])
        if closes:
            self.is_certain &= own == fence.indent
        else:
            self.is_certain &= words.startswith(fence.indent) and not bare.startswith(fence.signs)
        return closes

    def _inline(self, start: int, end: int) -> None:
        """Read the lines between two blank ones, or fences: spans of code cannot reach beyond."""
        certain = self.is_certain
        if "`" in self._text[start:end] and "$" in self._text[start:end]:
            certain = False  # a formula may begin or end anywhere
        for found in self._constructs(start, end):
            kind, words = found.lastgroup, found[0]  # the outermost group
            if kind == "math":
                certain &= "`" not in words
            elif kind == "code":
                # Lines can be blocks of their own, and a pipe can end a cell of a table.
                certain &= not re.search(r"[\r\n|]", words)
            elif kind == "open":
                self.is_certain = certain = False  # its end may be anywhere below
            elif kind == "ticking" or words == "\\`":
                certain = False
            is_code = kind == "auto" or (kind == "code" and certain)
            self.atoms.append(_Atom(*found.span(), is_code, is_math=kind == "math"))

    def _constructs(self, start: int, end: int) -> Iterator[re.Match[str]]:
        """Those of each block: an item of a list, a row of a table, or other lines together."""
        begins = [found.start() for found in _BLOCK.finditer(self._text, start, end)]
        for begin, stop in pairwise(sorted({start, *begins, end})):
            yield from _INLINE.finditer(self._text, begin, stop)


def _escapes(text: str, atoms: list[_Atom]) -> Iterator[tuple[int, int, str]]:
    number = 0
    for found in _TAG.finditer(text):
        at = found.start()
        while number < len(atoms) and atoms[number].end <= at:
            number += 1
        atom = atoms[number] if number < len(atoms) and atoms[number].start <= at else None
        if atom is not None and text.startswith("\\<", atom.start):
            yield at - 1, 2, "&lt;"  # a backslash would escape the entity
        elif atom is None or not atom.is_code:
            # A formula is TeX: it knows no entities, and a space means nothing to it.
            yield at, 1, "< " if atom is not None and atom.is_math else "&lt;"


def _placed(
    text: str, atoms: list[_Atom], marks: Iterable[tuple[int, Sequence[str]]]
) -> Iterator[tuple[int, int, str]]:
    placed: dict[int, tuple[str | None, dict[str, None]]] = {}
    for position, markers in marks:
        at, indent = _place(text, atoms, position)
        placed.setdefault(at, (indent, {}))[1].update(dict.fromkeys(markers))
    for at, (indent, several) in placed.items():
        put = "".join(several)
        if indent is not None:
            yield at, 0, f"\n{indent}{put}\n"
        else:  # a marker and a parenthesis would be a link
            yield at, 0, f"{put}\\" if text.startswith("(", at) else put


def _place(text: str, atoms: list[_Atom], position: int) -> tuple[int, str | None]:
    """Where a marker of cited text that ends at a position goes; with an indent on its own line."""
    at = position
    if _atom_at(atoms, at) is None:
        at = _end_of_words(text, at)
    atom = _atom_at(atoms, at)
    return (at, None) if atom is None else (atom.end, atom.indent)


def _atom_at(atoms: list[_Atom], at: int) -> _Atom | None:
    """The atom that a position is in, or right behind if it is fenced code."""
    number = bisect_left(atoms, at, key=lambda atom: atom.end)
    if number == len(atoms) or atoms[number].start >= at:
        return None
    atom = atoms[number]
    return atom if at < atom.end or atom.indent is not None else None


def _end_of_words(text: str, position: int) -> int:
    """Back over white space, the end of a table's row, and lines that are rules and no words."""
    at = _before_space(text, position)
    while at:
        start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
        if _RULE.fullmatch(text, start, len(text) if end < 0 else end):
            at = _before_space(text, start)
        elif text[at - 1] == "|" and _ROW.match(text, start):
            return _before_space(text, at - 1)
        else:
            return at
    return len(text)


def _before_space(text: str, position: int) -> int:
    """Back over white space; 0 if there is nothing else, or very much of it."""
    for at in range(position, max(0, position - MOST_SPACE), -1):
        if not text[at - 1].isspace():
            return at
    return 0


class Page:
    """What the texts of one page share: footnotes, and whether it is certain so far what is code.

    A text that renderers read differently could open fenced code for some of them, and that would go
    on in the next text.

    Args:
        texts: those that are shown. If one has footnotes of its own, ours get other labels.
    """

    def __init__(self, *texts: str) -> None:
        self._label = "source-" if any("[^" in text for text in texts) else ""
        self._numbers: dict[str, int] = {}
        self._is_certain = True

    def text(self, text: str, marks: Iterable[tuple[int, Sequence[str]]] = ()) -> str:
        """A model's text with HTML made harmless outside of code, and open fenced code closed.

        Args:
            text: Markdown.
            marks: positions and the markers to put there, or at the next place where they break
                nothing.
        """
        reader = _Reader(text, self._is_certain)
        self._is_certain = reader.is_certain
        edits: list[tuple[int, int, str]] = []
        if reader.open_fence:
            edits.append((len(text), 0, f"\n{reader.open_fence}"))
        edits += _placed(text, reader.atoms, marks)
        edits += _escapes(text, reader.atoms)
        edits.sort(key=lambda edit: edit[0])  # stable: a fence is closed, then marked
        parts: list[str] = []
        done = 0
        for at, length, put in edits:
            parts += text[done:at], put
            done = at + length
        return "".join([*parts, text[done:]])

    def code(self, text: str) -> str:
        """Text as fenced code; the fence is longer than any in the text."""
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        return f"{fence}text\n{text if self._is_certain else _TAG.sub('&lt;', text)}\n{fence}"

    def mark(self, sources: Iterable[Source]) -> list[str]:
        """The markers of sources; each source is listed once."""
        words = [_source_words(source) for source in sources] or ["Source not named"]
        numbers = [self._numbers.setdefault(each, len(self._numbers) + 1) for each in words]
        return [f"[^{self._label}{number}]" for number in numbers]

    def footnotes(self) -> str:
        """The list of the sources."""
        # Two words, the second of which is no title in quotes: where footnotes are not known, the
        # line is text and not the target of a link.
        return "\n\n".join(
            f"[^{self._label}{number}]: {words}" for words, number in self._numbers.items()
        )


def _source_words(source: Source) -> str:
    title = (source.document or {}).get("title")
    words = plain_words(title) if isinstance(title, str) else ""
    own_id = plain_words(source.id or "")
    if not own_id:
        return f"Source without an id: {words}" if words else "Source without an id"
    return f"Source **{own_id}**: {words}" if words else f"Source **{own_id}**"


def cited_markdown(message: AssistantMessage, of: CitedKind, page: Page) -> str:
    """The text, thinking or plan of a message, with a marker behind each cited piece."""
    position = 0
    texts: list[str] = []
    ends: dict[int, tuple[int, Citation]] = {}
    for span in cited_spans(message, of):
        texts.append(span.text)
        position += len(span.text)
        ends |= {id(citation): (position, citation) for citation in span.citations}
    in_order = sorted(ends.values(), key=lambda found: found[0])
    marks = [(end, page.mark(citation.sources)) for end, citation in in_order]
    return page.text("".join(texts), marks)


def message_markdown(message: AssistantMessage, page: Page) -> list[str]:
    """The paragraphs of an assistant's message, without the list of its footnotes."""
    thinking = cited_markdown(message, "thinking", page)
    return [
        folded("Thinking", thinking) if thinking else "",
        cited_markdown(message, "plan", page),
        cited_markdown(message, "text", page),
        page.code("\n".join(map(_call_words, message.tool_calls))) if message.tool_calls else "",
    ]


def answer_markdown(
    message: AssistantMessage, usage: Usage, finish_reason: str | None, error: str | None
) -> str:
    """A whole answer: thinking folded, text with footnotes, tool calls, and a line of figures."""
    page = Page(message.text, message.thinking, message.tool_plan)
    parts = message_markdown(message, page)
    if not any(parts):
        parts = ["*no text*"]
    figures = [_token_words(usage), plain_words(finish_reason or ""), plain_words(error or "")]
    last = " · ".join(filter(None, figures))
    return paragraphs(*parts, page.footnotes(), f"*{last}*" if last else "")


def _call_words(call: ToolCall) -> str:
    arguments = shortened(call.arguments, MOST_ARGUMENTS)
    return " ".join(f"{shortened(call.name, MOST_WORDS)}({arguments})".splitlines())


def _token_words(usage: Usage) -> str:
    for counts in (usage.tokens, usage.billed_units):
        read, written = _number(counts.input_tokens), _number(counts.output_tokens)
        if read and written:
            return f"{read} tokens in, {written} out"
        if read or written:
            return f"{read} tokens in" if read else f"{written} tokens out"
    return ""


def _number(count: float | None) -> str:
    """A count as text; empty if there is none, or what the server sent is nonsense."""
    if count is None or not 0 <= count <= MOST_COUNT:
        return ""
    return f"{count:.0f}" if count == round(count) else f"{count}"


def paragraphs(*parts: str) -> str:
    """Those parts that are not empty, apart from each other."""
    return "\n\n".join(filter(None, parts))


def folded(title: str, markdown: str) -> str:
    """What is shown when the reader opens it."""
    return f"<details><summary>{title}</summary>\n\n{markdown}\n\n</details>"


def plain_words(text: str, most: int = MOST_WORDS) -> str:
    """Somebody else's words in one line that is neither Markdown nor HTML; long ones are cut."""
    words = shortened(" ".join(text.split()), most)
    return _SPECIAL.sub(r"\\\1", escape(words, quote=False))


def shortened(text: str, most: int) -> str:
    """Text, cut if it is long."""
    return text if len(text) <= most else f"{text[:most]}…"
