"""Reading text: words, sentences, numbers, names, tokens. Pure functions; imports nothing of ours.

Nothing here understands language: it is just enough for :mod:`streamchat.local.model` to use its
input. All positions are code points, as in Cohere's citations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["cut", "names", "numbers", "quoted", "sentences", "split_name", "stems", "words"]

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+(?:['\u2019][^\W_]+)*")
_CJK_WORD = re.compile(rf"[{_CJK}]")

_SAYING_NOTHING = """a about above after again all also am an and any are as at be been before being
    below between both but by can could did do does doing down during each few for from further had
    has have having he her here him his how i i'm if in into is it it's its just let's may me might
    more most much many my no nor not now of off on once only or other our out over own please s
    same shall she should so some such tell than that that's the their them then there these they
    this those through to too under until up us very was we were what what's when where which while
    who whom whose why will with would yes you your"""
STOP_WORDS = frozenset(_SAYING_NOTHING.split())
"""Words that say nothing about a subject, after casefold."""

_COUNTING = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTING.split())} | {
    "dozen": 12,
    "twenty": 20,
    "thirty": 30,
    "fifty": 50,
    "hundred": 100,
    "thousand": 1000,
}
_APOSTROPHE = "\u2019"


def words(text: str) -> Iterator[str]:
    """The words as written; a run of Chinese, Japanese or Korean comes as pairs of characters,
    because nothing separates its words."""
    for found in _WORD.finditer(text):
        word = found.group()
        if len(word) > 1 and _CJK_WORD.match(word):
            yield from (word[start : start + 2] for start in range(len(word) - 1))
        else:
            yield word


def is_stop_word(word: str) -> bool:
    """Whether the word says nothing about a subject."""
    return word.casefold().replace(_APOSTROPHE, "'") in STOP_WORDS


def stem(word: str) -> str:
    """The word without its English ending, so that *benefits* finds *benefit*."""
    folded = word.casefold().replace(_APOSTROPHE, "'").removesuffix("'s")
    if len(folded) > 3 and folded.isascii():
        if folded.endswith("ies"):
            folded = folded[:-3] + "y"
        elif folded.endswith("s") and not folded.endswith("ss"):
            folded = folded[:-1]
        for ending in ("ing", "ed", "e"):
            if folded.endswith(ending) and len(folded) > len(ending) + 2:
                folded = folded[: -len(ending)]
                break
    return folded


def stems(text: str) -> frozenset[str]:
    """The stems of all words that say something."""
    return frozenset(stem(word) for word in words(text) if not is_stop_word(word))


def split_name(name: str) -> str:
    """An identifier as words: ``get_weatherReport`` is ``get weather Report``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+", " ", name)


_SENTENCE_END = re.compile(
    r"(?<=[.!?…])[\"\u201d\u2019)]*\s+|(?<=[\u3002\uff01\uff1f])|[^\S\n]{0,8}\n\s*"
)


def sentences(text: str) -> list[str]:
    """The sentences, stripped, each a verbatim slice of the text."""
    found: list[str] = []
    start = 0
    for gap in _SENTENCE_END.finditer(text):
        quotes = len(gap.group()) - len(gap.group().lstrip('"\u201d\u2019)'))
        found.append(text[start : gap.start() + quotes].strip())
        start = gap.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


_NUMBER = re.compile(
    r"(?<![\w.\-])-?[0-9]{1,15}(?:,[0-9]{3})*(?:\.[0-9]{1,9})?|[^\W\d_]+|[0-9]{1,15}"
)


def numbers(text: str) -> list[int | float]:
    """The numbers, in digits or in small English number words, in order."""
    found: list[int | float] = []
    for match in _NUMBER.finditer(text):
        word = match.group().replace(",", "")
        if word.casefold() in _NUMBER_WORDS:
            found.append(_NUMBER_WORDS[word.casefold()])
        elif word[-1].isdigit():
            found.append(float(word) if "." in word else int(word))
    return found


