"""One row of an M3IT file, in whichever form its data set has, to instruction, inputs and outputs.

The hub's loader script makes ``instruction, inputs, image_base64_str, outputs`` out of rows whose
keys differ from data set to data set; copies of the loader's output have those four as they are.
Here are the forms that the history of the script shows:

* images: ``image_base64_str`` (list or one), ``image_str``, ``img_str``, ``image``, ``images``
  (vist) and ``video_str`` (the frames of a video);
* inputs: ``inputs``, ``input`` or ``question``; none in captioning and vist;
* outputs: ``outputs``, ``output``, ``paraphrased_answer``, ``answer``, ``caption`` or, joined,
  ``sentences`` (vist);
* coco: five captions in ``meta.targets``, each a sample;
* a rephrased file: instruction, inputs and images in ``meta``, the answer in ``answer``;
* snli-ve, shapes, okvqa, viquae, a-okvqa: outputs put together from several keys;
* imagenet, ss: a label, to be chosen among ten.

A row of another form is an error that lists its keys, so no data set is misread in silence. The
answer options of coco-goi are taken as they stand, where the loader shuffles and letters them.
Not verifiable without the files: the forms of textcap, clevr, nlvr, vcr and others whose part of
the script was not seen, and that snli-ve's and ss's classes are in ``label``.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

IMAGE_KEYS = ("image_base64_str", "image_str", "img_str", "image", "images", "video_str")
INPUT_KEYS = ("inputs", "input", "question")
OUTPUT_KEYS = ("outputs", "output", "paraphrased_answer", "answer", "caption")
OPTIONS = 10

# Around the answer, where the row has no paraphrase of it.
_TEMPLATES = {
    "okvqa": "The answer is {answer}.",
    "viquae": "The answer is {answer}.",
    "a-okvqa": "{rationale} So the answer is {answer}.",
}
_ENTAILMENT = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
_HYPOTHESIS = "[HYPO]"


class Sample(NamedTuple):
    """What the loader would yield.

    Attributes:
        images: base64.
        instruction: None where one is to be drawn.
        inputs: may be empty.
        outputs: the answer.
        hypothesis: goes where the instruction says ``[HYPO]``.
    """

    images: list[str]
    instruction: str | None
    inputs: str
    outputs: str
    hypothesis: str | None = None

    def prompt(self, instruction: str) -> str:
        """Instruction and inputs, without the images."""
        if self.hypothesis is not None and _HYPOTHESIS in instruction:
            instruction = instruction.replace(_HYPOTHESIS, self.hypothesis)
        elif self.hypothesis is not None:
            instruction = f"{instruction}\n{self.hypothesis}"
        return "\n".join(part for part in (instruction.strip(), self.inputs.strip()) if part)


def samples(
    dataset: str, row: Any, classes: dict[str, str], draw: Callable[[str, int], int]
) -> list[Sample]:
    """The samples of a row, at least one.

    Args:
        dataset: the card's name.
        row: decoded JSON.
        classes: label to class name, of data sets that have them.
        draw: ``draw(purpose, n)`` gives a number below n, the same one for the same purpose.

    Raises:
        ValueError: not a form that is known; says which key or lists the row's.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{type(row).__name__} instead of an object; repair or remove it")
    meta = row.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    if "image_base64_str" in meta and "inputs" in meta:
        row = {**meta, "outputs": row.get("answer")}
    images = _images(row)
    instruction = _optional(row, "instruction")
    if isinstance(meta.get("targets"), list) and not any(key in row for key in OUTPUT_KEYS):
        return [
            Sample(images, instruction, "", _text(target, "meta.targets"))
            for target in _strings(meta["targets"], "meta.targets")
        ]
    inputs = next((_optional(row, key) for key in INPUT_KEYS if key in row), None) or ""
    if dataset == "snli-ve" and "hypothesis" in row:
        return [_entailment(row, images, instruction, inputs)]
    if classes and not any(key in row for key in OUTPUT_KEYS) and "label" in row:
        options, outputs = _choices(str(row["label"]), classes, draw)
        inputs = f"{inputs}\n{options}" if inputs else options
        return [Sample(images, instruction, inputs, outputs)]
    return [Sample(images, instruction, inputs, _outputs(dataset, row))]


