"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable

LISTED = 30
"""Known names that a message lists; of more it gives the first few."""
FIRST = 3


def closest(name: str, known: Iterable[str], count: int = 1, similarity: float = 0.5) -> list[str]:
    """The known names most like `name`, best first, letter case aside.

    Args:
        name: the unknown name.
        known: what it may have meant.
        count: at most so many.
        similarity: the least, in [0, 1].
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=similarity)
    return [by_lower[near] for near in found]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: `known: a, b; did you mean 'a'?`."""
    names = list(known)
    listed = names if len(names) <= LISTED else [*names[:FIRST], f"... ({len(names)} in all)"]
    guess = "".join(f"; did you mean {meant!r}?" for meant in closest(name, names))
    return f"known: {', '.join(listed)}{guess}"
