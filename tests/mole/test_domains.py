import math

import pytest
import torch

from llava_mole.mole import domain_loss, experts_of_domains


def reference(probs, lengths, domains, num_domains):
    """The loss, token means and experts counted out one by one."""
    N, S, K = probs.shape
    total = 0.0
    for layer in range(N):
        for s in range(S):
            if lengths[s] == 0:
                continue
            m = int(domains[s])
            own = [k for k in range(K) if k % num_domains == m] or [m % K]
            total -= math.log(sum(probs[layer, s, k].item() for k in own) / lengths[s].item())
    return total / N


@pytest.mark.parametrize(("num_domains", "experts"), [(3, 3), (2, 5), (3, 2), (1, 4), (6, 3)])
def test_equals_the_loop(num_domains, experts):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5.0, 1.0, 0.0, 9.0])
    shares = torch.rand(4, 4, experts, generator=generator, dtype=torch.float64).softmax(-1)
    probs = shares * lengths[:, None]
    domains = torch.tensor([0, num_domains - 1, 0, num_domains // 2])
    expected = reference(probs, lengths, domains, num_domains)
    loss = domain_loss(probs, lengths.double(), domains, num_domains)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_it_is_zero_where_each_domain_keeps_to_its_experts():
    probs = torch.tensor([[[7.0, 0.0, 0.0], [0.0, 0.0, 4.0]]])
    lengths = torch.tensor([7.0, 4.0])
    assert domain_loss(probs, lengths, torch.tensor([0, 2]), 3).item() == 0
    assert domain_loss(probs, lengths, torch.tensor([1, 2]), 3).item() > 10


def test_gradient_pulls_towards_the_domains_expert():
    logits = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    domain_loss(logits.softmax(-1), torch.ones(2), torch.tensor([0, 2]), 3).backward()
    assert logits.grad[0].argmin(-1).tolist() == [0, 2]
    # Cross-entropy's: probability minus label.
    assert torch.allclose(logits.grad[0, 0], torch.tensor([-2 / 3, 1 / 3, 1 / 3]).double())


def test_every_domain_has_experts_and_none_is_idle():
    for num_domains in range(1, 7):
        for experts in range(1, 17):
            own = experts_of_domains(num_domains, experts)
            assert own.shape == (num_domains, experts)
            assert own.any(1).all()
            assert own.any(0).all()
            if experts >= num_domains:
                assert (own.sum(0) == 1).all()  # and none is shared
