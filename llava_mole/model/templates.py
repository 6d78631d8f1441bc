"""How turns become text: LLaVA's ``vicuna_v1`` and ``plain``, and SmolLM2's ``chatml``.

One :class:`Template` gives both the spans that training labels come from and the Jinja template
that is saved with the processor, from the same fields, so they can't disagree.

Two rules hold in every template:

* Images come first in a user's turn: each ``<image>`` in it is moved to the front, on a line of
  its own, as LLaVA does (LLaVA keeps one of several, here none is lost).
* Text is data. A control string typed in a turn (``</s>``, ``<|im_end|>``, an ``<image>`` in an
  answer) is written with a space after its first character, so that no tokenizer reads it as the
  token: nobody can end a turn, or ask for an image that isn't there, by writing about it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

IMAGE_TOKEN = "<image>"
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Span(NamedTuple):
    """A piece of the text, and whether the model learns to write it."""

    text: str
    is_target: bool


@dataclass(frozen=True)
class Template:
    """A conversation's text around its turns; build one with :func:`conversation`.

    Attributes:
        name: the ``conv_mode``.
        system: default system prompt; none where it is empty.
        system_format: text before and after the system prompt.
        user_format: text before and after a user's turn.
        prompt: what an assistant's turn starts with; the last thing before generation.
        answer_format: text before and after an answer, both learned.
        after_answer: text after an answer that is not learned.
        control: strings that are tokens to the tokenizer and data inside a turn.
        keeps_user_text: False keeps only a user's images (``plain``).
    """

    name: str
    system: str
    system_format: tuple[str, str]
    user_format: tuple[str, str]
    prompt: str
    answer_format: tuple[str, str]
    after_answer: str
    control: tuple[str, ...]
    keeps_user_text: bool = True

    @property
    def stop(self) -> str:
        """What ends an answer: the tokenizer's end-of-sequence, or a newline for ``plain``."""
        return self.answer_format[1]

    def spans(self, turns: Sequence[Mapping[str, str]]) -> list[Span]:
        """The conversation as pieces whose concatenation is the whole text, without ``<s>``.

        Args:
            turns: ``{"role": "user" | "assistant", "content": str}`` in turn, an optional
                ``system`` first. Ending with a user's turn gives the prompt for generation.

        Raises:
            ValueError: roles out of order, or (``plain``) a user's turn without an image.
        """
        turns = list(turns)
        system = self.system
        if turns and turns[0]["role"] == "system":
            system = self._as_data(turns.pop(0)["content"], (*self.control, IMAGE_TOKEN))
        pieces = []
        if system:
            pieces.append(Span(self.system_format[0] + system + self.system_format[1], False))
        for index, turn in enumerate(turns):
            expected = "assistant" if index % 2 else "user"
            if turn["role"] != expected:
                raise ValueError(
                    f"turn {index + 1} is by {turn['role']!r} where {expected!r} is due; "
                    "user and assistant alternate, the user first."
                )
            if expected == "user":
                text = self._user_text(turn["content"], index)
                pieces.append(Span(self.user_format[0] + text + self.user_format[1], False))
                pieces.append(Span(self.prompt, False))
            else:
                text = self._as_data(turn["content"], (*self.control, IMAGE_TOKEN))
                pieces.append(Span(self.answer_format[0] + text + self.answer_format[1], True))
                pieces.append(Span(self.after_answer, False))
        return _merge(pieces)

    def text(self, turns: Sequence[Mapping[str, str]]) -> str:
        """The conversation as one string (see `spans`)."""
        return "".join(span.text for span in self.spans(turns))

    def _user_text(self, content: str, index: int) -> str:
        images = content.count(IMAGE_TOKEN)
        if not self.keeps_user_text:
            if not images:
                raise ValueError(
                    f"turn {index + 1} has no {IMAGE_TOKEN}: conv_mode {self.name!r} pairs an "
                    "image with its caption; put <image> into the user's turn or take vicuna_v1."
                )
            return IMAGE_TOKEN * images
        text = self._as_data(content.replace(IMAGE_TOKEN, ""), self.control)
        return ((IMAGE_TOKEN + "\n") * images + text.strip()).strip() if images else text

    @staticmethod
    def _as_data(text: str, control: Iterable[str]) -> str:
        for token in control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @property
    def jinja(self) -> str:
        """The same template for transformers' ``apply_chat_template``.

        Content may be a string, or parts as ``[{"type": "image"}, {"type": "text", "text": ...}]``.
        """
        (system_0, system_1), (user_0, user_1) = self.system_format, self.user_format
        data = "".join(f".replace({_q(t)}, {_q(f'{t[0]} {t[1:]}')})" for t in self.control)
        no_image = f".replace({_q(IMAGE_TOKEN)}, {_q('< image>')})"
        user = f"(({_q(IMAGE_TOKEN + chr(10))} * ns.images) + ns.text{data}.strip()).strip()"
        if not self.keeps_user_text:
            user = f"{_q(IMAGE_TOKEN)} * ns.images"
        imageless = f"ns.text{data}" if self.keeps_user_text else "''"
        answer = f"{_q(self.answer_format[0])} + ns.text{data}{no_image}"
        answer += f" + {_q(self.answer_format[1] + self.after_answer)}"
        default = ""
        if self.system:
            default = f"{{%- elif loop.first -%}}{{{{ {_q(system_0 + self.system + system_1)} }}}}"
        return (
            "{%- for message in messages -%}"
            "{%- set ns = namespace(text='', images=0) -%}"
            "{%- if message['content'] is string -%}"
            "{%- set ns.text = message['content'] -%}"
            "{%- if message['role'] == 'user' -%}"
            f"{{%- set ns.images = ns.text.count({_q(IMAGE_TOKEN)}) -%}}"
            f"{{%- set ns.text = ns.text.replace({_q(IMAGE_TOKEN)}, '') -%}}"
            "{%- endif -%}"
            "{%- else -%}"
            "{%- for part in message['content'] -%}"
            "{%- if part['type'] == 'image' -%}{%- set ns.images = ns.images + 1 -%}"
            f"{{%- else -%}}{{%- set ns.text = ns.text + part['text']{no_image} -%}}{{%- endif -%}}"
            "{%- endfor -%}"
            "{%- endif -%}"
            "{%- if message['role'] == 'system' -%}"
            f"{{{{ {_q(system_0)} + ns.text{data}{no_image} + {_q(system_1)} }}}}"
            f"{default}{{%- endif -%}}"
            "{%- if message['role'] == 'user' -%}"
            f"{{{{ {_q(user_0)} }}}}"
            f"{{%- if ns.images -%}}{{{{ {user} }}}}"
            f"{{%- else -%}}{{{{ {imageless} }}}}{{%- endif -%}}"
            f"{{{{ {_q(user_1)} }}}}"
            "{%- elif message['role'] == 'assistant' -%}"
            f"{{{{ {_q(self.prompt)} + {answer} }}}}"
            "{%- endif -%}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{ {_q(self.prompt)} }}}}{{%- endif -%}}"
        )


