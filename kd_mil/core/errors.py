"""The one exception that commands turn into a single line and exit code 2, and the line of any other."""


class UserError(Exception):
    """A mistake the user can fix: the message says what is wrong, where, and how to fix it, in one line."""


def one_line(error: Exception) -> str:
    """Why one item of many could not be done: the message of a `UserError`, of any other error its kind, too."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}{text and ': ' + text}"
