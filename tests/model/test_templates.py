"""Templates: LLaVA's strings to the letter, spans and Jinja agree, text stays data."""

import itertools
import random

import pytest

from llava_mole.model.templates import Span, conversation, image_as_data, template_for
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
    [user("what is <repo_name>"), assistant("<repo_name><</s>/s> <<repo_name>/s>")],
    [user("<im<image>age> </<image>s>"), assistant("<im<image>age>")],
    [user("aaaaaaaaa xyxyxyxyx"), assistant("xyxyaaaa")],
]
# "aaaa" and "xyx" overlap themselves, "xyx" and "yxy" each other.
SPECIAL = ["<repo_name>", "aaaa", "xyx", "yxy", 'a"\\\n{{%}']


def tokenizer_with(*special, **names):
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", *special], **names})
    return tokenizer


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("turns", CONVERSATIONS)
@pytest.mark.parametrize(("mode", "eos"), [("vicuna_v1", "</s>"), ("chatml", "<|im_end|>")])
def test_jinja_equals_spans(mode, eos, turns, system):
    template = template_for(mode, tokenizer_with(*SPECIAL, eos_token=eos))
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


def test_special_strings_in_turns_are_data():
    tokenizer = tokenizer_with("<repo_name>")
    turns = [user("why </s>?"), assistant("because <repo_name></s> ends <image>")]
    text = template_for("vicuna_v1", tokenizer).text(turns)
    assert text.endswith("USER: why < /s>? ASSISTANT: because < repo_name>< /s> ends < image></s>")
    special = [id for id in tokenizer(text).input_ids if id in tokenizer.added_tokens_decoder]
    assert special == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert image_as_data("an <image> tag") == "an < image> tag"


def test_users_text_parts_do_not_join_into_an_image():
    parts = [{"type": "text", "text": "<im"}, {"type": "text", "text": "age>"}, {"type": "image"}]
    rendered = tiny.tiny_processor(conversation("vicuna_v1").jinja).apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True
    )
    assert rendered == f"{SYSTEM} USER: <image>\n< image> ASSISTANT:"


def test_no_special_string_survives_however_they_overlap():
    chooser = random.Random(0)
    words = ["".join(w) for n in (2, 3, 4, 5) for w in itertools.product("ab", repeat=n)]
    survived = 0
    for _ in range(3000):
        special = chooser.sample(words, chooser.randint(1, 4))
        content = "".join(chooser.choices("ab ", weights=[6, 3, 1], k=40)) + "a" * 9
        answer = conversation("plain", special=special).spans([user("<image>"), assistant(content)])
        written = answer[1].text.removesuffix("\n")
        assert not any(string in written for string in special), (special, content)
        assert written.replace(" ", "") == content.replace(" ", "")
        survived += any(string in content for string in special)
    assert survived > 2500


def test_a_turn_without_special_strings_is_not_touched():
    template = template_for("chatml", tokenizer_with(*SPECIAL))
    content = "a < b, x</ s> aaa xy [image] <repo-name> <|im_stop|>"
    assert template.spans([user("Q"), assistant(content)])[1].text == content + "</s>"


@pytest.mark.parametrize("special", ["#", "", "two words", " x"])
def test_special_tokens_that_cannot_be_kept_apart(special):
    with pytest.raises(ValueError, match=r"can't be kept apart.*tokenizer\.json"):
        conversation("vicuna_v1", special=[special])


def test_a_saved_template_tells_its_mode():
    tags = {mode: conversation(mode).tag for mode in ("vicuna_v1", "plain", "chatml")}
    for mode in tags:
        jinja = template_for(mode, tokenizer_with("<repo_name>")).jinja
        assert [name for name, tag in tags.items() if tag in jinja] == [mode]


@pytest.mark.parametrize("turns", [[assistant("A")], [user("Q"), user("R")]])
def test_roles_alternate(turns):
    with pytest.raises(ValueError, match="alternate"):
        conversation("vicuna_v1").spans(turns)


def test_unknown_mode():
    with pytest.raises(ValueError, match="choose vicuna_v1"):
        conversation("v0")
