"""`python -m steprule` and the command `steprule`: the command line, or what to install where it cannot be loaded."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as missing:
        print(f"steprule: {missing}", file=sys.stderr)
        raise SystemExit(2) from None
    run()


if __name__ == "__main__":
    main()
