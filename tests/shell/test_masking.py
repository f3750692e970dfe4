"""What a server repeats of a request's headers, and what errors show of it."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Callable

import pytest

from streamchat.credentials import Secret
from streamchat.masking import Mask

KEY = "sk+AbCd/EfGh1234==IjKl/9876+MnOp=="
KEYS = [
    KEY,
    "k" * 20 + "CANARY" + "z" * 90,
    "8letters",
    "quo\"te\\and&<>'%41 {}~",
    "0123456789abcdef0123456789abcdef",
]


def mask_of(value: str, name: str = "api-key") -> Mask:
    return Mask({"Accept": "text/event-stream", name: Secret(value)})


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda key: json.dumps(key)[1:-1],
    "JSON, slashes escaped": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "JSON, all escaped": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "JSON, all escaped in capitals": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key))[1:-1].strip('\\"'),
    ".NET": lambda key: "".join(c if c.isalnum() else f"\\u{ord(c):04X}" for c in key),
    "URL": lambda key: urllib.parse.quote(key, safe=""),
    "URL, lower case": lambda key: "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in key),
    "URL, all escaped": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "HTML": html.escape,
    "HTML, numbers": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "HTML, hexadecimal": lambda key: "".join(f"&#x{ord(c):X};" for c in key),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_value_is_masked_in_every_spelling(name: str, key: str) -> None:
    """JSON encoders, URL and HTML escapes of the servers that repeat it."""
    spelled = SPELLINGS[name](key)
    mask = mask_of(key)
    for before, after in (("bad key ", " given"), ('{"message":"', '"}'), ("", "")):
        assert mask.text(before + spelled + after) == f"{before}<key>{after}"
        assert mask.data(b"\xff" + spelled.encode()) == b"\xff<key>"


@pytest.mark.parametrize("before", ["", "u:", "ab", "abc"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_value_inside_base64_is_masked(encode: Callable[[bytes], bytes], before: str) -> None:
    """As in ``Basic`` credentials that a gateway makes of a key."""
    encoded = encode(f"{before}{KEY}".encode()).decode()
    shown = mask_of(KEY).text(f"Basic {encoded} refused")
    assert "<key>" in shown
    decodable = shown.split()[1].replace("<key>", "")
    assert len(decodable) <= 12  # what surrounds it, and the characters that depend on that


@pytest.mark.parametrize("end", ["", "...", '"', '"}', "]\n", "'"])
@pytest.mark.parametrize("kept", [8, 9, 20, len(KEY) - 1])
def test_the_start_of_a_value_at_the_end_of_a_text_is_masked(kept: int, end: str) -> None:
    """A body is cut at 64 KiB and words at 500 characters; servers cut too."""
    assert mask_of(KEY).text("bad key " + KEY[:kept] + end) == "bad key <key>" + end


def test_half_of_a_value_is_masked_anywhere() -> None:
    """With less, a common beginning of keys such as ``sk-proj-`` would be cut out of sentences."""
    mask = mask_of("sk-proj-0123456789abcdef")
    assert mask.text("key sk-proj-0123 is unknown") == "key <key> is unknown"
    assert mask.text("keys look like sk-proj-... here") == "keys look like sk-proj-... here"


@pytest.mark.parametrize("scheme", ["Bearer", "Basic", "Token", "ApiKey"])
@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-Authorization"])
def test_the_token_behind_a_scheme_is_masked(name: str, scheme: str) -> None:
    """With the scheme and alone; the scheme is a public word."""
    mask = mask_of(f"{scheme} {KEY}", name)
    assert mask.text(f"{scheme} {KEY}") == f"{scheme} <key>"
    assert mask.text(f"token={KEY};") == "token=<key>;"
    assert mask.text(f"{scheme} token required") == f"{scheme} token required"


def test_basic_credentials_are_masked_encoded_decoded_and_in_part() -> None:
    """RFC 7617: user and password in base64."""
    token = base64.b64encode(b"user:pass-word-1").decode()
    mask = mask_of(f"Basic {token}", "Authorization")
    for said in (token, "user:pass-word-1", "pass-word-1"):
        assert mask.text(f"not {said}!") == "not <key>!"
    assert mask.text("no such user") == "no such user"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Short", "1234567"),
        ("Accept", "application/vnd.x+json"),
        ("User-Agent", "my-app/1.0.0"),
        ("Content-Type", "application/json"),
        ("X-Format", "application/json"),
        ("Cache-Control", "no-cache, no-store"),
        ("X-Client-Name", "my-project"),
        ("x-client-name", "my-project"),
    ],
)
def test_public_words_are_not_masked(name: str, value: str) -> None:
    """Errors would be hard to read: negotiation, names of programs, and what this client sends."""
    assert mask_of(value, name).text(f"got {value}") == f"got {value}"


def test_the_clients_own_values_are_not_masked() -> None:
    """They are plain text; only a value of the caller's is a secret."""
    mask = Mask({"X-Own": "something-long", "X-Given": Secret("something-else")})
    assert mask.text("something-long something-else") == "something-long <key>"


def test_several_values_are_masked_each() -> None:
    """The key and the headers of the client, of the call and of middleware."""
    mask = Mask(
        {
            "Authorization": Secret("Bearer " + KEY),
            "X-A": Secret("first-secret"),
            "X-B": Secret("other-secret"),
        }
    )
    assert mask.any({"a": [f"{KEY} first-secret", b"other-secret"], "n": 5}) == {
        "a": ["<key> <key>", b"<key>"],
        "n": 5,
    }
    assert "secret" not in repr(mask)


@pytest.mark.parametrize("copies", [10, 100_000])
def test_a_text_of_near_copies_is_cut_rather_than_searched_for_seconds(copies: int) -> None:
    """The server knows the key, and could fill an event of megabytes with what looks like it."""
    near = KEY[:11] + "!"
    shown = mask_of(KEY).text(near * copies + "\\u0073" + KEY[1:])
    assert shown.endswith("<key>" if copies == 10 else "<key>...")
    assert len(shown) < 100_000
    assert KEY[1:] not in shown
