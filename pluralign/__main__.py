"""`python -m pluralign`, and `accelerate launch -m pluralign` for many processes."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
