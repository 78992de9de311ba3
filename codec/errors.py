"""Errors that a user caused and can mend.

Every message is one line that says what is wrong, shows the offending value, and names the way out. Command
lines catch :class:`UserError`, print ``error: <message>`` and exit with status 2; everything else is a bug in
this project and keeps its traceback.
"""


class UserError(Exception):
    """What the user gave cannot be used. The message is one line: what, the value, the way out."""


class AudioError(UserError):
    """A recording cannot be read, used or written."""


class SpecError(UserError):
    """Two models, or a model and its frames or tokens, do not fit together."""
