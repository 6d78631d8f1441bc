"""The tiny scale's tokenizer: one token a word, made from the texts themselves."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llava_mole.reproduce.tiny.questions import BY_LETTER, LETTERS, QUESTIONS

START, END, UNKNOWN, PAD = "<|im_start|>", "<|im_end|>", "<unk>", "<pad>"


def build_tokenizer(folder: Path) -> None:
    """Writes a tokenizer that knows every word of the questions, answers and of chatml."""
    vocabulary = {}
    for word in [PAD, UNKNOWN, START, END, "\n", "user", "assistant", *_words()]:
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Split(" ", "removed"),
        ]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=PAD,
        additional_special_tokens=[START],
    ).save_pretrained(folder)


def _words() -> Iterable[str]:
    for question in QUESTIONS:
        yield from question.text.split()
        yield from question.values
    yield from BY_LETTER.split()
    yield from LETTERS
