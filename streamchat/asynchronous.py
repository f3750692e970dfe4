"""Plain ``for`` and ``with`` over what is asynchronous: an error that names the fix; imports nothing.

Type checkers see none of these methods, so they report the mistake themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["AsyncContext", "AsyncOnly"]


class AsyncContext:
    """Base of classes for ``async with``."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __enter__(self):
            raise TypeError(
                f"{type(self).__name__} is asynchronous: write `async with`, not `with`"
            )

        def __exit__(self, *_):
            """Looked up together with ``__enter__``, and never called."""


class AsyncOnly(AsyncContext):
    """Base of classes for ``async with`` and ``async for``."""

    __slots__ = ()

    if not TYPE_CHECKING:
        # Not __iter__: an object that has one is an instance of collections.abc.Iterable. Without it,
        # `for` asks for the item 0.
        def __getitem__(self, _):
            raise TypeError(
                f"{type(self).__name__} is asynchronous: write `async for`, not `for`; "
                "it has no items to take by index"
            )
