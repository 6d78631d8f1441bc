"""What the metrics that know several rules have in common."""

import re
from collections.abc import Sequence

_YES_NO = re.compile(r"(?<![^\W_])(?:yes|no)(?![^\W_])")


def check_rule(rule: str, *known: str) -> None:
    """Raises ValueError unless ``rule`` is one of the ``known`` ones."""
    if rule not in known:
        raise ValueError(f"no rule {rule!r}; there are {', '.join(known)}")


def as_list(texts: str | Sequence[str]) -> list[str]:
    """One text or several, as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def first_yes_no(text: str) -> str | None:
    """The first of the words yes and no in ``text``, in lower case; None where neither is there.

    Read from the text as it stands: normalisation may join the words of "yes,no".
    """
    found = _YES_NO.search(text.lower())
    return found and found.group()
