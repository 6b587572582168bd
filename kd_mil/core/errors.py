"""The one exception that commands turn into a single line and exit code 2."""


class UserError(Exception):
    """A mistake the user can mend: the message says what is wrong, where, and how to mend it, in one line."""
