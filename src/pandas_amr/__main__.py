"""``python -m pandas_amr`` and the script ``amr``: the command line."""

from __future__ import annotations

import sys

MISSING = 'The command line needs click: pip install "pandas-amr[cli]"'
USAGE = 2


def main() -> int:
    """Run the command that the arguments name, and return the exit status."""
    try:
        import click  # noqa: F401, PLC0415 (an extra)
    except ImportError:
        print(MISSING, file=sys.stderr)  # noqa: T201 (before there is a log)
        return USAGE
    from pandas_amr._api.cli.main import run_command_line  # noqa: PLC0415 (it imports click)

    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
