"""The fused FFN against the method written token by token in float64."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from llava_mole.mole import FusedSettings, ffn_by_token, fused_ffn, takes_by_token
from llava_mole.mole.products import Grouped, Masked, Sliced, offsets_of, order_of, products_for
from tests.mole import oracle

T, D, HIDDEN, R = 13, 16, 24, 8
SCALING = 2.0
FORMS = [("sliced", torch.float64), ("masked", torch.float64), ("grouped", torch.float32)]
ROUTINGS = ["mixed", "empty expert", "one expert"]


class Ffn:
    """The tensors of one FFN, float64, and the same in another dtype."""

    def __init__(self, K, routing="mixed", bias=False, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape, scale=0.3):
            return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.x, self.router_weight = draw(T, D, scale=1.0), draw(K, D, scale=1.0)
        self.router_bias = torch.zeros(K, dtype=torch.float64)
        if routing == "empty expert":
            self.router_bias[0] = -30
        elif routing == "one expert":
            self.router_bias[-1] = 30
        shapes = ((HIDDEN, D), (HIDDEN,), (HIDDEN, D), (HIDDEN,), (D, HIDDEN), (D,))
        self.base = [draw(*shape) if bias or len(shape) == 2 else None for shape in shapes]
        sizes = ((D, HIDDEN), (D, HIDDEN), (HIDDEN, D))
        self.experts = [w for i, o in sizes for w in (draw(K, R, i), draw(K, o, R))]
        self.dy, self.dprobs = draw(T, D, scale=1.0), draw(T, K, scale=1.0)

    def rounded(self, dtype):
        """The same, of numbers that ``dtype`` can hold."""
        for name in ("x", "dy"):
            setattr(self, name, getattr(self, name).to(dtype).double())
        self.base = [None if w is None else w.to(dtype).double() for w in self.base]
        self.experts = [w.to(dtype).double() for w in self.experts]
        return self

    def leaves(self, dtype=torch.float64, experts_dtype=None):
        exact = torch.promote_types(dtype, torch.float32)
        tensors = [self.x.to(dtype), self.router_weight.to(exact), self.router_bias.to(exact)]
        tensors += [w.to(experts_dtype or dtype) for w in self.experts]
        return [t.clone().requires_grad_() for t in tensors]


def gradients(outputs, leaves, ffn):
    y, probs = outputs
    (y.double() * ffn.dy).sum().add((probs.double() * ffn.dprobs).sum()).backward()
    return [y.detach(), *(leaf.grad for leaf in leaves)]


def run(ffn, settings, dtype=torch.float64, experts_dtype=None):
    leaves = ffn.leaves(dtype, experts_dtype)
    x, weight, bias, *experts = leaves
    base = tuple(None if w is None else w.to(dtype) for w in ffn.base)
    y, route = fused_ffn(x, (weight, bias), base, tuple(experts), settings)
    assert y.dtype == x.dtype
    return gradients((y, route.probs), leaves, ffn)


def slow(ffn, settings, keep=(1.0, 1.0, 1.0)):
    """The oracle; ``keep``: what each linear's experts see of their input, as a factor."""
    leaves = ffn.leaves()
    x, weight, bias, *experts = leaves
    logits = x @ weight.t() + bias
    probs = torch.stack([oracle.softmax(row) for row in logits])
    choice = [oracle.first_argmax(row) for row in logits]

    def linear(x, index):
        y = x @ ffn.base[2 * index].t()
        if ffn.base[2 * index + 1] is not None:
            y = y + ffn.base[2 * index + 1]
        A, B = experts[2 * index : 2 * index + 2]
        seen = x * keep[index]
        if settings.routing == "dense":
            return y + oracle.dense_experts(seen, A, B, probs, settings.scaling)
        gate = oracle.gate_values(probs, choice, settings.gate_scaling)
        return y + oracle.experts(seen, A, B, choice, gate, settings.scaling)

    g = linear(x, 0)
    y = linear(g * torch.sigmoid(g) * linear(x, 1), 2)
    return gradients((y, probs), leaves, ffn)


