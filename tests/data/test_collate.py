"""Padded and packed batches: the same losses, token by token."""

import pytest
import torch
from PIL import Image

from llava_mole.data.collate import PackedCollator, PaddedCollator, model_inputs
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.records import Problem
from llava_mole.data.tokens.encode import Encoded, encode
from llava_mole.model.attention import attend_by_sample
from tests import tiny
from tests.data.helpers import VicunaLike, record

P = tiny.NUM_IMAGE_TOKENS
CONVERSATIONS = [
    ("<image>\nWhat?", "A rectangle"),
    ("No image here, but a much longer question than the others have", "Yes"),
    ("<image>", "One", "<image> and now?", "Two, twice"),
    ("Q", "A"),
]


@pytest.fixture
def samples(tokenizer):
    pixels = ProcessorPixels(tiny.tiny_processor().image_processor)
    made = []
    for index, contents in enumerate(CONVERSATIONS):
        encoded = encode(record(*contents), tokenizer, VicunaLike(), P, 1000)
        sample = {"encoded": encoded, "dataset_id": index % 3}
        if encoded.images:
            colours = [(60 * index, 50 * slot, 99) for slot in range(len(encoded.images))]
            images = [pixels(Image.new("RGB", (40, 25), colour)) for colour in colours]
            sample["pixel_values"] = torch.stack(images)
        made.append(sample)
    return made


def _losses(model, batch, **options):
    """Cross-entropy of each target, sample by sample in order."""
    with torch.no_grad():
        logits = model(**model_inputs(batch), use_cache=False, **options).logits
    rows, columns = (batch["targets"] != -100).nonzero(as_tuple=True)
    return torch.nn.functional.cross_entropy(
        logits[rows, columns], batch["targets"][rows, columns], reduction="none"
    )


