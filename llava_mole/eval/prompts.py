"""What is put around a benchmark's question, and how its answer is generated."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from llava_mole.data.records import IMAGE_TOKEN
from llava_mole.eval.benchmarks import Benchmark
from llava_mole.eval.questions import Question

STYLES = ("llava", "authors")


@dataclass(frozen=True)
class Prompting:
    """How a benchmark is asked, greedily.

    Attributes:
        prefix: text in front of each question, as it is.
        suffix: text behind each question, on a line of its own.
        max_new_tokens: longest answer.
        repetition_penalty: on what the answer has said so far; 1 is none.
    """

    prefix: str = ""
    suffix: str = ""
    max_new_tokens: int = 128
    repetition_penalty: float = 1.0

    def apply(self, question: Question) -> Question:
        """The question as it is asked."""
        if not (self.prefix or self.suffix):
            return question
        last = dict(question.turns[-1])
        images = last["content"].count(IMAGE_TOKEN)
        text = self.prefix + question.text + (f"\n{self.suffix}" if self.suffix else "")
        last["content"] = f"{IMAGE_TOKEN}\n" * images + text
        return dataclasses.replace(question, turns=(*question.turns[:-1], last))

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)


def prompting(
    benchmark: Benchmark,
    style: str = "llava",
    suffix: str = "",
    max_new_tokens: int | None = None,
) -> Prompting:
    """How ``benchmark`` is asked in a prompt style.

    ``llava`` asks the question as the benchmark has it, in the run's own conversation template.
    ``authors`` does what the paper's published inference code does on Tiny LVLM-eHub: a sentence in
    front of the question (its typing error is theirs), repetition penalty 10, 256 new tokens. That
    code asks no other benchmark, so the others are asked as in ``llava``. Its conversation starts
    without ``<s>`` and ends in ``ASSISTANT: `` with a space; a model is asked here in the template
    that it was trained with.

    Args:
        benchmark: what is asked.
        style: one of `STYLES`.
        suffix: put behind each question, e.g. LLaVA-1.5's "Answer the question using a single word
            or phrase."
        max_new_tokens: longest answer; None takes the style's, else the benchmark's.
    """
    if style == "authors" and benchmark.authors_prefix is not None:
        return Prompting(benchmark.authors_prefix, suffix, max_new_tokens or 256, 10.0)
    return Prompting("", suffix, max_new_tokens or benchmark.max_new_tokens)
