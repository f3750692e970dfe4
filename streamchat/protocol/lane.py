"""What the deltas of one block have in common, and their texts without the rest.

Nearly every event is a delta of the block that is being streamed, and differs from the one before only
in a string. A *lane* is what stands before and after that string, whatever the wire's order of keys and
spacing: a block that starts and ends so is read by decoding the JSON string in between, and neighbours
by decoding theirs together, 0.3 us a string where the full way takes 2.6 (benchmarks/decode.py).

A lane is proven before it is used: with a probe in place of the string, the full way must give the
same event with the probe for its text. What stands between the quotes is then that text and nothing
else; it is decoded as one JSON string, which cannot hold a raw line end. A proof costs as much as ten
events save, and the bytes around the string are the same in each answer of a server: so proofs are kept
for the streams that follow, which share the lane, and a tool call of three deltas gains as well. A fuzz
test holds both ways equal.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import msgspec

from streamchat.protocol.codec import decode_event
from streamchat.protocol.errors import DecodeError, GenerationError
from streamchat.protocol.events import ContentDelta, Event, ToolCallDelta, ToolPlanDelta
from streamchat.protocol.sse import FrameDecoder

__all__ = ["Lane", "decode_string"]

decode_string = msgspec.json.Decoder(str).decode
"""A JSON string, quotes included."""
_decode_strings = msgspec.json.Decoder(list[str]).decode
_PROBE = b"\xe2\x90\xa3 probe \xe2\x90\xa3"
_MAX_AROUND = 512
"""Bytes around a string: longer ones are of nothing that comes often, and would be kept."""
_MAX_PROVEN = 256
_MAX_PLACES = 4
"""Places in a block that are tried: a token like ``"text"`` stands in the keys as well."""


Surroundings = tuple[str, int, bytes, bytes]
"""What may be a lane: the kind of delta (``text``, ``thinking``, ``arguments`` or ``tool_plan``), the
index of its block or call, and what stands before and behind the string, the quotes included."""

_proven: dict[Surroundings, Lane | None] = {}
"""Whether a block that starts and ends so is a delta of this kind and index; a fact about bytes, the
same for every stream. Forgotten when there are ``_MAX_PROVEN``."""


@attrs.frozen(eq=False)
class Lane:
    """Surroundings that were proven."""

    kind: str
    index: int
    prefix: bytes
    suffix: bytes
    make: Callable[[str], Event]
    """The delta with this text."""
    _suffix_and_blank: bytes
    around: int
    """Bytes of the prefix and the suffix."""

    @staticmethod
    def find(
        kind: str, index: int, block: bytes, text: str, proofs: int
    ) -> tuple[Lane | None, int]:
        """The lane of a delta that was read the full way, and how many proofs it took.

        Args:
            kind: ``text``, ``thinking``, ``arguments`` or ``tool_plan``.
            index: of its content block or tool call; 0 for a plan.
            block: the delta's block.
            text: its text, not empty.
            proofs: how many may be tried.
        """
        literal, place, tried = msgspec.json.encode(text), -1, 0
        for _ in range(_MAX_PLACES):
            place = block.find(literal, place + 1)
            if place < 0:
                break
            around = kind, index, block[: place + 1], block[place + len(literal) - 1 :]
            if around in _proven:
                lane = _proven[around]
            elif tried == proofs:
                break
            else:
                tried += 1
                lane = _prove(around)
            if lane is not None:
                return lane, tried
        return None, tried

    def read_chunk(self, chunk: bytes) -> str | None:
        """The text, if the chunk is one block of the lane and its blank line; else ``None``.

        Also if what the block holds is not a JSON string: the full way says what is wrong with it.
        """
        return _text(chunk, self.prefix, self._suffix_and_blank, self.around + 2)

    def read_run(self, blocks: bytes) -> list[str] | None:
        """The texts, if the blocks, a blank line between two, are several and all of the lane."""
        around, prefix = self.around, self.prefix
        if len(blocks) < 2 * around or not blocks.startswith(prefix):
            return None  # most often seen without looking at each block
        strings = [
            block.removeprefix(prefix)
            for block in blocks.removesuffix(self.suffix).split(self._suffix_and_blank)
        ]
        count = len(strings)
        joined = b'","'.join(strings)
        # Nothing else was removed than a prefix a block, and the last block's suffix. If that much is
        # gone, all of them were there.
        if len(blocks) - len(joined) != count * around - (count - 1):
            return None
        try:
            if joined.find(b'\\"') >= 0:
                return [decode_string(b'"' + string + b'"') for string in strings]
            # Without an escaped quote every quote begins or ends a string. As many strings as there
            # are pieces: so no piece has one in it, and none a line end, which only stands outside.
            texts = _decode_strings(b'["' + joined + b'"]')
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return texts if len(texts) == count else None


def _text(block: bytes, prefix: bytes, suffix: bytes, around: int) -> str | None:
    # Both are there if both were removed. (startswith and endswith take twice as long.)
    string = block.removeprefix(prefix).removesuffix(suffix)
    if len(block) - len(string) != around:
        return None
    try:
        return decode_string(b'"' + string + b'"')
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _prove(around: Surroundings) -> Lane | None:
    kind, index, prefix, suffix = around
    size = len(prefix) + len(suffix)
    if size > _MAX_AROUND:
        return None
    make, lane = _maker(kind, index), None
    if _says(prefix + _PROBE + suffix, make(_PROBE.decode())):
        lane = Lane(kind, index, prefix, suffix, make, suffix + b"\n\n", size)
    if len(_proven) >= _MAX_PROVEN:
        _proven.clear()
    _proven[around] = lane
    return lane


def _says(block: bytes, event: Event) -> bool:
    """Whether the full way reads this event from the block."""
    frame = FrameDecoder().parse(block)
    try:
        return frame is not None and decode_event(frame) == event
    except (DecodeError, GenerationError):
        return False


def _maker(kind: str, index: int) -> Callable[[str], Event]:
    """How to make a delta of this kind from its text."""
    match kind:
        case "text":
            return ContentDelta if index == 0 else lambda text: ContentDelta(text, index)
        case "thinking":
            return lambda text: ContentDelta("", index, text, "thinking")
        case "tool_plan":
            return ToolPlanDelta
        case _:
            return ToolCallDelta if index == 0 else lambda text: ToolCallDelta(text, index)
