"""What may reach a terminal: the pure functions."""

import json

import pytest

from streamchat.cli.terminal import one_line, visible, visible_json


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
        pytest.param("\u200fabc", "\u200fabc", id="a mark is no override"),
        pytest.param("half \ud83d", "half \ufffd", id="half an emoji"),
    ],
)  # fmt: skip
def test_what_could_control_a_terminal_is_shown_instead(text: str, shown: str) -> None:
    """Each harmful character becomes a visible one, and nothing else changes."""
    assert visible(text) == shown


def test_no_control_character_is_forgotten() -> None:
    """C0 but for line end and tab, DEL, C1, and the nine bidirectional controls."""
    changed = {code for code in range(0xD800) if visible(chr(code)) != chr(code)}
    controls = {*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A}
    assert changed == controls | {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def test_pieces_are_as_harmless_as_the_whole() -> None:
    """An escape sequence split over pieces is shown as the whole would be."""
    sequence = "\x1b]52;c;aGk=\x1b\\"
    assert "".join(map(visible, sequence)) == visible(sequence)


def test_json_keeps_its_meaning() -> None:
    """On a terminal JSON escapes what it may hold as it is, and decodes to the same."""
    data = {"text": "\x7f \x9b31m \u202e"}
    line = visible_json(json.dumps(data, ensure_ascii=False))
    assert visible(line) == line
    assert json.loads(line) == data


def test_a_title_cannot_fake_a_line() -> None:
    """White space of every kind becomes one space."""
    assert one_line(" a\n[2]\u2028\x85 b\t") == "a [2] b"
