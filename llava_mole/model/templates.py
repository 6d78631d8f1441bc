"""How turns become text: LLaVA's ``vicuna_v1`` and ``plain``, and SmolLM2's ``chatml``.

One :class:`Template` gives both the spans that training labels come from and the Jinja template
that is saved with the processor, from the same fields, so they can't disagree.

Two rules hold in every template:

* Images come first in a user's turn: each ``<image>`` in it is moved to the front, on a line of
  its own, as LLaVA does (LLaVA keeps one of several, here none is lost).
* Text is data. A special string typed in a turn (``</s>``, ``<repo_name>``, an ``<image>`` in an
  answer) is written with a space after its first character, so that the tokenizer doesn't read it
  as the token: nobody can end a turn, or ask for an image that isn't there, by writing about it.
  Training and generation read it alike, as both texts come from here.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """A conversation's text around its turns; build one with :func:`template_for`.

    Attributes:
        name: the ``conv_mode``.
        system: default system prompt; none where it is empty.
        system_format: text before and after the system prompt.
        user_format: text before and after a user's turn.
        prompt: what an assistant's turn starts with; the last thing before generation.
        answer_format: text before and after an answer, both learned.
        after_answer: text after an answer that is not learned.
        breaks: replacements (old, new) made in each turn, in this order; see `_breaks`.
        keeps_user_text: False keeps only a user's images (``plain``).
    """

    name: str
    system: str
    system_format: tuple[str, str]
    user_format: tuple[str, str]
    prompt: str
    answer_format: tuple[str, str]
    after_answer: str
    breaks: tuple[tuple[str, str], ...]
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
            system = _replace(turns.pop(0)["content"], self.breaks)
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
                text = _replace(turn["content"], self.breaks)
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
        # Taking images out can leave a special string behind, even <image>: break it after that.
        text = _replace(content.replace(IMAGE_TOKEN, ""), self.breaks)
        return ((IMAGE_TOKEN + "\n") * images + text.strip()).strip() if images else text

    @property
    def tag(self) -> str:
        """A Jinja comment that `jinja` starts with: the ``conv_mode`` of a saved template."""
        return f"{{#- conv_mode: {self.name} -#}}"

    @property
    def jinja(self) -> str:
        """The same template for transformers' ``apply_chat_template``.

        Content may be a string, or parts as ``[{"type": "image"}, {"type": "text", "text": ...}]``.
        """
        (system_0, system_1), (user_0, user_1) = self.system_format, self.user_format
        breaks = ", ".join(f"[{_q(old)}, {_q(new)}]" for old, new in self.breaks)
        user = f"(({_q(IMAGE_TOKEN + chr(10))} * ns.images) + ns.text.strip()).strip()"
        if not self.keeps_user_text:
            user = f"{_q(IMAGE_TOKEN)} * ns.images"
        imageless = "ns.text" if self.keeps_user_text else "''"
        answer = f"{_q(self.answer_format[0])} + ns.text"
        answer += f" + {_q(self.answer_format[1] + self.after_answer)}"
        default = ""
        if self.system:
            default = f"{{%- elif loop.first -%}}{{{{ {_q(system_0 + self.system + system_1)} }}}}"
        return (
            f"{self.tag}"
            f"{{%- set breaks = [{breaks}] -%}}"
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
            "{%- else -%}{%- set ns.text = ns.text + part['text'] -%}{%- endif -%}"
            "{%- endfor -%}"
            "{%- endif -%}"
            "{%- for old, new in breaks -%}"
            "{%- set ns.text = ns.text.replace(old, new) -%}"
            "{%- endfor -%}"
            "{%- if message['role'] == 'system' -%}"
            f"{{{{ {_q(system_0)} + ns.text + {_q(system_1)} }}}}"
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


def template_for(conv_mode: str, tokenizer: Any) -> Template:
    """The template of a ``conv_mode`` that knows every special string of ``tokenizer``.

    Args:
        conv_mode: see `conversation`.
        tokenizer: with ``<image>`` and all its other special tokens already added.

    Raises:
        ValueError: see `conversation`.
    """
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special}
    special.update(tokenizer.all_special_tokens)
    return conversation(conv_mode, tokenizer.eos_token, special)


def conversation(conv_mode: str, eos: str = "</s>", special: Iterable[str] = ()) -> Template:
    """The template of a ``conv_mode``; `template_for` reads the rest off a tokenizer.

    Args:
        conv_mode: ``vicuna_v1`` (LLaVA-1.5), ``plain`` (LLaVA's stage 1) or ``chatml`` (SmolLM2,
            without the system prompt that its own template puts first).
        eos: the tokenizer's end-of-sequence string, which ends an answer so that the model learns
            to stop; chatml ends every turn with it (SmolLM2-Instruct's is ``<|im_end|>``).
        special: strings that are tokens to the tokenizer and data inside a turn, besides ``eos``,
            ``<image>`` and chatml's ``<|im_start|>``.

    Raises:
        ValueError: an unknown ``conv_mode``, or a special string that can't be kept apart from
            text: a single character, or one with a space in it.
    """
    special = {eos, IMAGE_TOKEN, *special}
    if conv_mode == "vicuna_v1":
        return Template(
            name=conv_mode,
            system=VICUNA_SYSTEM,
            system_format=("", " "),
            user_format=("USER: ", " "),
            prompt="ASSISTANT:",
            answer_format=(" ", eos),
            after_answer="",
            breaks=_breaks(special),
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
            breaks=_breaks(special),
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
            breaks=_breaks(special | {"<|im_start|>"}),
        )
    raise ValueError(f"conv_mode is {conv_mode!r}; choose vicuna_v1, plain or chatml.")


def image_as_data(text: str) -> str:
    """Text from outside that may hold ``<image>`` without meaning one (chat, serving)."""
    return _replace(text, _breaks((IMAGE_TOKEN,)))


def _breaks(special: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Replacements (old, new) that, made in this order, leave no special string in any text.

    None of them holds a space, so putting one in never makes a new occurrence of any, and the
    strings can be dealt with one after the other. ``str.replace`` skips occurrences that overlap
    the one before, which only a string that repeats itself has. With period p and length n, those
    between two replaced ones begin at most n - 1 characters after the first and at least p apart,
    and each pass breaks the first of them: 1 + (n - 1) // p passes break all.

    Raises:
        ValueError: a single character has no place for the space, and with a space in a special
            string breaking one could make another.
    """
    breaks: list[tuple[str, str]] = []
    for old in sorted(set(special)):
        if len(old) < 2 or " " in old:
            raise ValueError(
                f"the tokenizer's special token {old!r} can't be kept apart from people's text, as "
                "it is a single character or holds a space; rename it or make it not special in "
                "tokenizer.json and tokenizer_config.json."
            )
        period = next(p for p in range(1, len(old) + 1) if old.startswith(old[p:]))
        passes = 1 + (len(old) - 1) // period
        breaks += [(old, f"{old[0]} {old[1:]}")] * passes
    return tuple(breaks)


def _replace(text: str, replacements: tuple[tuple[str, str], ...]) -> str:
    # Some tokenizers have hundreds of special strings, and hardly any text has one.
    if _any_old(replacements).search(text):
        for old, new in replacements:
            text = text.replace(old, new)
    return text


@functools.lru_cache(maxsize=32)
def _any_old(replacements: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    return re.compile("|".join(sorted({re.escape(old) for old, _ in replacements})))


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
