"""What a misspelt name may have meant."""

import difflib
from collections.abc import Iterable, Sequence


def closest(name: str, known: Iterable[str]) -> str:
    """The known names, and a guess at which one was meant: the end of an error message."""
    known = list(known)
    guess = difflib.get_close_matches(name.lower(), [candidate.lower() for candidate in known], n=1, cutoff=0.5)
    meant = next((candidate for candidate in known if [candidate.lower()] == guess), None)
    return f"known: {', '.join(known)}" + (f"; did you mean {meant!r}?" if meant else "")


def suggestion(name: str, known: Sequence[str] | dict) -> str:
    """`, did you mean ...?` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
