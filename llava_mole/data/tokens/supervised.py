"""Whether some token of a templated text is a target, seen without its labels.

Labels need every token's character offset, which costs more than the tokens themselves. To count
tokens it is enough to know that one target can be predicted; mostly the last character tells.
"""

from collections.abc import Sequence
from typing import Any

from llava_mole.data.records import IMAGE_TOKEN


class OwnTokens:
    """Strings that are one token of their own wherever they stand in a text.

    Those are special tokens, looked for in the raw text before anything else. The leftmost match
    counts, and of several the longest; so no other token's string may end in the beginning of this
    one, hold it or begin with it. ``<image>``, which is never a target, is left out.

    Args:
        tokenizer: a fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = tokenizer.added_tokens_decoder
        strings = [token.content for token in added.values()]
        self.ids: dict[str, int] = {}
        for index, token in added.items():
            content = token.content
            moved = token.normalized or token.single_word or token.lstrip or token.rstrip
            covered = any(_may_cover(other, content) for other in strings if other != content)
            plain = content != IMAGE_TOKEN and content == content.strip()
            if token.special and plain and not (moved or covered or tokenizer.split_special_tokens):
                self.ids[content] = index
        self.sizes = sorted({len(content) for content in self.ids})

    def at_the_end(self, spans: Sequence[Any]) -> int | None:
        """Id of the one that the last target of a templated text ends in.

        It is a target, and supervised unless it is the first token of all.
        """
        last = next((span.text for span in reversed(spans) if span.is_target and span.text), "")
        for size in self.sizes:
            if (index := self.ids.get(last[-size:])) is not None:
                return index
        return None


def last_character_is_supervised(spans: Sequence[Any], encoding: Any, image_id: int) -> bool:
    """Whether the token of the last target's last character is supervised.

    True is certain. False says nothing: the character may have no token, or one that begins before
    the target while others are supervised.

    Args:
        spans: of the templated text.
        encoding: its tokens with offsets.
        image_id: id of ``<image>``, which is never a target.
    """
    stop = sum(len(span.text) for span in spans)
    for span in reversed(spans):
        start = stop - len(span.text)
        if span.is_target and start < stop:
            token = encoding.char_to_token(stop - 1)
            # Nothing predicts the first token.
            if not token or encoding.ids[token] == image_id:
                return False
            return encoding.token_to_chars(token)[0] >= start
        stop = start
    return False


def _may_cover(other: str, content: str) -> bool:
    """Whether a match of ``other`` can take characters away from ``content``."""
    if content in other:
        return True
    shortest = min(len(other), len(content))
    return any(other.endswith(content[:size]) for size in range(1, shortest + 1))
