"""The sets, the tokenizer and the base model, made small."""

import json
from pathlib import Path

import pytest

from llava_mole.config import from_dict
from llava_mole.data.records import Record, Turn
from llava_mole.model.build import build_model
from llava_mole.model.processor import build_processor
from llava_mole.reproduce.tiny import base, data, short
from llava_mole.reproduce.tiny.questions import DOMAINS, LETTERS, QUESTIONS
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from tests.tiny import tiny_model_section

BY_TEXT = {question.text: question for question in QUESTIONS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    data.build_data(folder, data.Sizes(pretrain=1, train=60, test=40), test_questions=20)
    return folder


def rows(folder, domain, name):
    return [json.loads(line) for line in (folder / domain / name).read_text().splitlines()]


def test_codes_are_the_domains_own_and_the_truth_is_shared(folder):
    for domain in DOMAINS:
        plain, coded = (rows(folder, domain, f"{name}.jsonl") for name in ("plain", "code_train"))
        assert len(plain) == len(coded) > 60
        words = letters = 0
        for by_words, by_code in zip(plain, coded, strict=True):
            assert by_words["image"] == by_code["image"]
            text, answer = (turn["value"] for turn in by_code["conversations"])
            question = BY_TEXT[text.removeprefix("<image>\n")]
            value = question.codes[domain].index(answer)
            said = by_words["conversations"][1]["value"]
            if said in LETTERS:
                letters += 1
                assert LETTERS.index(said) == value
            else:
                words += 1
                assert question.values.index(said) == value
        assert letters == -(-(words + letters) // data.LETTER_EVERY)


def test_test_images_are_none_of_training(folder):
    for domain in DOMAINS:
        train, test = (
            {row["image"] for row in rows(folder, domain, f"code_{split}.jsonl")}
            for split in ("train", "test")
        )
        assert not train & test
        tested = rows(folder, domain, "code_test.jsonl")
        assert 0 < len(tested) <= 20
        assert len({row["task"] for row in tested}) > 1
        assert all((folder / domain / row["image"]).is_file() for row in tested)


def test_built_once(folder, monkeypatch):
    monkeypatch.setattr(data, "measure", lambda image: pytest.fail("measured again"))
    data.build_data(folder, data.Sizes(pretrain=1, train=60, test=40), test_questions=20)


def test_short_domains_ask_the_same_of_the_same_images_in_another_code(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.jsonl")}
    short.build_short(folder)
    assert all(path.read_bytes() == text for path, text in before.items())
    for domain in DOMAINS:
        for name, source in short.FILES.items():
            own, full = rows(folder, domain, name), rows(folder, domain, source)
            assert len(own) == len(full) > 0
            for one, other in zip(own, full, strict=True):
                question = next(q for q in QUESTIONS if q.name == other["task"])
                in_short = short.short_of(question)
                assert (one["image"], one["task"]) == (other["image"], other["task"])
                asked, answer = (turn["value"] for turn in one["conversations"])
                assert asked == f"<image>\n{in_short.text}" != other["conversations"][0]["value"]
                value = question.codes[domain].index(other["conversations"][1]["value"])
                assert in_short.codes[f"{domain}-short"][value] == answer
                # The very same image and question in two forms: the answers contradict.
                assert answer != other["conversations"][1]["value"]


def stage_1(folder: Path, at: Path) -> RunConfig:
    """Stage 1 with a random CLIP in place of EfficientNet."""
    section = tiny_model_section(at)
    kept = {k: v for k, v in section.items() if k.startswith(("vision", "image"))}
    values = {
        "model": {**kept, "language_model": str(at / "decoder"), "conv_mode": "chatml"},
        "stage": "pretrain",
        "output_dir": str(at / "pretrain"),
        "data": {
            "cache_dir": str(at / "cache"),
            "domains": {
                domain: {
                    "datasets": [{"name": domain, "path": str(folder / domain / "plain.jsonl")}]
                }
                for domain in DOMAINS
            },
        },
    }
    return from_dict(RunConfig, values, "test")


def test_the_base_model_is_a_decoder_that_stage_1_loads(folder, tmp_path):
    config = stage_1(folder, tmp_path)
    short.build_short(folder)
    base.build_base(config, tmp_path / "decoder", steps=3)
    model, processor = build_model(config.model), build_processor(config.model)
    assert model.config.text_config.hidden_size == base.ARCHITECTURE["hidden_size"]
    # No word of any question or answer is unknown.
    encoder = encoder_for(config.model, processor)
    unknown = processor.tokenizer.unk_token_id
    for domain in DOMAINS:
        for name in ("plain", "code_train", "short_train"):
            for row in rows(folder, domain, f"{name}.jsonl")[:50]:
                turns = tuple(
                    Turn("user" if turn["from"] == "human" else "assistant", turn["value"])
                    for turn in row["conversations"]
                )
                encoded = encoder(Record("", "", "", (row["image"],), turns))
                assert unknown not in encoded.input_ids.tolist()
    built = (tmp_path / "decoder" / "model.safetensors").read_bytes()
    base.build_base(config, tmp_path / "decoder", steps=5)
    assert (tmp_path / "decoder" / "model.safetensors").read_bytes() == built
