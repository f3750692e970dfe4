"""Which request an index is: keys, and how rows of an earlier run are matched to another input."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import attrs

from streamchat.protocol.plain import to_plain

__all__ = ["ABSENT", "MAX_REQUESTS", "Keys", "checked_index", "checked_key", "match", "request_key"]

MAX_REQUESTS = 10**8
"""An index beyond it is no index: keys are held by index, and these take 1.6 GB."""

_KEY_BYTES = 16
ABSENT = bytes(_KEY_BYTES)
_HEX = re.compile("[0-9a-f]{32}")


def request_key(body: Mapping[str, Any]) -> str:
    """What identifies a request between runs: 32 hex digits that do not depend on key order.

    Args:
        body: the request as it is sent. If input rows have an ``id``, put it in as well: of two
            rows with one key either may get the other's result, and with it the other's id.

    Raises:
        TypeError, ValueError: it is no JSON, as :func:`streamchat.protocol.plain.to_plain` says.
    """
    canonical = json.dumps(to_plain(body), sort_keys=True, separators=(",", ":"))
    return blake2b(canonical.encode(), digest_size=_KEY_BYTES).hexdigest()


def checked_index(value: Any) -> int:
    """A request's index; ``ValueError`` if it is none."""
    if type(value) is not int or not 0 <= value < MAX_REQUESTS:
        raise ValueError(f"an index is a number from 0, below {MAX_REQUESTS}")
    return value


def checked_key(text: Any) -> bytes:
    """The bytes of a key; ``ValueError`` if it is none."""
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ValueError("a key is what request_key() returns: 32 hex digits")
    return bytes.fromhex(text)


@attrs.define
class Keys:
    """Keys by index, 16 bytes each where a dict takes 150; all zeros where there is none."""

    data: bytearray = attrs.field(factory=bytearray)

    def __len__(self) -> int:
        return len(self.data) // _KEY_BYTES

    def __getitem__(self, index: int) -> bytes:
        start = _KEY_BYTES * index
        return bytes(self.data[start : start + _KEY_BYTES]) or ABSENT

    def __setitem__(self, index: int, key: bytes) -> None:
        start = _KEY_BYTES * index
        if start > len(self.data):
            self.data += bytes(start - len(self.data))
        self.data[start : start + _KEY_BYTES] = key

    def differ_from(self, other: Keys) -> bool:
        """Whether a key stands here where ``other`` has another one, or none."""
        return any(self[index] not in (ABSENT, other[index]) for index in range(len(self)))


def match(rows: Sequence[int], known: Keys, wanted: Keys) -> array[int]:
    """The new index of each row, -1 where no request wants it; rows that fit stay where they are.

    The rest is a chained hash table in two arrays: 16 bytes a row.
    """
    places = array("q", [-1]) * len(rows)
    taken = bytearray(len(wanted))
    heads, follow = array("q", [-1]) * (len(rows) + 1), array("q", [-1]) * len(rows)
    for row, index in enumerate(rows):
        if known[index] == wanted[index] != ABSENT and not taken[index]:
            places[row] = index
            taken[index] = True
    for row in reversed(range(len(rows))):  # so that the first of equal rows heads the chain
        key = known[rows[row]]
        if places[row] < 0 and key != ABSENT:
            slot = hash(key) % len(heads)
            heads[slot], follow[row] = row, heads[slot]
    for index in range(len(wanted)):
        if taken[index]:
            continue
        key = wanted[index]
        chain, at = heads, hash(key) % len(heads)
        while (row := chain[at]) >= 0 and known[rows[row]] != key:
            chain, at = follow, row
        if row >= 0:
            places[row] = index
            chain[at] = follow[row]
    return places
