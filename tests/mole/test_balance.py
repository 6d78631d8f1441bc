import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import GlobalCounts, balance_loss, route, sum_by_sequence
from tests.mole import oracle

N, K = 2, 3
NORMS = ["paper", "switch", "authors"]
# A padded batch (-1 on pads) and a packed row, both with sequences of unequal length.
LAYOUTS = {
    "padded": [0, 0, 0, -1, -1, 1, 1, 1, 1, 1, -1, 2, 2, 2, 2],
    "packed": [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3],
}


def layers(T, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(T, K, generator=generator, dtype=torch.float64) for _ in range(N)]


def recorded(all_logits, ids):
    """What the layers keep: counts, probs (N, S, K) and lengths (S,)."""
    ids = torch.tensor(ids)
    S = int(ids.max()) + 1
    counts, probs = [], []
    for logits in all_logits:
        chosen = route(logits)
        one_hot = torch.nn.functional.one_hot(chosen.choice, K).double()
        counts.append(sum_by_sequence(one_hot, ids, S))
        probs.append(sum_by_sequence(chosen.probs, ids, S))
    counts = torch.stack(counts)
    return counts, torch.stack(probs), counts[0].sum(-1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scope", ["sequence", "micro_batch"])
@pytest.mark.parametrize("norm", NORMS)
def test_equals_the_loop(norm, scope, layout):
    ids = LAYOUTS[layout]
    ours = [logits.requires_grad_() for logits in layers(len(ids))]
    slow = [logits.requires_grad_() for logits in layers(len(ids))]
    actual = balance_loss(*recorded(ours, ids), norm=norm, scope=scope)
    probs = [torch.stack([oracle.softmax(row) for row in logits]) for logits in slow]
    chosen = [[oracle.first_argmax(row) for row in logits] for logits in slow]
    expected = oracle.balance(chosen, probs, ids, K, norm, scope)
    assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    actual.backward()
    expected.backward()
    for a, e in zip(ours, slow, strict=True):
        assert_close(a.grad, e.grad, rtol=1e-10, atol=1e-12)
        assert not a.grad[torch.tensor(ids) < 0].any()  # padding takes no part


@pytest.mark.parametrize("norm", NORMS)
def test_sequence_scope_adds_up_over_a_split_batch(norm):
    ids = LAYOUTS["packed"]
    all_logits = layers(len(ids))
    whole = balance_loss(*recorded(all_logits, ids), norm=norm)
    cut = ids.index(2)
    first = balance_loss(*recorded([x[:cut] for x in all_logits], ids[:cut]), norm=norm)
    rest = [i - 2 for i in ids[cut:]]
    second = balance_loss(*recorded([x[cut:] for x in all_logits], rest), norm=norm)
    assert_close(first + second, whole, rtol=1e-12, atol=1e-12)


def test_micro_batch_scope_does_not_add_up():
    # The reason for the sequence scope: this one depends on how the batch was cut.
    ids = LAYOUTS["packed"]
    all_logits = layers(len(ids))
    whole = balance_loss(*recorded(all_logits, ids), scope="micro_batch")
    parts = 0
    for s in range(4):
        take = [t for t, i in enumerate(ids) if i == s]
        part = recorded([x[take] for x in all_logits], [0] * len(take))
        parts = parts + balance_loss(*part, scope="micro_batch") / 4
    assert abs(float(parts - whole)) > 1e-3


def test_a_padded_batch_equals_the_same_sequences_packed():
    ids = LAYOUTS["padded"]
    all_logits = layers(len(ids))
    keep = [t for t, i in enumerate(ids) if i >= 0]
    for norm in NORMS:
        padded = balance_loss(*recorded(all_logits, ids), norm=norm)
        packed = balance_loss(
            *recorded([x[keep] for x in all_logits], [ids[t] for t in keep]), norm=norm
        )
        assert_close(padded, packed, rtol=1e-12, atol=1e-12)


def test_balanced_and_collapsed_values():
    even = torch.full((1, 1, K), 5.0)
    lengths = torch.tensor([15.0])
    assert balance_loss(even, even, lengths).item() == pytest.approx(1)
    one = torch.tensor([[[15.0, 0, 0]]])
    assert balance_loss(one, one, lengths).item() == pytest.approx(K)
    assert balance_loss(even, even, lengths, norm="paper").item() == pytest.approx(15**2 / K)
    assert balance_loss(one, one, lengths, norm="authors").item() == pytest.approx(1)


def test_authors_pools_layers_before_the_product():
    # Each layer collapsed, on another expert: the mean over layers is even, so the loss is lowest.
    counts = torch.tensor([[[4.0, 0]], [[0, 4.0]]])
    lengths = torch.tensor([4.0])
    assert balance_loss(counts, counts, lengths, norm="authors").item() == pytest.approx(0.5)
    assert balance_loss(counts, counts, lengths, norm="switch").item() == pytest.approx(2.0)


def test_empty_sequences_add_nothing():
    ids = LAYOUTS["padded"]
    counts, probs, lengths = recorded(layers(len(ids)), ids)
    empty = torch.zeros(N, 1, K, dtype=torch.float64)
    more = torch.cat([counts, empty], 1), torch.cat([probs, empty], 1)
    for norm in NORMS:
        assert_close(
            balance_loss(*more, torch.cat([lengths, lengths.new_zeros(1)]), norm=norm),
            balance_loss(counts, probs, lengths, norm=norm),
        )


@pytest.mark.parametrize("norm", NORMS)
def test_global_batch_takes_its_loads_from_all_counts(norm):
    ids = LAYOUTS["packed"]
    counts, probs, lengths = recorded(layers(len(ids)), ids)
    others = torch.tensor([[7.0, 1, 0], [2, 2, 9]], dtype=torch.float64)
    buffer = GlobalCounts()
    buffer.add(others)
    total = buffer.add(counts.sum(1))
    actual = balance_loss(counts, probs, lengths, norm, "global_batch", total)
    L = float(lengths.sum())
    load = [[float(total[n, j] / total[n].sum()) for j in range(K)] for n in range(N)]
    mass = [[float(probs[n, :, j].sum()) for j in range(K)] for n in range(N)]
    if norm == "authors":
        expected = sum(
            (sum(load[n][j] for n in range(N)) / N) * (sum(mass[n][j] for n in range(N)) / N / L)
            for j in range(K)
        )
    else:
        factor = K / L if norm == "switch" else L
        expected = sum(factor * load[n][j] * mass[n][j] / N for n in range(N) for j in range(K))
    assert actual.item() == pytest.approx(expected, rel=1e-12)
    buffer.reset()
    assert_close(buffer.add(others), others)


def test_global_batch_equals_micro_batch_when_there_is_only_one():
    ids = LAYOUTS["packed"]
    counts, probs, lengths = recorded(layers(len(ids)), ids)
    for norm in NORMS:
        alone = balance_loss(counts, probs, lengths, norm, "global_batch", counts.sum(1))
        assert_close(alone, balance_loss(counts, probs, lengths, norm, "micro_batch"))


def test_counts_take_no_gradient():
    counts = torch.ones(1, 1, K, requires_grad=True)
    probs = torch.ones(1, 1, K, requires_grad=True)
    balance_loss(counts, probs, torch.ones(1)).backward()
    assert counts.grad is None
    assert probs.grad.any()


def test_unknown_names_are_refused():
    three = torch.ones(1, 1, K), torch.ones(1, 1, K), torch.ones(1)
    with pytest.raises(ValueError, match="balance_norm='softmax'"):
        balance_loss(*three, norm="softmax")
    with pytest.raises(ValueError, match="balance_scope='token'"):
        balance_loss(*three, scope="token")