_QUOTED = re.compile(
    r"\"([^\"\n]+)\"|\u201c([^\u201d]+)\u201d|\u00ab([^\u00bb]+)\u00bb|`([^`\n]+)`|(?<!\w)'([^'\n]+)'(?!\w)"
)


def quoted(text: str) -> list[str]:
    """What stands in quotation marks, in order."""
    return [next(group for group in match.groups() if group) for match in _QUOTED.finditer(text)]


_NAME_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_AFTER_PREPOSITION = re.compile(
    r"\b(?:in|for|at|from|to|near|of|about|between|and|or)\s+([^\W\d_][\w-]*)|,\s*([^\W\d_][\w-]*)",
    re.IGNORECASE,
)


def names(text: str, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Proper names, in order: runs of capitalised words; failing that, what follows a preposition.

    Args:
        ignore: stems that are no names here, such as the words of a tool's own description.
    """
    weak: list[str] = []
    strong: list[str] = []
    waiting = (-1, "")
    for run, initial, start, end in _capitalised_runs(text, ignore):
        if waiting[1] and _LIST_COMMA.fullmatch(text, waiting[0], start):
            strong.append(waiting[1])  # "Ana and Bob": the first of a list is a name as well
            initial = False
        # A lone capital at the start of a sentence says nothing: any word has it there.
        lone = initial and len(run) == 1
        (weak if lone else strong).append(" ".join(run))
        waiting = (end, run[0]) if lone else (-1, "")
    if strong or weak:
        return strong or weak
    return [
        word
        for match in _AFTER_PREPOSITION.finditer(text)
        for word in match.groups()
        if word and not is_stop_word(word) and stem(word) not in ignore
    ]


_LIST_COMMA = re.compile(r"\s*(?:,|&|,?\s+(?:and|or|y|e|et|und)\b)\s*")


def _capitalised_runs(
    text: str, ignore: frozenset[str]
) -> Iterator[tuple[list[str], bool, int, int]]:
    """Capitalised words side by side, whether they begin a sentence, and where they stand."""
    run: list[str] = []
    initial = False
    start = end = 0
    for match in _NAME_WORD.finditer(text):
        word = match.group()
        fits = word[0].isupper() and not is_stop_word(word) and stem(word) not in ignore
        if run and not (fits and text[end : match.start()] == " "):
            yield run, initial, start, end
            run = []
        if fits:
            if not run:
                start = match.start()
                before = text[max(0, match.start() - 4) : match.start()].rstrip(" \"\u201c\u00ab'(")
                initial = not before or before[-1] in ".!?:\n"
            run.append(word)
            end = match.end()
    if run:
        yield run, initial, start, end


_TOKEN = re.compile(
    rf"[{_CJK}]{{1,2}}| ?[^\W\d_{_CJK}]{{1,12}}| ?\d{{1,3}}| ?[!-/:-@\[-`{{-~]{{1,2}}"
    r"| ?[^\w\s]|[\n\t ]{1,8}(?=\S)|\s{1,8}|_|.",
    re.DOTALL,
)
_JOINERS = frozenset("\u200d\ufe0e\ufe0f\u20e3") | {chr(code) for code in range(0x1F3FB, 0x1F400)}


def cut(text: str) -> list[str]:
    """The text in pieces of about one token; joined they are the text again.

    A character keeps its combining marks, an emoji its variants and what is joined to it.
    """
    pieces: list[str] = []
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if pieces and _belongs_to(pieces[-1], piece):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


def _belongs_to(before: str, piece: str) -> bool:
    first = piece[0]
    if first.isascii():
        return False
    if first in _JOINERS or before[-1] == "\u200d" or unicodedata.category(first)[0] == "M":
        return len(before) < 64
    return _is_flag_half(first) and _is_flag_half(before[-1]) and len(before.strip()) == 1


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
