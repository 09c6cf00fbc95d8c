"""What somebody who has written an unknown name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a sentence with the nearest known name, or with all of them if none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(sorted(known))}."
