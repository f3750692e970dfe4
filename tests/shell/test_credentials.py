"""Secrets: opaque as text, whole on the wire; headers that a caller may and may not give."""

from __future__ import annotations

import copy
import json
import pickle
import pprint
import pydoc
import reprlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from multidict import CIMultiDict

from streamchat.credentials import Secret, Veiled, checked_headers, checked_key, hidden, reveal
from streamchat.protocol.errors import ConfigurationError

LONG = "canary-" + "k" * 200
VALUES = ["canary-4711", LONG, "canary" * 700]


# --- a secret as text ----------------------------------------------------------------------------

SHOWS: dict[str, Callable[[Secret], Any]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": lambda secret: f"{secret} {secret!s:>300} {secret!r}",
    "percent": lambda secret: "%s %10s %r" % (secret, secret, secret),  # noqa: UP031
    "join": lambda secret: ", ".join([secret, secret]),
    "replace": lambda secret: secret.replace("x", "y") + "".join(secret.partition("k")),
    "iteration": lambda secret: "".join(list(secret)),
    "encode": lambda secret: secret.encode(),
    "case": lambda secret: secret.upper().lower(),
    "json": lambda secret: json.dumps({"key": secret}),
    "slice": lambda secret: [secret[:5], secret[3], secret[-40:], f"{secret[:80]!r}+40"],
    "concatenation": lambda secret: ["Bearer " + secret, secret + "x", secret + secret],
    "reprlib": reprlib.repr,
    "pprint": pprint.pformat,
    "cgitb": pydoc.html.repr,
    "pydoc": pydoc.text.repr,
    "container": lambda secret: [{"a": secret}, (secret,), CIMultiDict({"a": secret})],
    "pickle": lambda secret: [pickle.dumps(secret, protocol) for protocol in range(6)],
    "copies": lambda secret: [copy.copy(secret), copy.deepcopy({"a": [secret]})],
}


@pytest.mark.parametrize("value", VALUES, ids=["short", "long", "longest"])
@pytest.mark.parametrize("name", SHOWS)
def test_a_secret_shows_in_no_form_of_text(name: str, value: str) -> None:
    """Whatever prints local variables, cuts long strings or serializes them."""
    shown = repr(SHOWS[name](Secret(value)))
    assert "canary" not in shown.lower()
    assert "kkk" not in shown.lower()


def test_parts_and_sums_of_secrets_are_secrets_of_the_right_value() -> None:
    """So that a prefix can be put before a key without a plain string in between."""
    secret = Secret("canary-4711")
    for part, value in (
        (secret[:6], "canary"),
        (secret[-1], "1"),
        ("Bearer " + secret, "Bearer canary-4711"),
        (secret + "!", "canary-4711!"),
        (secret + Secret("x"), "canary-4711x"),
    ):
        assert isinstance(part, Secret)
        assert reveal(part) == value


def test_a_secret_compares_as_its_value() -> None:
    """Not as what it shows, which is the same for all."""
    assert Secret("a") == "a" == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "<secret>"
    assert Secret("a") != 5
    assert {Secret("a"): 1} == {"a": 1}
    assert bool(Secret("")) is False is not bool(Secret("a"))


def test_copies_and_pickles_of_a_secret_are_the_secret() -> None:
    """A client's settings can be copied; nothing but this process can read the pickle."""
    secret = Secret(LONG)
    assert copy.copy(secret) is secret is copy.deepcopy([secret])[0]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps({"a": secret}, protocol))["a"] is secret


def test_a_pickled_secret_has_no_value_in_another_process() -> None:
    """It loads, and says why it cannot be used."""
    code = (
        "import pickle, sys; from streamchat.credentials import reveal\n"
        "secret = pickle.load(sys.stdin.buffer); print(repr(secret), bool(secret))\n"
        "try: reveal(secret)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(Secret(LONG)),
        capture_output=True,
        check=True,
    )
    first, second = ran.stdout.decode().splitlines()
    assert first == "<secret> False"
    assert second.startswith("ConfigurationError this secret was pickled by another process")


def test_a_veiled_value_can_be_read_by_libraries_and_is_not_shown() -> None:
    """aiohttp reads its characters; a tool that prints or records it does not get them."""
    veiled = Veiled(LONG)
    assert "".join(["a", veiled]) == "a" + LONG
    assert str(veiled) == LONG
    shown = [veiled, veiled[:80], copy.copy(veiled), copy.deepcopy([veiled])]
    shown += [pickle.loads(pickle.dumps(veiled)), reprlib.repr(veiled), CIMultiDict({"a": veiled})]
    assert "canary" not in repr(shown)
    assert type(copy.deepcopy(veiled)) is str  # YAML writes it as a plain scalar


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "k\n", "k\r\n"])
def test_a_key_loses_the_line_end_of_a_file(key: str) -> None:
    """As `echo key > file` leaves it."""
    checked = checked_key(Secret(key))
    assert checked is not None
    assert reveal(checked) == "k"


@pytest.mark.parametrize("key", ["a b", "k\n\n", "k\0", "ké", "k\udce9", "k" * 4097])
def test_a_key_that_no_header_takes_is_refused(key: str) -> None:
    """Without showing it."""
    with pytest.raises(ConfigurationError, match="API key"):
        checked_key(Secret(key))
    assert checked_key(Secret("")) is None is checked_key(Secret("\n"))


@pytest.mark.parametrize("size", [4097, 1_000_000])
def test_a_key_that_is_too_long_is_called_so(size: int) -> None:
    """Nothing is around it: its length is what is wrong."""
    with pytest.raises(ConfigurationError, match="longer than 4,096 characters") as caught:
        checked_key(Secret("k" * size))
    assert "kkk" not in str(caught.value)
    assert checked_key(Secret("k" * 4096)) == "k" * 4096


# --- headers -------------------------------------------------------------------------------------

CONNECTION_HEADERS = [
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Expect",
    "HTTP2-Settings",
    "Host",
    "Keep-Alive",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]


@pytest.mark.parametrize("change", [str, str.lower, str.upper])
@pytest.mark.parametrize("name", CONNECTION_HEADERS)
def test_headers_of_the_connection_are_refused_by_name(
    name: str, change: Callable[[str], str]
) -> None:
    """They frame the message: the client and aiohttp set them, and two of them desynchronise."""
    with pytest.raises(ValueError, match=f"^header '{change(name)}' cannot be given: ") as caught:
        checked_headers(hidden({"X-A": "b", change(name): "canary-4711"}))
    assert "canary" not in str(caught.value)


def test_a_host_header_is_refused_with_what_to_do_instead() -> None:
    """Gateways by name are reached by base_url."""
    with pytest.raises(ValueError, match="put the gateway's name there"):
        checked_headers(hidden({"Host": "gateway.example"}))


@pytest.mark.parametrize(
    "name", ["X-Host", "Accept-Encoding", "Content-Type", "Authorization", "Via"]
)
def test_other_headers_may_be_given(name: str) -> None:
    """Also those that the client has values for."""
    assert checked_headers(hidden({name: "value"})) == {name: "value"}