def conversation(conv_mode: str, eos: str = "</s>") -> Template:
    """The template of a ``conv_mode``.

    Args:
        conv_mode: ``vicuna_v1`` (LLaVA-1.5), ``plain`` (LLaVA's stage 1) or ``chatml`` (SmolLM2,
            without the system prompt that its own template puts first).
        eos: the tokenizer's end-of-sequence string, which ends an answer so that the model learns
            to stop; chatml ends every turn with it (SmolLM2-Instruct's is ``<|im_end|>``).

    Raises:
        ValueError: an unknown ``conv_mode``.
    """
    llama = tuple(dict.fromkeys((eos, "</s>", "<s>", "<unk>", "<pad>")))
    if conv_mode == "vicuna_v1":
        return Template(
            name=conv_mode,
            system=VICUNA_SYSTEM,
            system_format=("", " "),
            user_format=("USER: ", " "),
            prompt="ASSISTANT:",
            answer_format=(" ", eos),
            after_answer="",
            control=llama,
        )
    if conv_mode == "plain":
        return Template(
            name=conv_mode,
            system="",
            system_format=("", ""),
            user_format=("", ""),
            prompt="",
            answer_format=("", "\n"),
            after_answer="",
            control=llama,
            keeps_user_text=False,
        )
    if conv_mode == "chatml":
        return Template(
            name=conv_mode,
            system="",
            system_format=("<|im_start|>system\n", f"{eos}\n"),
            user_format=("<|im_start|>user\n", f"{eos}\n"),
            prompt="<|im_start|>assistant\n",
            answer_format=("", eos),
            after_answer="\n",
            control=tuple(dict.fromkeys((eos, "<|im_start|>", "<|im_end|>", "<|endoftext|>"))),
        )
    raise ValueError(f"conv_mode is {conv_mode!r}; choose vicuna_v1, plain or chatml.")


def image_as_data(text: str) -> str:
    """Text from outside that may hold ``<image>`` without meaning one (chat, serving)."""
    return Template._as_data(text, (IMAGE_TOKEN,))


def _merge(pieces: Iterable[Span]) -> list[Span]:
    """Joins neighbours of the same kind and drops empty ones."""
    merged: list[Span] = []
    for piece in pieces:
        if merged and merged[-1].is_target == piece.is_target:
            merged[-1] = Span(merged[-1].text + piece.text, piece.is_target)
        elif piece.text:
            merged.append(piece)
    return merged


def _q(text: str) -> str:
    """A Jinja string literal."""
    return json.dumps(text, ensure_ascii=False)