def _images(row: dict) -> list[str]:
    key = next((key for key in IMAGE_KEYS if key in row), None)
    if key is None:
        raise ValueError(
            f"no image: the row has the keys {_keys(row)}, images are read from "
            f"{', '.join(IMAGE_KEYS)}"
        )
    value = row[key]
    return _strings([] if value is None else [value] if isinstance(value, str) else value, key)


def _outputs(dataset: str, row: dict) -> str:
    if isinstance(row.get("sentences"), list):
        return " ".join(_strings(row["sentences"], "sentences"))
    key = next((key for key in OUTPUT_KEYS if key in row), None)
    if key is None:
        raise ValueError(
            f"no answer: the row has the keys {_keys(row)}, answers are read from "
            f"{', '.join(OUTPUT_KEYS)}"
        )
    text = _text(row[key], key)
    if key == "answer" and text.strip():
        if dataset == "shapes" and text in ("true", "false"):
            return f"The answer is {'yes' if text == 'true' else 'no'}."
        rationale = _optional(row, "rationale") or ""
        template = _TEMPLATES.get(dataset, "{answer}")
        return template.format(answer=text.strip(), rationale=rationale.strip())
    return text


def _entailment(row: dict, images: list[str], instruction: str | None, inputs: str) -> Sample:
    label = row.get("label")
    if label not in _ENTAILMENT:
        raise ValueError(f"label: {str(label)[:50]!r} is none of {', '.join(_ENTAILMENT)}")
    answer = _ENTAILMENT[label]
    if answer == "maybe" and (rationale := _optional(row, "rationale")):
        answer = f"{answer}\nRationale: {rationale.strip()}"
    return Sample(images, instruction, inputs, answer, _text(row["hypothesis"], "hypothesis"))


def _choices(
    label: str, classes: dict[str, str], draw: Callable[[str, int], int]
) -> tuple[str, str]:
    """Ten lettered class names, the right one among them, and the right one with its letter."""
    name = classes.get(label, label if label in classes.values() else None)
    if name is None:
        raise ValueError(f"label: {label[:50]!r} is not among the {len(classes)} classes")
    pool = [other for other in dict.fromkeys(classes.values()) if other != name]
    options = [
        pool.pop(draw(f"option {index}", len(pool))) for index in range(min(OPTIONS - 1, len(pool)))
    ]
    options.insert(place := draw("place", len(options) + 1), name)
    lines = [f"({chr(ord('A') + index)}) {option}" for index, option in enumerate(options)]
    return "\n".join(lines), lines[place]


def read_classes(mapping: str | None, labels: str | None) -> dict[str, str]:
    """Label to class name, of ``mapping.txt`` (imagenet) or ``labels.json`` (ss); may be empty.

    Args:
        mapping: lines of a synset and the class's names, in the order of their labels from 0.
        labels: an object of class to label or label to class, or a list of classes.

    Raises:
        ValueError: not such a file.
    """
    if mapping is not None:
        with open(mapping, encoding="utf-8") as file:
            lines = [line.split() for line in file if line.strip()]
        return {str(index): " ".join(words[1:]) for index, words in enumerate(lines)}
    if labels is None:
        return {}
    with open(labels, encoding="utf-8") as file:
        content = json.load(file)
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise ValueError(f"{labels}: must be an object or a list; fetch it again")
    pairs = [(str(key), str(value)) for key, value in content.items()]
    if all(value.isdigit() for _, value in pairs):
        pairs = [(value, key) for key, value in pairs]
    return dict(pairs)


def read_instructions(file: str | None) -> tuple[str, ...]:
    """The texts of ``instructions.json``: a list of them, or an object that holds lists.

    Raises:
        ValueError: not such a file.
    """
    if file is None:
        return ()
    with open(file, encoding="utf-8") as stream:
        try:
            content = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not JSON ({error}); fetch it again") from None
    if isinstance(content, dict):
        content = [
            text
            for value in content.values()
            for text in (value if isinstance(value, list) else [value])
        ]
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise ValueError(f"{file}: must be a list of texts; fetch it again")
    return tuple(text for text in content if text.strip())


def _strings(value: Any, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key}: must be a text or a list of texts")
    return value


def _text(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key}: must be a text, not {type(value).__name__}")
    return str(value)


def _optional(row: dict, key: str) -> str | None:
    return None if row.get(key) is None else _text(row[key], key)


def _keys(row: dict) -> str:
    return ", ".join(str(key)[:50] for key in list(row)[:20]) or "none"