def compare(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        scale = max(1.0, float(e.abs().max()))
        assert_close(a.double() / scale, e / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gate_scaling", ["none", "prob", "straight_through"])
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize(("form", "dtype"), [*FORMS, (None, torch.float64)])
def test_top1_equals_the_token_loop(form, dtype, K, routing, gate_scaling, bias):
    ffn = Ffn(K, routing, bias)
    settings = FusedSettings(SCALING, gate_scaling=gate_scaling, form=form)
    actual = run(ffn, settings, dtype)
    compare(actual, slow(ffn, settings), 1e-12 if dtype == torch.float64 else 1e-5)
    if K > 1 and routing != "mixed":
        for gradient in actual[4:]:
            assert not gradient[0].any()  # zero, and not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gate_scaling", ["none", "prob", "straight_through"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_token_by_token_equals_the_token_loop(dtype, gate_scaling, bias, mode):
    ffn = Ffn(3, bias=bias)
    settings = FusedSettings(SCALING, gate_scaling=gate_scaling)
    expected = slow(ffn, settings)[0]
    x, weight, router_bias, *experts = ffn.leaves(dtype)
    base = tuple(None if w is None else w.to(dtype) for w in ffn.base)
    router = (weight, router_bias if bias else None)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for tokens in (slice(0, T), slice(4, 5)):
        with mode():
            y, route = ffn_by_token(x[tokens], router, base, tuple(experts), settings)
        compare([y], [expected[tokens]], tolerance)
        logits = ffn.x[tokens] @ ffn.router_weight.t()
        assert_close(route.probs.double(), F.softmax(logits, -1), rtol=1e-5, atol=1e-6)
        assert torch.equal(route.choice, logits.argmax(-1))


def test_which_inputs_go_token_by_token():
    x = torch.zeros(2, D)
    assert takes_by_token(x, "top1")
    assert takes_by_token(x.double(), "top1")
    assert not takes_by_token(x, "dense")
    assert not takes_by_token(x.bfloat16(), "top1")
    assert not takes_by_token(x.to("meta"), "top1")
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes_by_token(x, "top1")


@pytest.mark.parametrize("K", [1, 3])
def test_dense_equals_the_token_loop(K):
    ffn = Ffn(K)
    settings = FusedSettings(SCALING, routing="dense")
    compare(run(ffn, settings), slow(ffn, settings), 1e-12)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("form", ["sliced", "masked", "grouped"])
def test_bfloat16(form, routing):
    ffn = Ffn(3, routing).rounded(torch.bfloat16)
    settings = FusedSettings(SCALING, gate_scaling="prob", form=form)
    actual = run(ffn, settings, torch.bfloat16)
    compare(actual, slow(ffn, settings), 0.03)
    assert actual[2].dtype == torch.float32  # the router's


def test_float32_experts_on_a_bfloat16_base_get_float32_gradients():
    ffn = Ffn(3).rounded(torch.bfloat16)
    settings = FusedSettings(SCALING)
    with torch.autocast("cpu", torch.bfloat16):
        actual = run(ffn, settings, torch.bfloat16, experts_dtype=torch.float32)
    assert {gradient.dtype for gradient in actual[2:]} == {torch.float32}
    compare(actual, slow(ffn, settings), 0.03)


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_dropout_is_each_linears_own_and_the_same_in_both_passes(form, dtype):
    ffn = Ffn(3)
    settings = FusedSettings(SCALING, dropout=0.25, form=form)
    torch.manual_seed(3)
    actual = run(ffn, settings, dtype)
    torch.manual_seed(3)
    seeds = torch.randint(2**62, (3,)).tolist()
    choice = (ffn.x @ ffn.router_weight.t() + ffn.router_bias).argmax(-1)
    order = torch.arange(T) if form == "masked" else order_of(choice)
    keep = []
    for seed, width in zip(seeds, (D, D, HIDDEN), strict=True):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.empty(T, width, dtype=dtype).bernoulli_(0.75, generator=generator)
        assert 0 < mask.mean() < 1
        keep.append(torch.empty(T, width).double().index_copy_(0, order, mask.double()) / 0.75)
    assert not torch.equal(keep[0], keep[1])
    expected = slow(ffn, settings, keep)
    compare(actual, expected, 1e-12 if dtype == torch.float64 else 1e-5)


def test_dropout_follows_torchs_seed():
    ffn, settings = Ffn(2), FusedSettings(SCALING, dropout=0.5)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(run(ffn, settings)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("form", ["sliced", "masked"])
def test_only_asked_for_gradients_are_made(form):
    ffn, settings = Ffn(3), FusedSettings(SCALING, gate_scaling="prob", form=form)
    expected = run(ffn, settings)
    leaves = ffn.leaves()
    x, weight, bias, *experts = leaves
    x.requires_grad_(False)  # nothing below learns
    experts[3].requires_grad_(False)
    base = tuple(ffn.base)
    y, route = fused_ffn(x, (weight, bias), base, tuple(experts), settings)
    gradients((y, route.probs), leaves, ffn)
    for index, (leaf, gradient) in enumerate(zip(leaves, expected[1:], strict=True)):
        if index in (0, 6):
            assert leaf.grad is None
        else:
            assert_close(leaf.grad, gradient)


def test_a_loss_on_the_routes_alone():
    ffn, settings = Ffn(3), FusedSettings(SCALING)
    leaves = ffn.leaves()
    x, weight, bias, *experts = leaves
    _, route = fused_ffn(x, (weight, bias), tuple(ffn.base), tuple(experts), settings)
    (route.probs * ffn.dprobs).sum().backward()
    again = [t.detach().requires_grad_() for t in (x, weight, bias)]
    (F.softmax(again[0] @ again[1].t() + again[2], -1) * ffn.dprobs).sum().backward()
    for leaf, other in zip((x, weight, bias), again, strict=True):
        assert_close(leaf.grad, other.grad)
    assert all(leaf.grad is None for leaf in experts)


def test_no_gradient_is_no_work_kept():
    ffn, settings = Ffn(3), FusedSettings(SCALING)
    x, weight, bias, *experts = ffn.leaves()
    with torch.no_grad():
        y, route = fused_ffn(x, (weight, bias), tuple(ffn.base), tuple(experts), settings)
    assert y.grad_fn is None
    assert route.probs.grad_fn is None
    assert_close(y, slow(ffn, settings)[0])


def test_backward_may_run_twice():
    ffn, settings = Ffn(3), FusedSettings(SCALING, gate_scaling="straight_through")
    leaves = ffn.leaves()
    x, weight, bias, *experts = leaves
    y, _ = fused_ffn(x, (weight, bias), tuple(ffn.base), tuple(experts), settings)
    first, second = (
        torch.autograd.grad(y, leaves[:2] + experts, ffn.dy, retain_graph=True) for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_the_backward_pass():
    K = 3
    ffn = Ffn(K)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    leaves = ffn.leaves(torch.float32)
    x, weight, bias, *experts = leaves
    base = tuple(None if w is None else w.float() for w in ffn.base)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = fused_ffn(x, (weight, bias), base, tuple(experts), FusedSettings(SCALING))
    for parameter in (weight, *base, *experts):
        kept.pop(parameter.untyped_storage().data_ptr() if parameter is not None else None, None)
    # x, g and u, z of three linears; probabilities; order and choice in int64
    assert sum(kept.values()) == T * (4 * (D + 2 * HIDDEN + 3 * R + K) + 2 * 8)
    assert outputs[0].shape == (T, D)


def test_the_form_by_device_and_sizes(monkeypatch):
    choice = torch.tensor([0, 2, 1, 2])
    A, A_inside = torch.zeros(3, R, D), torch.zeros(3, R, HIDDEN)
    assert isinstance(products_for(choice, A, A_inside), Sliced)
    assert isinstance(products_for(choice * 0, A[:1], A_inside[:1]), Masked)
    on_device = [t.to("meta") for t in (choice, A, A_inside)]
    assert isinstance(products_for(*on_device), Masked)  # 24 columns
    wide = [on_device[0], *(t.repeat(1, 8, 1) for t in on_device[1:])]
    assert isinstance(products_for(*wide), Grouped)
    odd = [wide[0], *(t[:, :-1] for t in wide[1:])]
    assert isinstance(products_for(*odd), Masked)  # grouped_mm cannot
    with pytest.raises(ValueError, match="r and the linear's features to be multiples of 4"):
        products_for(*odd, form="grouped")
    with pytest.raises(ValueError, match="form='fast' is unknown"):
        products_for(choice, A, A_inside, "fast")
    assert products_for(choice, A, A_inside).ends == (1, 2, 4) == tuple(offsets_of(choice, 3))


def test_settings_are_values():
    assert replace(FusedSettings(1.0), form="masked") == FusedSettings(1.0, form="masked")


def test_a_float64_model_whose_router_is_float32_decodes():
    ffn, settings = Ffn(3), FusedSettings(SCALING, gate_scaling="prob")
    ffn.router_weight = ffn.router_weight.float().double()
    x, weight, bias, *experts = ffn.leaves()
    with torch.no_grad():
        y, _ = ffn_by_token(
            x, (weight.float(), bias.float()), tuple(ffn.base), tuple(experts), settings
        )
    assert_close(y, slow(ffn, settings)[0], rtol=1e-12, atol=1e-12)
