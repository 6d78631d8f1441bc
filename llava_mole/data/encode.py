"""Records to token ids and labels, the labels by construction.

The chat template gives the text as spans that say whether they are a target. Their joined text is
tokenised once with character offsets, and a token is a target iff it begins inside a target span:

- a token that lies within one span takes that span's word;
- a token that begins in a target and reaches beyond it is a target: generation would start there;
- a token that begins before a target and reaches into it is not: at inference the prompt is
  tokenised alone, so the model is never asked to produce it.

Strings of special tokens inside what people wrote (``</s>`` in an answer, ``<image>`` in an
answer) are data and must not become special ids. A template that lists them as its ``control``
writes them in a harmless way itself, the same in training and generation. Any other one is broken
for the tokeniser by an image token after its first character, and that token is taken out again
afterwards: the text's ordinary tokens remain, and no character is lost.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from llava_mole.data.records import IMAGE_TOKEN, Record

IGNORE_INDEX = -100
# Noncharacters: no text should hold one, and they mark broken strings through the template.
_MARKERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


class Span(Protocol):
    """A stretch of a templated conversation."""

    text: str
    is_target: bool


class Template(Protocol):
    """A chat template that says which of its text is to be learnt.

    An attribute ``control`` (optional) lists special strings that ``spans`` itself turns into
    ordinary text where they are part of a turn, as it then does with ``<image>`` in answers.
    """

    def spans(self, turns: list[dict[str, str]]) -> Sequence[Span]:
        """The conversation's text in order."""


@dataclass(frozen=True)
class Encoded:
    """One sample as the model reads it.

    Attributes:
        input_ids: (L,) int64, each image as P image token ids.
        labels: (L,) int64, the id where the token is a target, else -100.
        num_supervised: targets that can be predicted, i.e. those of ``labels[1:]``; at least 1.
        images: image paths in order of their slots.
        dropped_turns: turns left out at the end because they did not fit.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    num_supervised: int
    images: tuple[str, ...] = ()
    dropped_turns: int = 0


@dataclass(frozen=True)
class Encoder:
    """Everything that turns a record into ids, to hand around as one thing.

    Attributes:
        tokenizer: a fast tokenizer that has ``<image>`` as one special token.
        template: the chat template.
        num_image_tokens: P, tokens an image takes.
        max_length: longest sequence in tokens, image tokens included.
        overlong: ``error`` or ``drop_turns``, see `DataConfig`.
    """

    tokenizer: Any
    template: Template
    num_image_tokens: int
    max_length: int
    overlong: str = "error"

    def __call__(self, record: Record) -> Encoded:
        """`encode` with these settings."""
        return encode(
            record,
            self.tokenizer,
            self.template,
            self.num_image_tokens,
            self.max_length,
            self.overlong,
        )


def encode(
    record: Record,
    tokenizer: Any,
    template: Template,
    num_image_tokens: int,
    max_length: int,
    overlong: str = "error",
) -> Encoded:
    """Token ids and labels of ``record``.

    Image tokens are never cut and answers never shortened: with ``overlong="drop_turns"`` whole
    exchanges are left out from the end until the rest fits, otherwise the record is bad.

    Args:
        record: a valid record.
        tokenizer: a fast tokenizer that has ``<image>`` as one special token; a BOS or EOS that it
            adds by itself is kept and is not a target.
        template: gives the spans of the conversation.
        num_image_tokens: P, ids that each image's slot is expanded to.
        max_length: longest allowed L.
        overlong: ``error`` or ``drop_turns``.

    Raises:
        BadRecord: the sample does not fit ``max_length``, has no supervised token, or its text
            can't be told from special tokens.
        ValueError: the tokenizer is not fast or has no ``<image>`` token.
    """
    images = list(record.images)
    turns = list(record.turns)
    while True:
        ids, target = _tokenize(record, turns, tokenizer, template)
        slots = ids == image_token_id(tokenizer)
        if int(slots.sum()) != len(images):
            raise record.bad(
                f"the template shows {int(slots.sum())} {IMAGE_TOKEN} for {len(images)} image(s); "
                "use another conv_mode (plain is for exactly one image and its caption)"
            )
        length = len(ids) + len(images) * (num_image_tokens - 1)
        if length <= max_length:
            break
        remedy = f"raise model_max_length (now {max_length}) or shorten the record"
        if overlong != "drop_turns":
            raise record.bad(f"takes {length} tokens and its answer would not fit; {remedy}")
        if len(turns) <= 2:
            raise record.bad(f"its first exchange alone takes {length} tokens; {remedy}")
        lost = turns[-2].content.count(IMAGE_TOKEN)
        turns, images = turns[:-2], images[: len(images) - lost]
    repeats = np.where(slots, num_image_tokens, 1)
    ids, target = np.repeat(ids, repeats), np.repeat(target, repeats)
    supervised = int(target[1:].sum())
    if not supervised:
        raise record.bad("no token of the answer is supervised; check the answer and the template")
    input_ids = torch.from_numpy(ids)
    labels = torch.from_numpy(np.where(target, ids, IGNORE_INDEX))
    dropped = len(record.turns) - len(turns)
    return Encoded(input_ids, labels, supervised, tuple(images), dropped)


def image_token_id(tokenizer: Any) -> int:
    """Id of ``<image>``.

    Raises:
        ValueError: the tokenizer has no such token, or is not a fast one (no offsets).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} has no character offsets; load the fast tokenizer"
        )
    index = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if index is None or index == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no {IMAGE_TOKEN} token; add it as a special token")
    return index


