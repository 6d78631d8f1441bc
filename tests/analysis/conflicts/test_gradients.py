"""Gram matrices of domains' gradients against hand-written losses, one sample at a time."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from llava_mole import MoleConfig
from llava_mole.analysis.conflicts import gradients
from llava_mole.analysis.conflicts.breakdown import conflicts
from llava_mole.analysis.conflicts.gradients import (
    domain_gradients,
    gradient_bytes,
    refuse_too_many,
)
from llava_mole.analysis.conflicts.pieces import Piece, piece_of, without_gradient
from llava_mole.data.collate import PackedCollator, PaddedCollator
from llava_mole.data.tokens.encode import IGNORE_INDEX, Encoded
from llava_mole.model.freeze import freeze
from llava_mole.tuner import lora_targets
from tests import tiny

BATCHES = 4
COLLATE = PaddedCollator(tiny.PAD_TOKEN_ID)


def lora(trained: bool):
    """A tiny LLaVA with plain LoRA on what MoLE adapts, in float64."""
    model = tiny.tiny_llava()
    targets = lora_targets(model)
    config = LoraConfig(
        r=2,
        lora_alpha=4,
        lora_dropout=0.3,
        target_modules=targets,
        modules_to_save=["multi_modal_projector"],
    )
    return ready(get_peft_model(model, config), trained)


def mole(trained: bool):
    config = MoleConfig(
        num_experts=2,
        r=2,
        lora_dropout=0.3,
        gate_scaling="prob",
        modules_to_save=["multi_modal_projector"],
    )
    return ready(get_peft_model(tiny.tiny_llava(), config), trained)


def ready(model, trained: bool):
    freeze(model, "finetune")
    if trained:
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.endswith(".B"):
                parameter.data.normal_(std=0.3, generator=generator)
    return model.double()


def sample(generator: torch.Generator, first: int, images: int = 1, words: int = 60) -> dict:
    """Question and answer of 2 to 5 tokens each, out of ``words`` from ``first`` on."""
    asked, said = (int(torch.randint(2, 6, (), generator=generator)) for _ in range(2))
    text = torch.randint(first, first + words, (asked + said,), generator=generator)
    image = torch.full((images * tiny.NUM_IMAGE_TOKENS,), tiny.IMAGE_TOKEN_ID)
    ids = torch.cat([torch.tensor([1]), image, text])
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[-said:] = ids[-said:]
    found = {"encoded": Encoded(ids, labels, num_supervised=said), "dataset_id": 0}
    if images:
        size = (images, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
        found["pixel_values"] = torch.randn(size, generator=generator, dtype=torch.float64)
    return found


def answer_alone() -> dict:
    """Every token a label; the first follows nothing and is not learnt."""
    ids = torch.tensor([1, 40, 41])
    return {"encoded": Encoded(ids, ids.clone(), num_supervised=3), "dataset_id": 0}


def domains() -> dict[str, list[list[dict]]]:
    """Two domains of other words; samples with one, two and no image, a first batch of texts."""
    generator = torch.Generator().manual_seed(0)
    found = {
        name: [[sample(generator, first, images) for images in (1, 2, 0)] for _ in range(BATCHES)]
        for name, first in (("low", 10), ("high", 150))
    }
    found["low"][0] = [sample(generator, 10, images=0), answer_alone()]
    return found


def by_hand(model, samples: list[dict]) -> dict[str, torch.Tensor]:
    """The gradient of a batch's mean loss by autograd, from all logits and a log-softmax."""
    loss, count = 0.0, 0
    for one in samples:
        ids, labels = one["encoded"].input_ids, one["encoded"].labels
        inputs = {"pixel_values": one["pixel_values"]} if "pixel_values" in one else {}
        logits = model(input_ids=ids[None], use_cache=False, **inputs).logits[0]
        for place in range(1, len(ids)):
            if labels[place] != IGNORE_INDEX:
                loss = loss - logits[place - 1].double().log_softmax(-1)[labels[place]]
                count += 1
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss / count, list(trained.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(trained.items(), found, strict=True)
    }


@pytest.mark.parametrize("make", [lora, mole])
def test_every_pieces_gram_matrix_is_that_of_gradients_by_hand(make, monkeypatch):
    monkeypatch.setattr(gradients, "_CHUNK", 30)
    model, batches = make(trained=True), domains()
    # What a caller left behind.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    found = domain_gradients(model, batches, COLLATE)
    assert found.names == ("low", "high")
    assert found.values.shape == (len(found.pieces), 2 * BATCHES, 2 * BATCHES)
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    rows = [by_hand(model, samples) for own in batches.values() for samples in own]
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    there = [name for name in names if any(row[name].any() for row in rows)]
    assert [piece_of(name) for name in there] == list(found.pieces)
    assert len(found.zero) == len(names) - len(there)
    for gram, name, size in zip(found.values, there, found.sizes, strict=True):
        stacked = torch.stack([row[name].flatten() for row in rows]).double()
        expected = (stacked @ stacked.T).numpy()
        # Gradients are held in float32.
        assert np.abs(gram - expected).max() <= 1e-6 * np.abs(expected).max()
        assert size == stacked.shape[1]


def test_micro_batches_and_packing_change_nothing():
    model, batches = lora(trained=True), domains()
    whole = domain_gradients(model, batches, COLLATE)
    for other in (
        domain_gradients(model, batches, COLLATE, micro_batch_size=2),
        domain_gradients(model, batches, PackedCollator(), micro_batch_size=1),
    ):
        assert np.allclose(other.values, whole.values, rtol=1e-5, atol=1e-12)
        assert np.allclose(other.losses, whole.losses)
        assert (other.targets == whole.targets).all()


