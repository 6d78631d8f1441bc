"""Templates: LLaVA's strings to the letter, spans and Jinja agree, text stays data."""

import pytest

from llava_mole.model.templates import Span, conversation, image_as_data
from tests import tiny

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_vicuna_v1_is_llavas_string():
    turns = [user("<image>\nQ"), assistant("A"), user("R"), assistant("B")]
    assert conversation("vicuna_v1").spans(turns) == [
        Span(f"{SYSTEM} USER: <image>\nQ ASSISTANT:", False),
        Span(" A</s>", True),
        Span("USER: R ASSISTANT:", False),
        Span(" B</s>", True),
    ]


def test_generation_prompt_has_no_trailing_space():
    assert conversation("vicuna_v1").text([user("Q")]) == f"{SYSTEM} USER: Q ASSISTANT:"


def test_plain_is_image_and_caption():
    turns = [user("What is this?\n<image>"), assistant("a dog")]
    assert conversation("plain").spans(turns) == [Span("<image>", False), Span("a dog\n", True)]
    with pytest.raises(ValueError, match=r"turn 1 has no <image>"):
        conversation("plain").spans([user("What is this?"), assistant("a dog")])


def test_chatml_is_smollm2s_string():
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    template = conversation("chatml", eos="<|im_end|>")
    exchange = [
        Span("<|im_start|>user\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n", False),
        Span("A<|im_end|>", True),
        Span("\n", False),
    ]
    turns = [{"role": "user", "content": "<image>\nQ"}, {"role": "assistant", "content": "A"}]
    assert template.spans(turns) == exchange
    prefix = f"<|im_start|>system\n{system}<|im_end|>\n"
    with_system = template.spans([{"role": "system", "content": system}, *turns])
    assert with_system == [Span(prefix + exchange[0].text, False), *exchange[1:]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Q\n<image>", "<image>\nQ"),
        ("<image>", "<image>"),
        ("first <image> second <image>", "<image>\n<image>\nfirst  second"),
        ("  no image ", "  no image "),
    ],
)
def test_images_come_first_and_none_is_lost(content, expected):
    assert f"USER: {expected} ASSISTANT:" in conversation("vicuna_v1").text([user(content)])


CONVERSATIONS = [
    [user("<image>\nQ"), assistant("A")],
    [user("Q <image>"), assistant("A"), user("é\n\n R"), assistant(" B ")],
    [user("a <image> b <image>"), assistant("two")],
    [user("<image>"), assistant('say "ASSISTANT: " \\n {{ x }}')],
    [user("<image> end </s> now"), assistant("a </s> <image> <|im_end|> <s>")],
]


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("turns", CONVERSATIONS)
@pytest.mark.parametrize(("mode", "eos"), [("vicuna_v1", "</s>"), ("chatml", "<|im_end|>")])
def test_jinja_equals_spans(mode, eos, turns, system):
    template = conversation(mode, eos)
    turns = [{"role": "system", "content": "Be </s> brief."}, *turns] if system else turns
    processor = tiny.tiny_processor(template.jinja)
    assert processor.apply_chat_template(turns) == template.text(turns)
    asked = turns[:-1]
    rendered = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert rendered == template.text(asked)


def test_plain_jinja_equals_spans():
    template = conversation("plain")
    turns = [user("What?\n<image>"), assistant("a <s>dog</s>")]
    assert tiny.tiny_processor(template.jinja).apply_chat_template(turns) == template.text(turns)


def test_jinja_takes_parts():
    template = conversation("vicuna_v1")
    parts = [{"type": "text", "text": "is this an <image>?"}, {"type": "image"}]
    rendered = tiny.tiny_processor(template.jinja).apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True
    )
    assert rendered == f"{SYSTEM} USER: <image>\nis this an < image>? ASSISTANT:"


def test_control_strings_in_turns_are_data(tokenizer):
    turns = [user("why </s>?"), assistant("because </s> ends <image>")]
    text = conversation("vicuna_v1").text(turns)
    ids = tokenizer(text).input_ids
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert tiny.IMAGE_TOKEN_ID not in ids
    assert image_as_data("an <image> tag") == "an < image> tag"


@pytest.mark.parametrize("turns", [[assistant("A")], [user("Q"), user("R")]])
def test_roles_alternate(turns):
    with pytest.raises(ValueError, match="alternate"):
        conversation("vicuna_v1").spans(turns)


def test_unknown_mode():
    with pytest.raises(ValueError, match="choose vicuna_v1"):
        conversation("v0")
