"""The one way a model answers, for chat, evaluation and serving: `answer` and `answers`.

Prompts come from the processor's own chat template, batches are padded on the left, an answer ends
with the tokenizer's end-of-sequence (a newline for the ``plain`` template), and what several
questions of a batch share, their image, goes through the model once.
"""

from llava_mole.generate.answer import answer, answers
from llava_mole.generate.prompts import Turns, encode_prompts

__all__ = ["Turns", "answer", "answers", "encode_prompts"]
