"""What command lines read alike, for those that `tts.cli` does not stand below."""

from collections.abc import Sequence

from codec.errors import UserError

PRECISIONS = ("float32", "flow16", "mixed", "auto")
"""Those of `tts.precision.Precision`, for who must not load torch to say them."""


def selected(names: str, known: Sequence[str], kind: str) -> list[str]:
    """Those of `known` that a list with commas names, in the order of `known`.

    Raises:
        UserError: one is not known, or none is named; `kind` says what they are.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UserError(f"no {kind} named {name!r}; give some of {','.join(known)}")
    if not wanted:
        raise UserError(f"no {kind} to measure; give some of {','.join(known)}")
    return [name for name in known if name in wanted]
