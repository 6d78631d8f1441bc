"""A template, records and a data folder for this room's tests."""

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from llava_mole.data.records import Record, Turn


@dataclass(frozen=True)
class Span:
    text: str
    is_target: bool


class VicunaLike:
    """LLaVA's vicuna_v1, written here a second time so that tests don't lean on the model room."""

    SYSTEM = "A chat."

    def spans(self, turns):
        spans = [Span(self.SYSTEM, False)]
        for turn in turns:
            if turn["role"] == "user":
                spans.append(Span(f" USER: {turn['content']} ASSISTANT:", False))
            else:
                spans.append(Span(f" {turn['content']}</s>", True))
        return spans


class PlainLike:
    """LLaVA's plain: the image, then the caption."""

    def spans(self, turns):
        return [Span("<image>", False), Span(turns[1]["content"] + "\n", True)]


def record(*contents: str, images: tuple[str, ...] | None = None, **fields) -> Record:
    """A record of alternating user and assistant turns, with as many images as slots."""
    turns = tuple(
        Turn("user" if index % 2 == 0 else "assistant", content)
        for index, content in enumerate(contents)
    )
    slots = sum(content.count("<image>") for content in contents[::2])
    images = tuple(f"{index}.png" for index in range(slots)) if images is None else images
    defaults = {"id": "r1", "source": "s", "task": "t", "file": "f.jsonl", "line": 7}
    return Record(images=images, turns=turns, **(defaults | fields))


def row(id: str, image: str | None = "0.png", question: str = "What?", answer: str = "A") -> dict:
    """A row of LLaVA JSON."""
    prefix = "<image>\n" if image else ""
    row = {
        "id": id,
        "conversations": [
            {"from": "human", "value": prefix + question},
            {"from": "gpt", "value": answer},
        ],
    }
    return row | ({"image": image} if image else {})


def write_images(folder: Path, count: int) -> None:
    """``0.png`` up to ``count`` of different sizes and colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        colour = (40 * index % 256, 90, 200 - 30 * index % 200)
        Image.new("RGB", (30 + 7 * index, 20 + 3 * index), colour).save(folder / f"{index}.png")


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def expand2square(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """LLaVA's padding to a square with the shorter side centred.

    Args:
        image: RGB.
        background: colour of the padding, ``int(255 * mean)`` of the processor's channel means;
            (122, 116, 104) for CLIP.
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