def count_image_tokens(processor: Any) -> int:
    """P, the image tokens that an HF processor writes for one image."""
    blank = Image.new("RGB", (8, 8))
    ids = processor(images=blank, text=IMAGE_TOKEN)["input_ids"]
    return int((np.asarray(ids) == image_token_id(processor.tokenizer)).sum())


def _tokenize(record, turns, tokenizer, template) -> tuple[np.ndarray, np.ndarray]:
    """Ids (L',) int64 with one id an image, and whether each is a target (L',) bool."""
    image_id = image_token_id(tokenizer)
    pattern = _special_pattern(tokenizer, template)
    marked, marker = _break_special_strings(record, turns, pattern)
    try:
        spans = template.spans(marked)
    except ValueError as error:
        raise record.bad(str(error)) from None
    text = "".join(span.text for span in spans)
    # Target flag of each character; one more, False, for what lies behind the end.
    flags = np.zeros(len(text) + 1, dtype=bool)
    position = 0
    for span in spans:
        flags[position : position + len(span.text)] = span.is_target
        position += len(span.text)
    breaks: list[int] = []
    if marker and marker in text:
        text, flags, breaks = _markers_to_image_tokens(text, flags, marker)
    encoding = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids = np.asarray(encoding["input_ids"], dtype=np.int64)
    offsets = np.asarray(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    target = flags[_first_characters(offsets)]
    added = _added_by_tokenizer(encoding, offsets)
    target &= ~added
    if breaks:
        first, stop = np.searchsorted(breaks, offsets.T)
        keep = (ids != image_id) | (first == stop)
        ids, target = ids[keep], target[keep]
    # An image is input, whatever the template says about the text around it.
    target &= ids != image_id
    return ids, target


def _first_characters(offsets: np.ndarray) -> np.ndarray:
    """The character that each token begins with, (L',) int64, from offsets (L', 2).

    Tokenizers give an empty range in two cases: white space that was trimmed off the offsets, which
    lies between the previous token's end and here, and a prefix that the tokenizer put in front of
    the next character.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    previous = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])
    return np.where((starts == ends) & (previous < starts), previous, starts)


def _added_by_tokenizer(encoding, offsets: np.ndarray) -> np.ndarray:
    """Tokens that stand for no text, such as a BOS: special with an empty range."""
    special = np.asarray(encoding["special_tokens_mask"], dtype=bool)
    return special & (offsets[:, 0] == offsets[:, 1])


def _special_pattern(tokenizer: Any, template: Template) -> re.Pattern[str]:
    """Matches any string that would become one special id and that the template leaves alone."""
    control = getattr(template, "control", None)
    key = (len(tokenizer), control)
    known, pattern = getattr(tokenizer, "_llava_mole_special", (None, None))
    if known != key:
        added = tokenizer.added_tokens_decoder.values()
        strings = {token.content for token in added if token.special} | {IMAGE_TOKEN}
        if control is not None:
            strings -= {*control, IMAGE_TOKEN}
        longest_first = sorted(strings, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        tokenizer._llava_mole_special = (key, pattern)
    return pattern


def _break_special_strings(record, turns, pattern) -> tuple[list[dict[str, str]], str | None]:
    """The turns with a marker inside each special string that is data, and that marker."""
    plain = [{"role": turn.role, "content": turn.content} for turn in turns]
    found = any(
        match.group() != IMAGE_TOKEN or turn.role != "user"
        for turn in turns
        for match in pattern.finditer(turn.content)
    )
    if not found:
        return plain, None
    everything = "".join(turn.content for turn in turns)
    marker = next((marker for marker in _MARKERS if marker not in everything), None)
    if marker is None:
        raise record.bad("holds every Unicode noncharacter from U+FDD0 to U+FDEF; remove them")
    for turn in plain:
        turn["content"] = _broken(record, turn, pattern, marker)
    return plain, marker


def _broken(record, turn: dict[str, str], pattern: re.Pattern[str], marker: str) -> str:
    content, position = turn["content"], 0
    # Search again from the same place: breaking one string can leave an overlapping one whole.
    while match := pattern.search(content, position):
        if match.group() == IMAGE_TOKEN and turn["role"] == "user":
            position = match.end()
            continue
        if len(match.group()) == 1:
            raise record.bad(
                f"holds the special token {match.group()!r}, a single character; remove it"
            )
        cut = match.start() + 1
        content = content[:cut] + marker + content[cut:]
        position = match.start()
    return content


def _markers_to_image_tokens(text: str, flags: np.ndarray, marker: str):
    """Markers replaced by ``<image>``: text, flags (len(text) + 1,), starts of the replacements."""
    width = len(IMAGE_TOKEN)
    pieces = text.split(marker)
    starts = np.cumsum([len(piece) + width for piece in pieces[:-1]]) - width
    repeats = np.ones(len(flags), dtype=np.int64)
    repeats[[index for index, character in enumerate(text) if character == marker]] = width
    return IMAGE_TOKEN.join(pieces), np.repeat(flags, repeats), starts.tolist()
