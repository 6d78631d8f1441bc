"""A fused FFN whose router reads something else than its input, and gives it the logits."""

import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import FusedSettings, ffn_by_token, fused_ffn
from tests.mole.test_fused import SCALING, Ffn, T, compare, slow


@pytest.mark.parametrize(
    ("routing", "gate_scaling"),
    [("top1", "none"), ("top1", "prob"), ("top1", "straight_through"), ("dense", "none")],
)
@pytest.mark.parametrize("trained", [True, False])
def test_logits_from_elsewhere_equal_the_token_loop(trained, routing, gate_scaling):
    """Given what the router would say, everything but the router is as with it."""
    ffn = Ffn(3)
    settings = FusedSettings(SCALING, routing, gate_scaling)
    leaves = ffn.leaves()
    seen, weight, bias = (t.detach().clone().requires_grad_() for t in leaves[:3])
    logits = seen @ weight.t() + bias
    y, route = fused_ffn(
        leaves[0],
        logits if trained else logits.detach(),
        tuple(ffn.base),
        tuple(leaves[3:]),
        settings,
    )
    assert torch.equal(route.choice, logits.argmax(-1))
    y_loss, probs_loss = (y * ffn.dy).sum(), (route.probs * ffn.dprobs).sum()
    (y_loss + probs_loss if trained else y_loss).backward()
    expected_y, dx, dweight, dbias, *expected = slow(ffn, settings)
    compare([y.detach()], [expected_y], 1e-12)
    compare([leaf.grad for leaf in leaves[3:]], expected, 1e-12)
    if trained:  # the router's input and the experts' are one tensor in the loop
        own = [leaves[0].grad + seen.grad, weight.grad, bias.grad]
        compare(own, [dx, dweight, dbias], 1e-12)
    else:
        assert weight.grad is None


def test_a_decode_step_takes_logits_from_elsewhere():
    ffn = Ffn(3).rounded(torch.float32)
    x, base = ffn.x.float(), tuple(None if w is None else w.float() for w in ffn.base)
    experts = tuple(w.float() for w in ffn.experts)
    logits = torch.randn(T, 3, generator=torch.Generator().manual_seed(5))
    for gate_scaling in ("none", "prob"):
        settings = FusedSettings(SCALING, gate_scaling=gate_scaling)
        expected, _ = fused_ffn(x, logits, base, experts, settings)
        y, route = ffn_by_token(x, logits, base, experts, settings)
        assert torch.equal(route.choice, logits.argmax(-1))
        assert_close(y, expected, rtol=1e-5, atol=1e-5)
