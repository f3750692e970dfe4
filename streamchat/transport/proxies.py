"""Which proxy a client uses, if any: the argument, or the proxy variables of the environment."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import attrs

from streamchat.credentials import Secret, Veiled, reveal
from streamchat.protocol.errors import ConfigurationError

__all__ = ["LOOPBACK", "Proxy", "bypasses", "environment_proxy"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""This machine, by name and address."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SOCKS = (
    "SOCKS needs the package aiohttp-socks and a session of your own:\n"
    '    connector = aiohttp_socks.ProxyConnector.from_url("socks5://host:port")\n'
    "    client = Client(session=aiohttp.ClientSession(connector=connector))"
)


@attrs.frozen
class Proxy:
    """A proxy without its password in the URL, where a traceback would show it."""

    url: str | None = None
    """``http://host:port`` or ``https://host:port``; ``None`` for none."""
    headers: Mapping[str, str] | None = None
    """``Authorization`` for the proxy, if its URL had a user."""

    @classmethod
    def chosen(
        cls, proxy: str | Literal[False] | None, base_url: str, *, is_own_session: bool
    ) -> Proxy:
        """The proxy for all requests of a client; the environment is read here, once.

        Args:
            proxy: a URL; ``False`` or ``""`` for none; ``None`` reads the environment.
            base_url: where the requests go.
            is_own_session: whether the session is the caller's: its settings decide then, and the
                environment is not read.

        Raises:
            ConfigurationError: a proxy that cannot be used here; the message does not repeat it.
            TypeError: not one of these.
        """
        if proxy is not None and proxy is not False and not isinstance(proxy, str):
            raise TypeError(
                f"proxy must be a URL, False for none, or None, not {type(proxy).__name__}"
            )
        if proxy:
            return cls.parse(proxy, "proxy=")
        if proxy is not None or is_own_session:
            return cls()
        parts = urlsplit(base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        name, url = environment_proxy(parts.scheme, parts.hostname or "", port)
        return cls.parse(url, name) if url else cls()

    @classmethod
    def parse(cls, url: str, name: str) -> Proxy:
        """Split a URL as it is configured; a missing scheme is http.

        Args:
            url: may hold a user and a password.
            name: the argument or the variable that holds it, for the message.

        Raises:
            ConfigurationError: no http(s) URL; the message does not repeat it.
        """
        secret = Secret(url)
        del url  # a traceback shows local variables
        proxy = _split(secret)
        if isinstance(proxy, Proxy):
            return proxy
        if proxy.startswith("socks"):
            raise ConfigurationError(f"the proxy ({name}) is a SOCKS proxy. {_SOCKS}")
        raise ConfigurationError(f"the proxy ({name}) must look like http://host:port")


def _split(url: Secret) -> Proxy | str:
    """The parts of a proxy's URL; its scheme if it cannot be used.

    It does not raise, because its frame holds the parts. User and password are bytes (RFC 7617): those
    of an environment variable that are not UTF-8 come as surrogates (PEP 383), and are sent as the bytes
    they were.
    """
    try:
        parts = urlsplit(reveal(url) if "://" in reveal(url) else f"http://{reveal(url)}")
        host, port = parts.hostname, parts.port
        user = None
        if parts.username is not None:
            pair = f"{parts.username}:{parts.password or ''}".encode("utf-8", "surrogateescape")
            user = unquote_to_bytes(pair)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return parts.scheme
    shown = f"[{host}]" if ":" in host else host
    clean = f"{parts.scheme}://{shown}" + (f":{port}" if port else "")
    if user is None:
        return Proxy(clean, None)
    return Proxy(clean, {"Authorization": Veiled(f"Basic {b64encode(user).decode()}")})


def environment_proxy(scheme: str, hostname: str, port: int) -> tuple[str, str | None]:
    """The proxy that the environment names for a host, after the name of its variable.

    netrc is never read, and this machine itself never needs a proxy. Without proxy variables macOS and
    Windows have system settings, which ``urllib`` reads.
    """
    if hostname in LOOPBACK:
        return "", None
    proxies = getproxies()
    name = scheme if proxies.get(scheme) else "all"
    proxy = proxies.get(name)
    if not proxy:
        return "", None
    if getproxies_environment():
        is_direct = bypasses(proxies.get("no", ""), hostname, port)
    else:
        is_direct = bool(proxy_bypass(hostname))
    return f"{name.upper()}_PROXY", None if is_direct else Secret(proxy)


# --- NO_PROXY ------------------------------------------------------------------------------------
# There is no standard: what curl, Go's net/http or Python's urllib would contact directly is contacted
# directly, because a prompt must not go to a proxy that it was meant to avoid.


def bypasses(no_proxy: str, hostname: str, port: int) -> bool:
    """Whether ``NO_PROXY`` names a host.

    Entries are separated by commas or spaces, in any case: ``*`` (all hosts), a name with its subdomains
    (``example.com``, ``.example.com``), only its subdomains (``*.example.com``), an address (``10.0.0.1``,
    ``fd00::1``, ``[fd00::1]``), a network (``10.0.0.0/8``, ``fd00::/8``) or the beginning of one
    (``10.*``); each may be followed by ``:port``, an IPv6 address in brackets then.
    """
    host = _normal(hostname)
    address = _address(host)
    return any(_matches(entry, host, address, port) for entry in re.split(r"[\s,]+", no_proxy))


def _matches(entry: str, host: str, address: Address | None, port: int) -> bool:
    name, wanted = _split_port(entry)
    if not name or (wanted is not None and wanted != port):
        return False
    if name == "*":
        return True
    if address is not None and (network := _network(name)) is not None:
        return _is_in(address, network)
    name = _normal(name)
    if "*" in name:
        return _fits(name, host)
    bare = name.lstrip(".")
    if address is not None and bare == name:
        return host == name  # an address has no subdomains; urllib compares ends after a dot
    return bool(bare) and (host == bare or host.endswith(f".{bare}"))


def _fits(pattern: str, host: str) -> bool:
    """Whether a host matches a pattern with ``*``; each part is looked for once, whatever the pattern."""
    first, *middle, last = pattern.split("*")
    if not (host.startswith(first) and host.endswith(last)):
        return False
    place, end = len(first), len(host) - len(last)
    for part in middle:
        place = host.find(part, place, end) + len(part)
        if place < len(part) or place > end:
            return False
    return place <= end


def _split_port(entry: str) -> tuple[str, int | None]:
    """An entry's host, without brackets, and its port of up to five digits."""
    bracketed = re.fullmatch(r"\[([^]]*)\](/\d+)?(?::(\d{1,5}))?", entry)
    if bracketed:
        host, length, port = bracketed.groups()
        return f"{host}{length or ''}", int(port) if port else None
    host, colon, port = entry.rpartition(":")
    if colon and ":" not in host and re.fullmatch(r"\d{1,5}", port):
        return host, int(port)
    return entry, None


def _normal(name: str) -> str:
    """A host name for comparison: lower case, ASCII, without the dot of the root."""
    name = name.lower()
    if not name.isascii():
        with suppress(UnicodeError):  # else it is compared as it is written
            name = name.encode("idna").decode()
    return name[:-1] if name.endswith(".") and len(name) > 1 else name


def _address(host: str) -> Address | None:
    try:
        return _unmapped(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    """``::ffff:10.0.0.1`` is the host 10.0.0.1."""
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A network, or an address as a network of one."""
    try:
        return ipaddress.ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None


def _is_in(address: Address, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    if network.num_addresses == 1:
        return address == _unmapped(network.network_address)
    return address in network
