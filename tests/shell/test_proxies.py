"""Which proxy is used: NO_PROXY as curl, Go and Python read it, and what a client does at construction."""

from __future__ import annotations

from typing import Any

import pytest

from streamchat import Client, ConfigurationError
from streamchat.transport.proxies import bypasses, environment_proxy

MATCHES = [
    ("example.com", "example.com", 443),
    ("example.com", "api.example.com", 443),
    (".example.com", "api.example.com", 443),
    (".example.com", "example.com", 443),
    ("*.example.com", "a.b.example.com", 443),
    ("*example.com", "example.com", 443),
    ("EXAMPLE.com", "api.example.com", 443),
    ("example.com.", "example.com", 443),
    ("example.com", "example.com.", 443),
    ("example.com:443", "api.example.com", 443),
    ("*", "anything.test", 80),
    ("*:80", "anything.test", 80),
    ("a.test, b.test", "b.test", 80),
    ("a.test b.test", "b.test", 80),
    ("a.test,\tb.test,", "b.test", 80),
    ("b\u00fccher.test", "xn--bcher-kva.test", 80),
    ("xn--bcher-kva.test", "b\u00fccher.test", 80),
    ("10.1.2.3", "10.1.2.3", 80),
    ("[10.1.2.3]", "10.1.2.3", 80),
    ("10.1.2.3:8080", "10.1.2.3", 8080),
    ("10.0.0.0/8", "10.1.2.3", 80),
    ("10.9.9.9/8", "10.1.2.3", 80),
    ("10.0.0.0/8:8080", "10.1.2.3", 8080),
    ("10.1.2.3/32", "10.1.2.3", 80),
    ("10.*", "10.1.2.3", 80),
    ("10.1.2.*:80", "10.1.2.3", 80),
    (".2.3", "10.1.2.3", 80),
    ("fd00::1", "fd00::1", 80),
    ("FD00:0:0::1", "fd00::1", 80),
    ("[fd00::1]", "fd00::1", 80),
    ("[fd00::1]:8080", "fd00::1", 8080),
    ("fd00::/8", "fd12::1", 80),
    ("[fd00::]/8", "fd12::1", 80),
    ("fe80::1", "fe80::1%eth0", 80),
    ("::ffff:10.1.2.3", "10.1.2.3", 80),
    ("10.0.0.0/8", "::ffff:10.1.2.3", 80),
    ("intranet", "intranet", 80),
    ("a*c*e", "abcde", 80),
    ("*b*", "abc", 80),
    ("a**c", "ac", 80),
]
OTHERS = [
    ("", "example.com", 443),
    (" , ,", "example.com", 443),
    (".", "example.com", 443),
    ("example.com", "badexample.com", 443),
    ("example.com", "example.com.evil.test", 443),
    ("*.example.com", "example.com", 443),
    ("api.example.com", "example.com", 443),
    ("example.com:80", "example.com", 443),
    ("*:80", "example.com", 443),
    ("10.1.2.3", "10.1.2.30", 80),
    ("2.3", "10.1.2.3", 80),
    ("10.1.2.3:8080", "10.1.2.3", 80),
    ("10.0.0.0/16", "10.1.2.3", 80),
    ("10.0.0.0/99", "10.1.2.3", 80),
    ("10.*", "110.1.2.3", 80),
    ("10.0.0.0/8", "ten.example.com", 80),
    ("fd00::1", "fd00::10", 80),
    ("fd00::/16", "fe80::1", 80),
    ("[fd00::1]:8080", "fd00::1", 80),
    ("0.0.0.0/0", "fd00::1", 80),
    ("exa(mple", "example.com", 80),
    *((f"{host}:{'9' * 5000}", "example.com", 80) for host in ("example.com", "*", "[fd00::1]")),
    (f"[fd00::]/{'9' * 5000}", "fd00::1", 80),
    ("a*b*c", "a.c.b", 80),
    ("ab*ba", "aba", 80),
    ("*a" * 200 + "*!", "a" * 1000, 80),
]


@pytest.mark.parametrize(("no_proxy", "host", "port"), MATCHES)
def test_no_proxy_names_the_host(no_proxy: str, host: str, port: int) -> None:
    assert bypasses(no_proxy, host, port)
    assert bypasses(f"other.test,{no_proxy} 192.0.2.1", host, port)


@pytest.mark.parametrize(("no_proxy", "host", "port"), OTHERS)
def test_no_proxy_does_not_name_the_host(no_proxy: str, host: str, port: int) -> None:
    assert not bypasses(no_proxy, host, port)


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_the_environment_is_read_in_either_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere, lower case wins."""
    monkeypatch.setenv("HTTPS_PROXY", "http://upper.test:1")
    assert environment_proxy("https", "a.test", 443) == ("HTTPS_PROXY", "http://upper.test:1")
    monkeypatch.setenv("https_proxy", "http://lower.test:1")
    assert environment_proxy("https", "a.test", 443) == ("HTTPS_PROXY", "http://lower.test:1")
    assert environment_proxy("http", "a.test", 80) == ("", None)
    monkeypatch.setenv("ALL_PROXY", "http://all.test:1")
    assert environment_proxy("http", "a.test", 80) == ("ALL_PROXY", "http://all.test:1")
    monkeypatch.setenv(name, "a.test:443")
    assert environment_proxy("https", "a.test", 443)[1] is None
    assert environment_proxy("https", "a.test", 8443)[1] == "http://lower.test:1"


@pytest.mark.parametrize(
    "url", ["socks5://u:canary-pw@p.test:1", "socks5h://p.test", "SOCKS4://p.test"]
)
@pytest.mark.parametrize("how", ["HTTPS_PROXY", "all_proxy", "proxy="])
def test_a_socks_proxy_names_the_package_and_how_to_use_it(
    how: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    if how == "proxy=":
        given["proxy"] = url
    else:
        monkeypatch.setenv(how, url)
    with pytest.raises(ConfigurationError) as caught:
        Client("k", base_url="https://inside.test", **given)
    said = str(caught.value)
    assert how.upper().removesuffix("=") in said.upper()
    for part in (
        "aiohttp-socks",
        "ProxyConnector.from_url(",
        "Client(session=aiohttp.ClientSession(",
    ):
        assert part in said
    assert "canary" not in said
    assert "p.test" not in said


@pytest.mark.parametrize(
    "used",
    [
        {"base_url": "http://127.0.0.1:1"},
        {"base_url": "https://direct.test"},
        {"base_url": "https://inside.test", "proxy": "http://other.test:1"},
        {"base_url": "https://inside.test", "proxy": False},
        {"base_url": "https://inside.test", "proxy": ""},
        {"base_url": "https://inside.test", "session": object()},
    ],
    ids=["loopback", "NO_PROXY", "another", "False", "empty", "session"],
)
def test_a_socks_variable_that_is_not_used_is_not_refused(
    used: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://p.test:1")
    monkeypatch.setenv("NO_PROXY", "direct.test")
    url = Client("k", **used)._transport._proxy.url
    assert url == (used.get("proxy") or None)


@pytest.mark.parametrize("proxy", [True, 5, ["http://p.test"]])
def test_what_is_not_a_proxy_is_a_type_error(proxy: Any) -> None:
    with pytest.raises(TypeError, match="proxy must be a URL, False for none, or None"):
        Client("k", base_url="https://inside.test", proxy=proxy)