def test_a_bfloat16_base_with_float32_weights_is_measured_under_autocast():
    model, batches = lora(trained=True), domains()
    exact = domain_gradients(model, batches, COLLATE)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model.to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.data = parameter.data.float()
    for samples in (s for own in batches.values() for batch in own for s in batch):
        if "pixel_values" in samples:
            samples["pixel_values"] = samples["pixel_values"].float()
    rough = domain_gradients(model, batches, COLLATE, autocast=torch.bfloat16)
    adapter = [grams.of(lambda piece: piece.is_adapter) for grams in (exact, rough)]
    length = np.sqrt(np.diag(adapter[0]))
    assert np.abs(adapter[1] - adapter[0]).max() <= 0.1 * np.outer(length, length).max()


@pytest.mark.parametrize("make", [lora, mole])
def test_at_initialisation_only_b_and_the_projector_have_a_gradient(make):
    model = make(trained=False)
    zero = without_gradient(model)
    assert zero
    assert {piece_of(name).factor for name in zero} == {"A"}
    found = domain_gradients(model, domains(), COLLATE)
    assert not any(piece.factor == "A" for piece in found.pieces)
    assert {piece.factor for piece in found.pieces if piece.is_adapter} == {"B"}
    assert {piece_of(name) for name in zero} <= set(found.zero)
    numbers = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert gradient_bytes(model) == 4 * sum(n for name, n in numbers.items() if name not in zero)
    assert not without_gradient(make(trained=True))


def test_groups_add_up_and_one_domain_twice_agrees_with_itself():
    model = lora(trained=True)
    generator = torch.Generator().manual_seed(5)
    same = {
        name: [[sample(generator, 10, words=2) for _ in range(6)] for _ in range(8)]
        for name in ("one", "other")
    }
    grams = domain_gradients(model, same, COLLATE)
    parts = conflicts(grams)
    assert set(parts.overall) == {"adapter", "projector", "all"}
    assert list(parts.layers) == [0, 1]
    ffn = {"gate_proj", "up_proj", "down_proj"}
    assert set(parts.linears) == {"q_proj", "k_proj", "v_proj", "o_proj"} | ffn
    assert set(parts.factors) == {"A", "B"}
    assert len(parts.cells) == 2 * 7
    adapter = parts.overall["adapter"].squared_norm
    for group in (parts.layers, parts.linears, parts.factors, parts.cells):
        assert np.allclose(sum(found.squared_norm for found in group.values()), adapter)
    total = adapter + parts.overall["projector"].squared_norm
    assert np.allclose(parts.overall["all"].squared_norm, total)
    assert parts.headline.low[0, 1] <= 1 == parts.headline.high[0, 1]
    assert parts.headline.low[0, 1] > 0.5


def test_what_cant_be_measured_is_named():
    model, batches = lora(trained=True), domains()
    with pytest.raises(ValueError, match=r"same number of batches, not \{'low': 4, 'high': 3\}"):
        domain_gradients(model, {"low": batches["low"], "high": batches["high"][:3]}, COLLATE)
    silent = sample(torch.Generator().manual_seed(0), 10)
    ids = silent["encoded"].input_ids
    silent["encoded"] = Encoded(ids, torch.full_like(ids, IGNORE_INDEX), num_supervised=0)
    mixed = {"low": batches["low"][:2], "high": [batches["high"][0], [silent]]}
    with pytest.raises(ValueError, match="high: batch 1 has no target token"):
        domain_gradients(model, mixed, COLLATE)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"low, batch 0: the gradient of .* is NaN or infinite"):
        domain_gradients(model, batches, COLLATE)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable weight"):
        domain_gradients(model, batches, COLLATE)


def test_memory_is_refused_with_the_number_that_fits():
    gib = 2**30
    refuse_too_many(gib, 3, 16, 61 * gib)
    refuse_too_many(gib, 3, 16, None)
    with pytest.raises(ValueError, match=r"48.0 GiB, and 50.0 GiB .* lower --batches to 13"):
        refuse_too_many(gib, 3, 16, 50 * gib)
    with pytest.raises(ValueError, match="take a machine with more memory"):
        refuse_too_many(gib, 3, 16, 10 * gib)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "base_model.model.model.language_model.layers.3.self_attn.q_proj.lora_A.default.weight",
            Piece("lora", 3, "q_proj", "A"),
        ),
        (
            "base_model.model.gpt_neox.layers.11.mlp.dense_h_to_4h.lora_B.default.weight",
            Piece("lora", 11, "dense_h_to_4h", "B"),
        ),
        (
            "base_model.model.model.language_model.layers.0.mlp.mole_up_proj.default.B",
            Piece("experts", 0, "up_proj", "B"),
        ),
        (
            "base_model.model.model.language_model.layers.0.mlp.mole_router.default.weight",
            Piece("router", 0, "router", ""),
        ),
        (
            "base_model.model.model.multi_modal_projector.modules_to_save.default.linear_2.bias",
            Piece("multi_modal_projector", None, "linear_2", ""),
        ),
    ],
)
def test_names_say_the_piece(name, expected):
    assert piece_of(name) == expected


def test_other_weights_are_no_piece():
    with pytest.raises(ValueError, match=r"lm_head.weight is trainable and neither"):
        piece_of("base_model.model.lm_head.weight")
