"""Tokenizers and texts that the tests of encoding share, beside the byte-level `tests.tiny`."""

import functools
import json

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers import processors as post_processors
from transformers import PreTrainedTokenizerFast

from llava_mole.model.templates import VICUNA_SYSTEM
from tests.data.helpers import Span

VOCABULARY = [
    *("hello", "rectangle", "ASSISTANT:", " ASSISTANT: ", "USER:", "</s>", "<s>", "<image>"),
    *("<unk>", "<pad>", "<</s>", "</s></s>", "é", "照片", "\U0001f600", " ", "  ", "\n", "\t"),
    *("yes.", "None", "1,000", "<im", "age>", "\u00a0", "e\u0301", "\ufeff", "\u2003"),
    *("<repo_name>", "<repo_", "name>", "<</s>/s>", "<|im_end|>", "<|im_start|>user\n", "< /s>"),
]


def random_contents(chooser):
    def text(forbidden=""):
        while True:
            words = chooser.choices(VOCABULARY, k=chooser.randint(1, 8))
            made = "".join(w for w in words if w != forbidden)
            if made.strip() and (not forbidden or forbidden not in made):
                return made

    contents = []
    for _ in range(chooser.randint(1, 3)):
        user = text("<image>")
        for _ in range(chooser.choice([0, 0, 1, 2])):
            cut = chooser.randint(0, len(user))
            user = user[:cut] + "<image>" + user[cut:]
        contents += [user, text()]
    return contents


def byte_ids(tokenizer, text):
    """Ids of ``text``, one for each byte: the tokenizer's alphabet, not its algorithm."""
    vocabulary = _vocabulary(tokenizer)
    return [vocabulary[byte] for byte in text.encode()]


@functools.lru_cache
def _vocabulary(tokenizer):
    return [tokenizer.convert_tokens_to_ids(character) for character in byte_characters()]


def byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes, by their definition."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def trained_bpe(trim_offsets: bool):
    """A byte-level BPE with merges, pre-tokenised as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["A chat. USER: hello rectangle ASSISTANT: yes. None 照片 1,000 \n\n  é"] * 3
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = post_processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("</s>", "<image>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def sentencepiece_like(legacy: bool):
    """Pieces as LLaMA's, with ``▁`` in front by Metaspace, or by LLaMA's legacy normalizer."""
    words = ["▁A", "▁chat", "▁USER:", "▁What", "?", "▁ASSISTANT", ":", "▁rectangle", "▁photo", "▁"]
    singles = [chr(code) for code in range(33, 127)] + ["\n", "照"]
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(word, -2.0) for word in words]
    pieces += [(single, -9.0) for single in singles if single not in words]
    model = Tokenizer(models.Unigram(pieces, unk_id=0))
    if legacy:
        model.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    model.post_processor = post_processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    model.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<image>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@functools.lru_cache
def llama_like():
    """LLaMA's way: BPE over characters with ``▁`` for spaces, and bytes for unknown characters."""
    model = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Replace(" ", "▁")
    # For the training only: pieces don't cross words.
    model.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *byte_pieces],
        limit_alphabet=110,
        show_progress=False,
    )
    corpus = [VICUNA_SYSTEM, "USER: What is this? ASSISTANT: A red rectangle, e\u0301.\n", "照片 é"]
    model.train_from_iterator([*corpus, "".join(map(chr, range(32, 127)))] * 4, trainer)
    model.pre_tokenizer = None
    model.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    model.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    model.post_processor = post_processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    # The trainer's special tokens include the bytes, which are ordinary pieces: start afresh.
    state = json.loads(model.to_str())
    state["added_tokens"] = []
    model = Tokenizer.from_str(json.dumps(state))
    names = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
    model.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )


class GivenSpans:
    def __init__(self, *spans):
        self.given = [Span(*span) for span in spans]

    def spans(self, turns):
        return self.given
