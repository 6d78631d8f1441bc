"""Labels of generated conversations against an oracle that goes by character offsets.

The oracle writes the text of a conversation and its target ranges on its own, from what the
templates are documented to do, and decides each token in a plain loop. What the supervised tokens
decode to must be the answers. ``LLAVA_MOLE_FUZZ=20000`` sets the number of conversations.
"""

import os
import random

import pytest

from llava_mole.data.records import BadRecord, Record, Turn
from llava_mole.data.tokens.encode import encode
from llava_mole.model.templates import template_for
from tests import tiny
from tests.data.tokens.vocabularies import llama_like

COUNT = int(os.environ.get("LLAVA_MOLE_FUZZ", "1500"))
P = 3
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
WORDS = [
    *("hello", "rectangle", "None", "yes.", "1,000", "What is this?", "photo"),
    *("照片", "日本語の文", "한국어", "שלום עולם", "مرحبا", "\u202eRTL\u202c", "नमस्ते"),
    *(
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "e\u0301",
        "a\u0308\u0323",
        "é",
        "ﬁ",
    ),
    *(" ASSISTANT:", "ASSISTANT: ", "USER:", " USER: ", "ASSISTANT", "assistant\n"),
    *("</s>", "<s>", "<unk>", "<image>", "<pad>", "</s></s>", "<</s>", "<image", "image>", "< /s>"),
    *("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "<|im_end|>\n", "<|", "|>"),
    *(" ", "  ", "\n", "\t", "\n\n", "\u00a0", "\u2003", "\ufeff", "\u200b", "▁", "<0x41>"),
]
BLANK = ["", " ", "\n", "\t \n", "\u2003", "\u00a0"]


def _byte_level():
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|im_start|>"]})
    return tokenizer


def _with_im_end():
    tokenizer = tiny.tiny_tokenizer()
    names = {"additional_special_tokens": ["<image>", "<|im_start|>"], "eos_token": "<|im_end|>"}
    tokenizer.add_special_tokens(names)
    return tokenizer


TOKENIZERS = {"bytes": _byte_level, "llama": llama_like, "bytes, im_end": _with_im_end}
MODES = ("vicuna_v1", "plain", "chatml")


def _text(chooser, blank: float) -> str:
    if chooser.random() < blank:
        return chooser.choice(BLANK)
    return "".join(chooser.choices(WORDS, k=chooser.randint(1, 7)))


def _conversation(chooser) -> list[str]:
    """What user and assistant say in turn; a user's ``<image>`` is an image."""
    contents = []
    for _ in range(chooser.choice([1, 1, 1, 2, 3, 5])):
        asked = _text(chooser, 0.01)
        for _ in range(chooser.choice([0, 0, 1, 1, 2, 4])):
            cut = chooser.randint(0, len(asked))
            asked = asked[:cut] + "<image>" + asked[cut:]
        contents += [asked, _text(chooser, 0.01)]
    return contents


def _record(contents: list[str]) -> Record:
    turns = tuple(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(contents))
    images = tuple(f"{i}.png" for i in range(sum(t.count("<image>") for t in contents[::2])))
    return Record("r", "s", "t", images, turns, "f.jsonl", 1)


def _as_data(text: str, special: list[str]) -> str:
    """A space after the first character of every special string that stands in ``text``."""
    out = []
    for index, character in enumerate(text):
        out.append(character)
        if any(text.startswith(string, index) for string in special):
            out.append(" ")
    return "".join(out)


def _oracle_text(mode: str, contents: list[str], eos: str, special: list[str]):
    """The whole text, its target ranges, and what each answer reads."""
    text, targets, answers = "", [], []
    text += {"vicuna_v1": SYSTEM + " ", "plain": "", "chatml": ""}[mode]
    for index, content in enumerate(contents):
        if index % 2 == 0:
            images = content.count("<image>")
            if mode == "plain":
                text += "<image>" * images
                continue
            said = _as_data(content.replace("<image>", ""), special)
            if images:
                said = ("<image>\n" * images + said.strip()).strip()
            if mode == "vicuna_v1":
                text += "USER: " + said + " ASSISTANT:"
            else:
                text += f"<|im_start|>user\n{said}{eos}\n<|im_start|>assistant\n"
        else:
            before = " " if mode == "vicuna_v1" else ""
            learnt = before + _as_data(content, special) + ("\n" if mode == "plain" else eos)
            targets.append((len(text), len(text) + len(learnt)))
            answers.append(learnt)
            text += learnt + ("\n" if mode == "chatml" else "")
    return text, targets, answers


def _oracle_labels(tokenizer, text: str, targets: list[tuple[int, int]]):
    """Ids and labels, each token decided by the character that it begins with."""
    encoding = tokenizer.backend_tokenizer.encode(text)
    image = tokenizer.convert_tokens_to_ids("<image>")
    ids, labels = [], []
    for index, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        # Nothing of the text: the BOS in front.
        added = start == stop and index == tokenizer.bos_token_id
        learnt = not added and any(first <= start < last for first, last in targets)
        if index == image:
            ids += [index] * P
            labels += [-100] * P
        else:
            ids.append(index)
            labels.append(index if learnt else -100)
    return ids, labels


def _is_bad(mode: str, contents: list[str]) -> bool:
    if not all(content.strip() for content in contents):
        return True
    return mode == "plain" and not all("<image>" in content for content in contents[::2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_labels_agree_with_the_oracle(name, mode):
    tokenizer = TOKENIZERS[name]()
    template = template_for(mode, tokenizer)
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    special = sorted(special | ({"<|im_start|>"} if mode == "chatml" else set()))
    chooser = random.Random(f"{name} {mode}")
    good = bad = several = 0
    for _ in range(-(-COUNT // (len(MODES) * len(TOKENIZERS)))):
        contents = _conversation(chooser)
        if _is_bad(mode, contents):
            bad += 1
            with pytest.raises(BadRecord):
                encode(_record(contents), tokenizer, template, P, 10**9)
            continue
        good += 1
        several += len(contents) > 2
        encoded = encode(_record(contents), tokenizer, template, P, 10**9)
        text, targets, answers = _oracle_text(mode, contents, tokenizer.eos_token, special)
        ids, labels = _oracle_labels(tokenizer, text, targets)
        assert encoded.input_ids.tolist() == ids, contents
        assert encoded.labels.tolist() == labels, contents
        assert encoded.num_supervised == sum(label != -100 for label in labels[1:])
        learnt = encoded.labels[encoded.labels != -100].tolist()
        assert tokenizer.decode(learnt) == _as_decoded(name, mode, answers), contents
    assert good > 10
    assert bad < good or mode == "plain"
    assert several > good // 5 or mode == "plain"


def _as_decoded(name: str, mode: str, answers: list[str]) -> str:
    """What the answers read after tokens: LLaMA writes spaces as ``▁``, and one after an image."""
    if name != "llama":
        return "".join(answers)
    prefix = " " if mode == "plain" else ""
    return "".join(prefix + answer.replace("▁", " ") for answer in answers)