def _reference(model, sample):
    """The same by transformers' plain forward of one sample, all logits, shifted by hand."""
    encoded = sample["encoded"]
    inputs = {"input_ids": encoded.input_ids[None]}
    if "pixel_values" in sample:
        inputs["pixel_values"] = sample["pixel_values"]
    with torch.no_grad():
        logits = model(**inputs).logits[0].double().log_softmax(-1)
    return torch.tensor(
        [
            -logits[position - 1, encoded.labels[position]]
            for position in range(1, len(encoded.labels))
            if encoded.labels[position] != -100
        ]
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager", "sdpa_varlen"])
@pytest.mark.parametrize("collate", [PaddedCollator(tiny.PAD_TOKEN_ID, 8), PackedCollator()])
def test_losses_equal_one_sample_at_a_time(llava, samples, collate, attention):
    llava.set_attn_implementation("eager" if attention == "eager" else "sdpa")
    reference = torch.cat([_reference(llava, sample) for sample in samples])
    assert attention != "sdpa_varlen" or attend_by_sample(llava)
    losses = _losses(llava, collate(samples))
    assert len(reference) == sum(sample["encoded"].num_supervised for sample in samples)
    torch.testing.assert_close(losses.double(), reference.double(), atol=1e-5, rtol=0)


def test_padded_and_packed_give_the_same_losses(llava, samples):
    padded = _losses(llava, PaddedCollator(tiny.PAD_TOKEN_ID)(samples))
    packed = _losses(llava, PackedCollator()(samples))
    torch.testing.assert_close(padded, packed, atol=1e-5, rtol=0)


def test_shapes_and_types(samples):
    padded = PaddedCollator(tiny.PAD_TOKEN_ID, 16)(samples)
    length = padded["input_ids"].shape[1]
    assert length % 16 == 0
    assert padded["attention_mask"].sum(1).tolist() == [
        len(s["encoded"].input_ids) for s in samples
    ]
    assert (padded["input_ids"][padded["attention_mask"] == 0] == tiny.PAD_TOKEN_ID).all()
    assert padded["targets"].shape == (4, len(padded["logits_to_keep"]))
    assert "position_ids" not in padded
    packed = PackedCollator()(samples)
    total = sum(len(sample["encoded"].input_ids) for sample in samples)
    assert packed["input_ids"].shape == packed["position_ids"].shape == (1, total)
    assert (packed["position_ids"] == 0).sum() == 4
    assert "attention_mask" not in packed
    lengths = [len(sample["encoded"].input_ids) for sample in samples]
    for of in "qk":
        assert packed[f"cu_seq_lens_{of}"].dtype == torch.int32
        assert packed[f"cu_seq_lens_{of}"].diff().tolist() == lengths
        assert packed[f"max_length_{of}"] == max(lengths)
    for batch in (padded, packed):
        assert batch["pixel_values"].shape == (3, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
        assert batch["dataset_ids"].tolist() == [0, 1, 2, 0]
        assert batch["num_sequences"] == 4
        assert "labels" not in batch
        for key in ("input_ids", "logits_to_keep", "targets", "dataset_ids"):
            assert batch[key].dtype == torch.int64


def test_only_positions_before_targets_are_kept(samples):
    padded = PaddedCollator(tiny.PAD_TOKEN_ID)(samples)
    for row, sample in enumerate(samples):
        labels = sample["encoded"].labels
        wanted = {p: labels[p + 1].item() for p in range(len(labels) - 1) if labels[p + 1] != -100}
        given = zip(padded["logits_to_keep"].tolist(), padded["targets"][row].tolist(), strict=True)
        assert {p: target for p, target in given if target != -100} == wanted
    assert (padded["targets"] != -100).any(0).all()


def test_no_target_crosses_from_one_packed_sample_to_the_next():
    # Without a BOS a sample's first token can be a target; nothing of its own comes before it.
    def sample(ids):
        ids = torch.tensor(ids)
        return {"encoded": Encoded(ids, ids.clone(), len(ids) - 1), "dataset_id": 0}

    batch = PackedCollator()([sample([5, 6]), sample([7, 8, 9])])
    assert batch["logits_to_keep"].tolist() == [0, 2, 3]
    assert batch["targets"].tolist() == [[6, 8, 9]]


def test_text_alone_has_no_pixels(samples):
    for collate in (PaddedCollator(0), PackedCollator()):
        batch = collate([samples[1], samples[3]])
        assert "pixel_values" not in batch


def test_the_model_is_given_what_its_forward_takes(samples):
    inputs = {"input_ids", "pixel_values", "logits_to_keep"}
    padded = model_inputs(PaddedCollator(tiny.PAD_TOKEN_ID)(samples))
    assert padded.keys() == inputs | {"attention_mask"}
    lengths = {f"{name}_{of}" for name in ("cu_seq_lens", "max_length") for of in "qk"}
    packed = model_inputs(PackedCollator()(samples))
    assert packed.keys() == inputs | {"position_ids"} | lengths


@pytest.mark.parametrize("collate", [PaddedCollator(tiny.PAD_TOKEN_ID), PackedCollator()])
def test_a_stand_in_adds_no_target_and_changes_no_other_sample(llava, samples, collate):
    problem = Problem("d", "f.jsonl", 3, "r", "image gone")
    token = torch.tensor([tiny.PAD_TOKEN_ID])
    stand_in = {"dataset_id": 1, "problem": problem}
    stand_in["encoded"] = Encoded(token, torch.full_like(token, -100), 0)
    batch = collate([samples[0], stand_in, samples[2]])
    assert batch["problems"] == [problem]
    assert batch["dataset_ids"].tolist() == [0, 1, 2]
    expected = _losses(llava, collate([samples[0], samples[2]]))
    torch.testing.assert_close(_losses(llava, batch), expected, atol=1e-5, rtol=0)
    alone = collate([stand_in])
    assert len(_losses(llava, alone)) == 0
    assert "pixel_values" not in alone
