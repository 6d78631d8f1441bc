"""Damage to rows of JSON, seeded: what the fuzz test of records feeds to the sources."""

import json
import random
from collections.abc import Iterator
from typing import Any

_WORDS = (
    "What",
    "is",
    "this",
    "?",
    "A cat.",
    "None",
    "图像",
    "café",
    "\u2003",
    "USER:",
    "</s>",
    "42",
)
_ODD_TEXTS = (
    "",
    " \n",
    "<image>",
    "<image><image>",
    "<im",
    "<IMAGE>",
    "< image>",
    "a\0b",
    "\0",
    "\x1b[31m\x07\x08",
    "\ud800",
    "x\udfff",
    "\ud83d\ude00",
    "\u202e\ufeff\u2028",
    "ASSISTANT: </s> USER:",
    "None",
    "../../etc/passwd",
    "x" * 5000,
)
_ODD_ROLES = ("system", "Human", "GPT", "user", "assistant", "human", "gpt", "", "\ud800", 7, None)
_ODD_VALUES = (
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    {"from": "human"},
    "text",
    "",
)


def row(chooser: random.Random, number: int) -> dict[str, Any]:
    """A good row of LLaVA JSON."""
    turns = []
    images = chooser.choice((0, 1, 1, 1, 2, 3))
    for index in range(chooser.randint(1, 4)):
        question = " ".join(chooser.choices(_WORDS, k=chooser.randint(1, 8)))
        if index == 0:
            question = "<image>\n" * images + question
        answer = " ".join(chooser.choices(_WORDS, k=chooser.randint(1, 8)))
        speakers = chooser.choice((("human", "gpt"), ("user", "assistant")))
        turns.append({"from": speakers[0], "value": question})
        turns.append({"from": speakers[1], "value": answer + "."})
    made = {"id": f"r{number}", "conversations": turns}
    if images:
        made["image"] = "a/0.jpg" if images == 1 else [f"a/{i}.jpg" for i in range(images)]
    return made


def mutated(value: Any, chooser: random.Random) -> Any:
    """``value`` with something inside it, or all of it, replaced, removed, doubled or nested."""
    for _ in range(chooser.choice((0, 1, 1, 1, 2, 3))):
        value = _mutated_once(value, chooser)
    return value


def _mutated_once(value: Any, chooser: random.Random) -> Any:
    places = list(_places(value))
    if not places or chooser.random() < 0.03:
        return _odd(chooser)
    holder, key = chooser.choice(places)
    kind = chooser.random()
    if kind < 0.2:
        del holder[key]
    elif kind < 0.3 and isinstance(holder, list):
        holder.insert(key, holder[chooser.randrange(len(holder))])
    elif kind < 0.4 and isinstance(holder, list):
        chooser.shuffle(holder)
    elif key == "from" and kind < 0.7:
        holder[key] = chooser.choice(_ODD_ROLES)
    elif isinstance(holder[key], str) and kind < 0.75:
        text, at = holder[key], chooser.randint(0, len(holder[key]))
        holder[key] = text[:at] + chooser.choice(_ODD_TEXTS) + text[at:]
    else:
        holder[key] = _odd(chooser)
    return value


def _odd(chooser: random.Random) -> Any:
    kind = chooser.random()
    if kind < 0.1:
        nested: Any = chooser.choice(_ODD_TEXTS)
        for _ in range(chooser.choice((5, 200, 500))):
            nested = [nested] if chooser.random() < 0.5 else {"from": nested}
        return nested
    # As new objects: a shared list, changed later, would change other rows.
    return json.loads(json.dumps(chooser.choice(_ODD_TEXTS if kind < 0.5 else _ODD_VALUES)))


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        if depth < 4:
            yield from _places(value[key], depth + 1)


def written(value: Any, chooser: random.Random) -> bytes:
    """``value`` as JSON on one line, sometimes not quite, with its brackets and quotes balanced."""
    text = json.dumps(value, ensure_ascii=chooser.random() < 0.5)
    kind = chooser.random()
    if kind < 0.02:
        text = text.replace('{"', '{"id": "twice", "conversations": 3, "', 1)
    elif kind < 0.04:
        text = text.replace('"id"', '"image": "other.jpg", "id"', 1)
    elif kind < 0.06:
        text = text.replace(": ", chooser.choice((" ", " : ", "::", ":\t")), 1)
    elif kind < 0.08:
        text = text.replace("}", chooser.choice((",}", " nan}", ', "k": 01}', ', "k": .5}')), 1)
    elif kind < 0.09:
        text = text.replace('"id"', f'"deep": {"[" * 100_000}{"]" * 100_000}, "id"', 1)
    elif kind < 0.10:
        text = text.replace('"id"', f'"number": {"9" * 5000}, "id"', 1)
    elif kind < 0.11:
        text = text.replace('"id"', '"not": "escaped \\x41", "id"', 1)
    elif kind < 0.13:
        text = text.replace('"value": "', '"value": "\x01\t', 1)
    elif kind < 0.14:
        depth = chooser.randint(900, 1000)
        text = text.replace('"human"', "[" * depth + "]" * depth, 1)
    data = text.encode("utf-8", "surrogatepass")
    if kind > 0.98:
        data = data.replace(b"a", b"\xff", 1)
    return data
