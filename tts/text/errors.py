"""What can be wrong with a text."""

from codec.errors import UserError


class TextError(UserError):
    """A text cannot be spoken: nothing in it has a sound, or its language is unknown."""
