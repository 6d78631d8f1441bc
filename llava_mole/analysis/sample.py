"""One sample as the model sees it: tokens with their labels, images after preprocessing.

The ids and labels are those that `Encoder` gives to training, and the pixels those that the image
processor gives; this room only finds out which characters each id stands for. A record that cannot
be trained on is looked at as far as it goes, with the reason.
"""

import dataclasses
import hashlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.images.read import ImageError, inspect, load_image
from llava_mole.data.prepared.recordset import Problem, RecordSet
from llava_mole.data.records import BadRecord, Record
from llava_mole.data.sources.jsonstream import Broken, items, pieces
from llava_mole.data.tokens.encode import IGNORE_INDEX, Encoded, Encoder, image_token_id

# The length limit of a second look at a record that does not fit.
_ANY_LENGTH = 2**31


@dataclass(frozen=True)
class Token:
    """One id of the sequence; an image's P equal ids are one of these.

    Attributes:
        position: of its first id in ``input_ids``.
        count: ids it stands for: 1, or P for an image.
        id: the id.
        name: as the tokenizer writes it, e.g. ``▁the``.
        text: characters of the prompt that no earlier token shows. Empty for a token that stands
            for none (``<s>``) or ends a character that several tokens share. All texts in order
            are the prompt.
        start: first character in the prompt.
        end: one past its last.
        kind: ``target`` if the model learns to write it, else ``prompt`` or ``image``.
    """

    position: int
    count: int
    id: int
    name: str
    text: str
    start: int
    end: int
    kind: Literal["prompt", "target", "image"]


@dataclass(frozen=True)
class Picture:
    """One image of a sample.

    Attributes:
        name: its path, or what it is for an image that the record carries.
        size: width and height as it was read, None where it can't be.
        notes: what reading it changed, in words, e.g. that it was CMYK.
        pixels: (H, W, 3) uint8, what the vision tower gets, with the normalisation undone.
        problem: why it can't be used.
    """

    name: str
    size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    pixels: np.ndarray | None = None
    problem: str | None = None


@dataclass(frozen=True)
class View:
    """Everything there is to show of one sample.

    Attributes:
        dataset: name of its data set.
        file: where the record was read.
        line: 1-based line in ``file``.
        id: the record's id.
        source: data set within a collection.
        task: kind of question.
        problem: why it can't be trained on, else None.
        tokens: the sequence, empty where there is none.
        length: L, ids in the sequence, image tokens included.
        num_supervised: ids that the loss counts.
        max_length: longest sequence allowed.
        dropped_turns: turns left out at the end because they don't fit.
        pictures: the images of the turns that are kept.
        raw: the record as JSON values.
    """

    dataset: str
    file: str
    line: int
    id: str
    source: str = ""
    task: str = ""
    problem: str | None = None
    tokens: tuple[Token, ...] = ()
    length: int = 0
    num_supervised: int = 0
    max_length: int = 0
    dropped_turns: int = 0
    pictures: tuple[Picture, ...] = ()
    raw: Any = None


def look(records: RecordSet, row: int, encoder: Encoder, image_processor: Any) -> View:
    """The sample of ``row`` as training would see it, or as far as it goes.

    Args:
        records: an open data set.
        row: position in it.
        encoder: of the run.
        image_processor: HF image processor of the run.
    """
    record = records.record(row)
    problem, encoded, tokens = None, None, ()
    try:
        encoded = encoder(record)
    except BadRecord as error:
        problem = error.reason
        # Too long is worth looking at: where did all the tokens go?
        try:
            encoded = dataclasses.replace(encoder, max_length=_ANY_LENGTH)(record)
        except BadRecord:
            encoded = None
    if encoded is not None:
        tokens = tokens_of(record, encoded, encoder)
    images = record.images if encoded is None else encoded.images
    pictures = tuple(_picture(image, records.image_root, image_processor) for image in images)
    for picture in pictures:
        problem = problem or picture.problem
    return View(
        dataset=records.name,
        file=record.file,
        line=record.line,
        id=record.id,
        source=record.source,
        task=record.task,
        problem=problem,
        tokens=tokens,
        length=0 if encoded is None else len(encoded.input_ids),
        num_supervised=0 if encoded is None else encoded.num_supervised,
        max_length=encoder.max_length,
        dropped_turns=0 if encoded is None else encoded.dropped_turns,
        pictures=pictures,
        raw=_plain(record),
    )


