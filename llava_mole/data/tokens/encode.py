"""Records to token ids and labels, the labels by construction.

The chat template gives the text as spans that say whether they are a target. Their joined text is
tokenised once with character offsets, and a token is a target iff it begins inside a target span:

- a token that lies within one span takes that span's word;
- a token that begins in a target and reaches beyond it is a target: generation would start there;
- a token that begins before a target and reaches into it is not: at inference the prompt is
  tokenised alone, so the model is never asked to produce it.

Strings of special tokens inside what people wrote (``</s>`` in an answer, ``<image>`` in an
answer) are data. Keeping them from becoming special ids is the template's part, so that a turn
reads the same here and in generation.
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from llava_mole.data.records import IMAGE_TOKEN, BadRecord, Record, Turn
from llava_mole.data.tokens.fingerprint import fingerprint
from llava_mole.data.tokens.supervised import OwnTokens, last_character_is_supervised

IGNORE_INDEX = -100
# Texts tokenised at once: enough to make the calls cheap, few enough to hold in memory.
_BATCH = 256


class Span(Protocol):
    """A stretch of a templated conversation."""

    text: str
    is_target: bool


class Template(Protocol):
    """A chat template that says which of its text is to be learnt.

    It leaves no special string of the tokenizer in what people wrote, but for users' images. Its
    ``repr`` tells all that its text depends on, as a dataclass's does.
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
        images: in order of their slots, each a path or the encoded image.
        dropped_turns: turns left out at the end because they did not fit.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    num_supervised: int
    images: tuple[str | bytes, ...] = ()
    dropped_turns: int = 0


@dataclass(frozen=True)
class Encoder:
    """Everything that turns a record into ids, to hand around as one thing.

    Attributes:
        tokenizer: a fast tokenizer that has ``<image>`` as one special token.
        template: the chat template, made for this tokenizer.
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

    @property
    def parts(self) -> tuple[Any, ...]:
        """What other processes import to take this encoder over, see `workers.mapped`."""
        return self, self.tokenizer, self.template

    @functools.cached_property
    def fingerprint(self) -> str:
        """What a sample's length depends on, as a hex digest, the same in every process.

        That is tokenizer, template and P, but neither ``max_length`` nor ``overlong``.
        """
        return fingerprint(self.tokenizer, self.template, self.num_image_tokens)

    def lengths(self, records: Sequence[Record]) -> list[int | BadRecord]:
        """L of each record before ``max_length`` is applied, or why it can't be encoded at all.

        Exactly the length and the refusals of `encode` without a longest length, at the price of
        tokenising alone: the texts go to the tokenizer in batches, and that some token is
        supervised is mostly seen from how the last answer ends.
        """
        found: list[int | BadRecord] = []
        for first in range(0, len(records), _BATCH):
            found += self._lengths(records[first : first + _BATCH])
        return found

    def _lengths(self, records: Sequence[Record]) -> list[int | BadRecord]:
        image_id = image_token_id(self.tokenizer)
        found: list[int | BadRecord] = [0] * len(records)
        sure, unsure = [], []
        for index, record in enumerate(records):
            try:
                spans = _spans(record, record.turns, self.template)
            except BadRecord as error:
                found[index] = error
                continue
            end = self._own_tokens.at_the_end(spans)
            (unsure if end is None else sure).append((index, spans, end))
        # Tokens come sooner without offsets, which the way most templates end an answer spares.
        for batch, with_offsets in ((sure, False), (unsure, True)):
            encodings = self._tokens([spans for _, spans, _ in batch], with_offsets)
            for (index, spans, end), encoding in zip(batch, encodings, strict=True):
                record, ids = records[index], encoding.ids
                if with_offsets:
                    supervised = last_character_is_supervised(spans, encoding, image_id)
                else:
                    supervised = ids[0] != end
                if supervised and ids.count(image_id) == len(record.images):
                    found[index] = len(ids) + len(record.images) * (self.num_image_tokens - 1)
                else:
                    found[index] = self._exact_length(record)
        return found

    def _tokens(self, batch: Sequence[Sequence[Span]], with_offsets: bool) -> list:
        """The tokenizers' encodings of templated texts."""
        # Sets truncation, padding and special tokens as each call of `encode` does.
        self.tokenizer("", verbose=False)
        backend = self.tokenizer.backend_tokenizer
        tokenize = backend.encode_batch if with_offsets else backend.encode_batch_fast
        return tokenize(["".join(span.text for span in spans) for spans in batch])

    @functools.cached_property
    def _own_tokens(self) -> OwnTokens:
        return OwnTokens(self.tokenizer)

    def _exact_length(self, record: Record) -> int | BadRecord:
        settings = (self.tokenizer, self.template, self.num_image_tokens, sys.maxsize)
        try:
            return len(encode(record, *settings).input_ids)
        except BadRecord as error:
            return error


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
        BadRecord: the sample does not fit ``max_length``, has no supervised token, or the template
            refuses it or shows another number of images than it has.
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


def _spans(record: Record, turns: Sequence[Turn], template: Template) -> Sequence[Span]:
    """The text of ``turns``; what the template refuses is a BadRecord."""
    try:
        return template.spans([{"role": turn.role, "content": turn.content} for turn in turns])
    except ValueError as error:
        raise record.bad(str(error)) from None


def _tokenize(record, turns, tokenizer, template) -> tuple[np.ndarray, np.ndarray]:
    """Ids (L',) int64 with one id an image, and whether each is a target (L',) bool."""
    spans = _spans(record, turns, template)
    text = "".join(span.text for span in spans)
    # Target flag of each character; one more, False, for what lies behind the end.
    flags = np.zeros(len(text) + 1, dtype=bool)
    position = 0
    for span in spans:
        flags[position : position + len(span.text)] = span.is_target
        position += len(span.text)
    encoding = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids = np.asarray(encoding["input_ids"], dtype=np.int64)
    offsets = np.asarray(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    target = flags[_first_characters(offsets)]
    target &= ~_added_by_tokenizer(encoding, offsets)
    # An image is input, whatever the template says about the text around it.
    target &= ids != image_token_id(tokenizer)
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
