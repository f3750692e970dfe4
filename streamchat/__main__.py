"""The ``streamchat`` command and ``python -m streamchat``: starts ``streamchat.cli``, imports lazily."""

import importlib
import sys

__all__ = ["main"]

USAGE = 2
INTERRUPTED = 130
"""As in :mod:`streamchat.cli.outcome`, which cannot be imported without click."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        try:
            from streamchat.cli import cli

            # Imported again where it is needed; if it is missing, say so now.
            importlib.import_module("rich")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("click", "rich"):
                raise
            sys.stderr.write(
                "error: the command line needs the extra: pip install 'streamchat[cli]'\n"
            )
            sys.exit(USAGE)
        cli(prog_name="streamchat")
    except KeyboardInterrupt:  # during the imports; commands handle their own
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
