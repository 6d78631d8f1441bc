"""Counts by layer, sequence, kind and expert against python loops."""

import pytest
import torch
from PIL import Image

from llava_mole.analysis.routing import batches, count, encoder_of
from llava_mole.analysis.routing.counts import Counts, table, tally
from tests import tiny
from tests.analysis.routing import helpers

CONVERSATIONS = [
    (("<image>\nWhat is it?", "A cat."), 1),
    (("Only words", "yes"), 0),
    (("<image>\nFirst?", "one", "Second?", "two"), 1),
    (("<image><image>\nSame?", "no"), 2),
    (("<image>\n?", "B"), 1),
]


def test_tally_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    N, B, L, K = 2, 3, 11, 4
    expert = torch.randint(0, K, (N, B, L), generator=generator)
    kinds = torch.randint(-1, 3, (B, L), generator=generator)
    expected = torch.zeros(N, B, 3, K, dtype=torch.int64)
    for n in range(N):
        for b in range(B):
            for position in range(L):
                if kinds[b, position] >= 0:
                    expected[n, b, kinds[b, position], expert[n, b, position]] += 1
    assert torch.equal(tally(expert, kinds, K), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_every_token_is_counted_under_its_kind_and_expert(tmp_path, batch_size):
    helpers.write_images(tmp_path)
    model, processor = helpers.model(), helpers.processor()
    records = [helpers.record(*said, images=images) for said, images in CONVERSATIONS]
    found = count(model, batches(records, tmp_path, encoder_of(processor), processor, batch_size))

    expected = torch.zeros(2, len(records), 3, helpers.K, dtype=torch.int64)
    for row, (said, images) in enumerate(CONVERSATIONS):
        tokens = helpers.tokens_by_hand(said, images)
        inputs = {"input_ids": torch.tensor([[id for id, _ in tokens]])}
        if images:
            pictures = [Image.open(tmp_path / f"{n}.png") for n in range(images)]
            pixels = processor.image_processor(pictures, return_tensors="pt")
            inputs["pixel_values"] = pixels["pixel_values"]
        chosen = helpers.slow_choices(model, **inputs)
        for layer in range(2):
            for position, (_, kind) in enumerate(tokens):
                expected[layer, row, kind, chosen[layer, 0, position]] += 1
    assert torch.equal(found.tokens, expected)
    assert found.layers == (0, 1)
    # The reference is worth something: experts and kinds are all in use.
    assert expected.sum((0, 1)).min() > 0


def test_shares_against_loops():
    tokens = torch.randint(0, 9, (2, 4, 3, 3), generator=torch.Generator().manual_seed(1))
    counts = Counts((0, 5), tokens)
    for layer in range(2):
        rows = []
        for sequence in tokens[layer].tolist():
            totals = [sum(kind[k] for kind in sequence) for k in range(3)]
            rows.append([total / sum(totals) for total in totals])
        for k in range(3):
            column = [row[k] for row in rows]
            mean = sum(column) / 4
            std = (sum((value - mean) ** 2 for value in column) / 4) ** 0.5
            assert float(counts.mean[layer, k]) == pytest.approx(mean, abs=1e-12)
            assert float(counts.std[layer, k]) == pytest.approx(std, abs=1e-12)
        for kind in range(3):
            totals = [sum(s[kind][k] for s in tokens[layer].tolist()) for k in range(3)]
            expected = [total / sum(totals) for total in totals]
            assert counts.by_kind[kind, layer].tolist() == pytest.approx(expected, abs=1e-12)
    assert counts.num_tokens == {
        kind: int(tokens[0, :, place].sum())
        for place, kind in enumerate(("image", "question", "answer"))
    }


def test_a_kind_without_tokens_has_no_shares():
    tokens = torch.ones(1, 2, 3, 2, dtype=torch.int64)
    tokens[:, :, 0] = 0
    counts = Counts((0,), tokens)
    assert counts.by_kind[0].isnan().all()
    written = counts.to_dict()
    assert written["by_kind"] == {"question": [[0.5, 0.5]], "answer": [[0.5, 0.5]]}
    assert written["tokens"] == {"image": 0, "question": 4, "answer": 4}
    assert written["sequences"] == 2
    assert "50.0%" in table({"words": counts})


def test_refusals(tmp_path):
    model, processor = helpers.model(), helpers.processor()
    with pytest.raises(ValueError, match="at least one record"):
        count(model, batches([], tmp_path, encoder_of(processor), processor, 2))
    with pytest.raises(ValueError, match="no MoLE adapter"):
        count(tiny.tiny_llava(), [])
    processor.chat_template = "{{ messages }}"
    with pytest.raises(ValueError, match="conv_mode"):
        encoder_of(processor)
