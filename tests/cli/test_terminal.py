"""What may reach a terminal: the pure functions."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest

from streamchat.cli.terminal import one_line, visible, visible_json, visible_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain text\n\tindented", "plain text\n\tindented", id="text is untouched"),
        pytest.param("\u65e5\u0639 \U0001f600", "\u65e5\u0639 \U0001f600", id="all scripts"),
        pytest.param("\x1b[31mred", "\u241b[31mred", id="colours"),
        pytest.param("\x1b]52;c;aGk=\x07", "\u241b]52;c;aGk=\u2407", id="OSC 52, the clipboard"),
        pytest.param("\x9d52;c;aGk=\x9c", "\ufffd52;c;aGk=\ufffd", id="OSC 52 in C1"),
        pytest.param("\x9b2J", "\ufffd2J", id="CSI in C1"),
        pytest.param("50%\r100%", "50%\u240d100%", id="carriage return overwrites"),
        pytest.param("a\bb\x7f", "a\u2408b\u2421", id="backspace and DEL"),
        pytest.param("\x00\x0b\x0c", "\u2400\u240b\u240c", id="NUL, VT, FF"),
        pytest.param("\u202eabc\u202c", "\ufffdabc\ufffd", id="bidirectional override"),
        pytest.param("\u2066abc\u2069", "\ufffdabc\ufffd", id="bidirectional isolate"),
        pytest.param("\u200fa\u200eb\u061c", "\ufffda\ufffdb\ufffd", id="bidirectional mark"),
        pytest.param("a\u200b\u2060\ufeff\xadb", "a\ufffd\ufffd\ufffd\ufffdb", id="zero width"),
        pytest.param("\u115f\u1160\u3164\uffa0", "\ufffd" * 4, id="Hangul fillers"),
        pytest.param("a\U000e0041\U000e0100\ufe00", "a\ufffd\ufffd\ufffd", id="tags, variations"),
        pytest.param("a\u2028b\u2029c", "a\ufffdb\ufffdc", id="separators"),
        pytest.param("\u06a9\u200c\u06cc", "\u06a9\u200c\u06cc", id="Persian is written so"),
        pytest.param("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525", id="emoji"),
        pytest.param("half \ud83d", "half \ufffd", id="half an emoji"),
    ],
)  # fmt: skip
def test_what_could_control_a_terminal_is_shown_instead(text: str, shown: str) -> None:
    """Each harmful character becomes a visible one, and nothing else changes."""
    assert visible(text) == shown


def test_no_invisible_character_is_forgotten() -> None:
    """What Unicode calls a control or format character is replaced, but for those that scripts need."""
    left = {
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        and visible(chr(code)) == chr(code)
    }
    seen = {"ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN"}  # number and layout signs that have a picture
    assert {code for code in left if unicodedata.name(chr(code), "").split()[0:1] == []} == {9, 10}
    named = {unicodedata.name(chr(code)) for code in left - {9, 10}}
    assert {name for name in named if name.split()[0] not in seen} == {
        "ZERO WIDTH NON-JOINER",
        "ZERO WIDTH JOINER",
    }


def test_printable_ascii_is_not_changed() -> None:
    text = "".join(map(chr, range(0x20, 0x7F)))
    assert visible(text) == visible_name(text) == text


def test_a_name_stays_in_one_line() -> None:
    """A file name may hold line ends, tabs and joiners; none of them is shown as it is."""
    assert (
        visible_name(Path("a\nb\tc\u200dd\ufe0f\x1b[2J")) == "a\u240ab\u2409c\ufffdd\ufffd\u241b[2J"
    )


def test_pieces_are_as_harmless_as_the_whole() -> None:
    """An escape sequence split over pieces is shown as the whole would be."""
    sequence = "\x1b]52;c;aGk=\x1b\\"
    assert "".join(map(visible, sequence)) == visible(sequence)


def test_json_keeps_its_meaning() -> None:
    """On a terminal JSON escapes what it may hold as it is, and decodes to the same."""
    data = {"text": "\x7f \x9b31m \u202e \u200b \U000e0041 \u2028 \u2764\ufe0f"}
    line = visible_json(json.dumps(data, ensure_ascii=False))
    assert visible(line) == line
    assert json.loads(line) == data


def test_a_title_cannot_fake_a_line() -> None:
    """White space of every kind becomes one space."""
    assert one_line(" a\n[2]\u2028\x85 b\t") == "a [2] b"
