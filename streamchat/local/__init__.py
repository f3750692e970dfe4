"""A Chat v2 server on loopback: no key, no network, nothing to pay. Imports ``server`` only."""

from streamchat.local.server import LocalServer

__all__ = ["LocalServer"]
