"""Three more domains: the same images, asked in short, with codes of their own.

A short question ("How bright ?") is answered by other letters than the full one ("How bright is it
?") about the very same image: there the question's form tells which code holds, and between
sources the image does, as before. A value has another letter in short than in full, and another in
each of the three short domains. Four letters do not let six codes differ everywhere: 4 to 6 of the
16 values have the letter that the full code of *another* source gives them (one code, guessed
blindly, would have 4), which is the least there can be.

No word is new, so that the base model is the same, and none of the short questions was asked in its
training. Written from the full domains' files; those stay as they are.
"""

import json
from pathlib import Path

from llava_mole.files import replace_text
from llava_mole.reproduce.tiny.questions import DOMAINS, QUESTIONS, Question

SUFFIX = "-short"
FILES = {"short_train.jsonl": "code_train.jsonl", "short_test.jsonl": "code_test.jsonl"}
# Question to how it is asked in short, and the codes of general, document and biomedicine there.
_SHORT = {
    "where": ("Where ?", ("bcda", "dacb", "adbc")),
    "covered": ("How much covered ?", ("acdb", "dbac", "cdba")),
    "bright": ("How bright ?", ("adbc", "bcad", "cadb")),
    "warm": ("How warm ?", ("adbc", "cadb", "bcad")),
}


def short_of(question: Question) -> Question:
    """The question in short, with the short domains' codes."""
    text, books = _SHORT[question.name]
    codes = {f"{domain}{SUFFIX}": book for domain, book in zip(DOMAINS, books, strict=True)}
    return Question(question.name, text, question.values, codes)


def build_short(folder: Path) -> None:
    """Writes ``short_train.jsonl`` and ``short_test.jsonl`` beside each domain's own files.

    Args:
        folder: holds a folder for each domain, made by `llava_mole.reproduce.tiny.data`.
    """
    for domain in DOMAINS:
        for name, source in FILES.items():
            text = (folder / domain / source).read_text(encoding="utf-8")
            lines = [_in_short(json.loads(line), domain) for line in text.splitlines()]
            replace_text(folder / domain / name, "".join(f"{json.dumps(one)}\n" for one in lines))


def _in_short(record: dict, domain: str) -> dict:
    full = next(question for question in QUESTIONS if question.name == record["task"])
    short = short_of(full)
    value = full.codes[domain].index(record["conversations"][1]["value"])
    return {
        **record,
        "id": f"short-{record['id']}",
        "conversations": [
            {"from": "human", "value": f"<image>\n{short.text}"},
            {"from": "gpt", "value": short.codes[f"{domain}{SUFFIX}"][value]},
        ],
    }