def look_at_problem(problem: Problem) -> View:
    """What can be shown of an item that is no record: the reason, and the item where it is JSON."""
    raw = None
    if problem.file.endswith((".json", ".jsonl")) and problem.line > 0:
        # The file may have changed, or be broken before this line: the reason stands by itself.
        try:
            raw = _item(problem)
        except (OSError, ValueError) as error:
            raw = f"cannot be read again: {error}"
        if raw is None:
            raw = _line(problem.file, problem.line)
    return View(
        dataset=problem.dataset,
        file=problem.file,
        line=problem.line,
        id=problem.id,
        problem=problem.reason,
        raw=raw,
    )


def _item(problem: Problem) -> Any:
    """The JSON item that ``problem`` names, or None."""
    found = None
    cut = list(pieces(problem.file))
    lines = [piece.line for piece in cut]
    for piece, following in zip(cut, [*lines[1:], problem.line], strict=True):
        if piece.line > problem.line or following < problem.line:
            continue
        for line, item in items(piece):
            if line > problem.line:
                break
            if line == problem.line and not isinstance(item, Broken):
                # An array may stand in one line, so the line alone does not tell.
                if isinstance(item, dict) and str(item.get("id", line)) == problem.id:
                    return item
                found = item if found is None else found
    return found


def tokens_of(record: Record, encoded: Encoded, encoder: Encoder) -> tuple[Token, ...]:
    """The ids of ``encoded`` with the characters of the prompt that each stands for.

    Args:
        record: what ``encoded`` was made of.
        encoded: by ``encoder``.
        encoder: of the run.
    """
    turns = record.turns[: len(record.turns) - encoded.dropped_turns]
    spans = encoder.template.spans([{"role": t.role, "content": t.content} for t in turns])
    text = "".join(span.text for span in spans)
    encoding = encoder.tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids = encoding["input_ids"]
    names = encoder.tokenizer.convert_ids_to_tokens(ids)
    image = image_token_id(encoder.tokenizer)
    labels = encoded.labels.tolist()
    # Nothing comes before the first id, so the loss never asks for it.
    labels[0] = IGNORE_INDEX
    seen = encoded.input_ids.tolist()
    tokens, position, shown = [], 0, 0
    for index, (id, name, (start, end)) in enumerate(
        zip(ids, names, encoding["offset_mapping"], strict=True)
    ):
        count = encoder.num_image_tokens if id == image else 1
        assert seen[position : position + count] == [id] * count, "the encoder reads another text"
        kind = "image" if id == image else "prompt"
        if labels[position] != IGNORE_INDEX:
            kind = "target"
        # What lies between two tokens (trimmed white space) is shown with the later one.
        stop = len(text) if index == len(ids) - 1 else max(shown, end)
        tokens.append(Token(position, count, id, name, text[shown:stop], start, end, kind))
        position, shown = position + count, stop
    assert position == len(seen), "the encoder reads another text"
    return tuple(tokens)


def denormalised(values: torch.Tensor, image_processor: Any) -> np.ndarray:
    """Pixels as a picture: (3, H, W) float normalised to (H, W, 3) uint8."""
    mean = torch.tensor(image_processor.image_mean, dtype=torch.float64)[:, None, None]
    deviation = torch.tensor(image_processor.image_std, dtype=torch.float64)[:, None, None]
    scaled = (values.double() * deviation + mean) / image_processor.rescale_factor
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _picture(image: str | bytes, root, image_processor: Any) -> Picture:
    name = image if isinstance(image, str) else f"{len(image):,} bytes in the record"
    try:
        notes = tuple(note.text for note in inspect(image, root))
        rgb = load_image(image, root)
    except ImageError as error:
        return Picture(name, problem=str(error))
    pixels = denormalised(ProcessorPixels(image_processor)(rgb), image_processor)
    return Picture(name, rgb.size, notes, pixels)


def _plain(record: Record) -> dict[str, Any]:
    """The record as JSON values; an image it carries as its size and hash."""
    images = [
        {"bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()}
        if isinstance(image, bytes)
        else image
        for image in record.images
    ]
    return {**dataclasses.asdict(record), "images": images}


def _line(path: str, number: int, limit: int = 10_000) -> str | None:
    """Line ``number`` of a file that may not be text, for an item that is not JSON at all."""
    try:
        with open(path, "rb") as file:
            while number > 1:
                part = file.readline(2**20)
                if not part:
                    return None
                number -= part.endswith(b"\n")
            return file.readline(limit).decode("utf-8", "backslashreplace") or None
    except OSError:
        return None
