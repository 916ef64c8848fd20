"""`python -m raflow` is `raflow`."""

from __future__ import annotations

from raflow.cli import main

if __name__ == "__main__":
    main()
