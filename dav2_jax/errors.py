"""The one exception a user is meant to read: what was wrong, where, and what to do, in one line."""


class Dav2Error(Exception):
    """Bad input, not a bug. The command line prints its text and no traceback (unless `--debug`)."""
