import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import Dispatch, LoraExperts, Route, lora_experts
from llava_mole.mole import experts as experts_module
from tests.mole import oracle

T, D_IN, D_OUT, R = 13, 16, 24, 8
SCALING = 2.0


def inputs(K, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    x, A, B = draw(T, D_IN), draw(K, R, D_IN), draw(K, D_OUT, R)
    logits, weight = draw(T, K), draw(T, D_OUT)
    return x, A, B, logits, weight


def choices(name, K):
    if name == "mixed":
        return torch.arange(T) * 5 % K
    if name == "empty expert":
        return torch.where(torch.arange(T) % 2 == 0, 0, K - 1)
    return torch.full((T,), K - 1)  # all tokens on one expert


def as_route(logits, choice, gate_scaling):
    probs = torch.softmax(logits, -1)
    chosen = probs.gather(1, choice[:, None]).squeeze(1)
    gate = {"none": None, "prob": chosen, "straight_through": 1 + (chosen - chosen.detach())}
    return Route(choice, probs, gate[gate_scaling])


def run(function, tensors, weight):
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    (y * weight).sum().backward()
    return [y.detach()] + [leaf.grad for leaf in leaves]


def tolerance(dtype):
    return {
        torch.float64: (1e-12, 1e-12),
        torch.float32: (1e-5, 1e-5),
        torch.bfloat16: (0.02, 0.02),
    }[dtype]


@pytest.mark.parametrize("gate_scaling", ["none", "prob", "straight_through"])
@pytest.mark.parametrize("routing", ["mixed", "empty expert", "one expert"])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize(
    ("path", "dtype"),
    [
        ("loop", torch.float64),
        ("masked", torch.float64),
        ("auto", torch.float64),
        ("grouped", torch.float32),
        ("auto", torch.float32),
    ],
)
def test_top1_equals_the_token_loop(path, dtype, K, routing, gate_scaling):
    x, A, B, logits, weight = inputs(K, dtype)
    choice = choices(routing, K)

    def ours(x, A, B, logits):
        dispatch = Dispatch(as_route(logits, choice, gate_scaling), "top1", path)
        return lora_experts(x, A, B, dispatch, SCALING) + 0 * logits.sum()

    def slow(x, A, B, logits):
        probs = torch.stack([oracle.softmax(row) for row in logits])
        gate = oracle.gate_values(probs, choice, gate_scaling)
        return oracle.experts(x, A, B, choice, gate, SCALING) + 0 * logits.sum()

    expected = run(slow, [t.double() for t in (x, A, B, logits)], weight.double())
    actual = run(ours, (x, A, B, logits), weight)
    rtol, atol = tolerance(dtype)
    for a, e in zip(actual, expected, strict=True):
        scale = max(1.0, float(e.abs().max()))
        assert_close(a.double() / scale, e / scale, rtol=rtol, atol=atol)
    for k in set(range(K)) - set(choice.tolist()):
        assert not actual[2][k].any()  # zero, and not None
        assert not actual[3][k].any()


@pytest.mark.parametrize("gate_scaling", ["none", "prob", "straight_through"])
@pytest.mark.parametrize("routing", ["mixed", "empty expert", "one expert"])
@pytest.mark.parametrize("tokens", [1, T])
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(
    ("path", "dtype", "mode"),
    [
        ("by_token", torch.float64, torch.no_grad),
        ("by_token", torch.float32, torch.inference_mode),
        ("gathered", torch.float64, torch.inference_mode),
        ("gathered", torch.bfloat16, torch.no_grad),
    ],
)
def test_few_tokens_equal_the_token_loop(path, dtype, mode, K, tokens, routing, gate_scaling):
    x, A, B, logits, _ = inputs(K, dtype)
    choice = choices(routing, K)[:tokens]
    A.requires_grad_()
    with mode():
        dispatch = Dispatch(as_route(logits[:tokens].double(), choice, gate_scaling))
        if path == "by_token":
            assert dispatch.resolve(R, D_IN, D_OUT, dtype) == path
            y = lora_experts(x[:tokens], A, B, dispatch, SCALING)
        else:  # auto takes it on devices only
            y = experts_module._gathered(x[:tokens], A, B, dispatch, SCALING)
        probs = torch.softmax(logits[:tokens].double(), -1)
        gate = oracle.gate_values(probs, choice, gate_scaling)
        inputs64 = [t.double() for t in (x[:tokens], A, B)]
        expected = oracle.experts(*inputs64, choice, gate, SCALING)
    assert y.dtype == dtype
    rtol, atol = tolerance(dtype)
    scale = max(1.0, float(expected.abs().max()))
    assert_close(y.double() / scale, expected / scale, rtol=rtol, atol=atol)


@pytest.mark.parametrize("path", ["loop", "masked", "grouped", "auto"])
@pytest.mark.parametrize("K", [1, 3])
def test_dense_equals_the_token_loop(path, K):
    x, A, B, logits, weight = inputs(K, torch.float64)
    choice = logits.argmax(-1)

    def ours(x, A, B, logits):
        dispatch = Dispatch(as_route(logits, choice, "none"), "dense", path)
        return lora_experts(x, A, B, dispatch, SCALING)

    def slow(x, A, B, logits):
        probs = torch.stack([oracle.softmax(row) for row in logits])
        return oracle.dense_experts(x, A, B, probs, SCALING)

    for a, e in zip(
        run(ours, (x, A, B, logits), weight), run(slow, (x, A, B, logits), weight), strict=True
    ):
        assert_close(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("path", ["loop", "masked", "grouped"])
def test_top1_is_dense_with_a_one_hot_mask(path):
    x, A, B, _, _ = inputs(3, torch.float32)
    choice = choices("mixed", 3)
    one_hot = torch.nn.functional.one_hot(choice, 3).float()
    dense = lora_experts(x, A, B, Dispatch(Route(choice, one_hot, None), "dense"), SCALING)
    top1 = lora_experts(x, A, B, Dispatch(Route(choice, one_hot, None), "top1", path), SCALING)
    assert_close(top1, dense, rtol=1e-5, atol=1e-5)


def test_auto_picks_by_columns_and_dtype():
    route = Route(torch.zeros(4, dtype=torch.long), torch.ones(4, 6) / 6, None)
    auto = Dispatch(route)
    assert auto.resolve(8, 64, 64, torch.float32) == "masked"  # 48 columns
    assert auto.resolve(16, 64, 64, torch.bfloat16) == "grouped"  # 96
    assert auto.resolve(32, 64, 64, torch.float64) == "masked"  # grouped_mm has no float64
    assert auto.resolve(36, 64, 64, torch.bfloat16) == "masked"  # 72 bytes a row: misaligned
    device = Route(route.choice.to("meta"), route.probs.to("meta"), None)
    assert Dispatch(device).resolve(16, 64, 64, torch.bfloat16) == "masked"  # more on devices
    assert Dispatch(device).resolve(32, 64, 64, torch.bfloat16) == "grouped"
    single = Route(torch.zeros(4, dtype=torch.long), torch.ones(4, 1), None)
    assert Dispatch(single).resolve(256, 64, 64, torch.bfloat16) == "loop"
    with torch.no_grad():
        assert auto.resolve(16, 64, 64, torch.float32) == "by_token"
        assert Dispatch(device).resolve(16, 64, 64, torch.float32) == "gathered"
        assert auto.resolve(8, 64, 64, torch.bfloat16) == "masked"
        assert Dispatch(single).resolve(256, 64, 64, torch.float32) == "loop"
        many = Route(torch.zeros(17, dtype=torch.long), torch.ones(17, 6) / 6, None)
        assert Dispatch(many).resolve(8, 64, 64, torch.float32) == "masked"
        for path in ("loop", "masked", "grouped"):
            assert Dispatch(route, path=path).resolve(16, 64, 64, torch.float32) == path
        assert Dispatch(route, "dense").resolve(16, 64, 64, torch.float32) == "masked"


@pytest.mark.parametrize("bad", [{"path": "triton"}, {"routing": "top2"}])
def test_unknown_names_are_refused(bad):
    with pytest.raises(ValueError, match="unknown; use one of"):
        Dispatch(Route(torch.zeros(1, dtype=torch.long), torch.ones(1, 1), None), **bad)


def test_grouped_names_its_obstacle():
    x, A, B, logits, _ = inputs(3, torch.float64)
    dispatch = Dispatch(as_route(logits, choices("mixed", 3), "none"), "top1", "grouped")
    with pytest.raises(ValueError, match=r"float64; use dispatch='auto'"):
        lora_experts(x, A, B, dispatch, SCALING)


def test_a_shared_input_is_sorted_once():
    x, _, _, logits, _ = inputs(3, torch.float32)
    dispatch = Dispatch(as_route(logits, choices("mixed", 3), "none"), "top1", "grouped")
    assert dispatch.sort(x) is dispatch.sort(x)
    assert_close(dispatch.unsort(dispatch.sort(x)), x, rtol=0, atol=0)
    assert dispatch.offsets.tolist()[-1] == T


@pytest.mark.parametrize("path", ["loop", "masked", "grouped", "auto"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_autocast_computes_in_bfloat16(path, mode):
    x, A, B, logits, _ = inputs(3, torch.float32)
    dispatch = Dispatch(as_route(logits, choices("mixed", 3), "prob"), "top1", path)
    exact = lora_experts(x, A, B, dispatch, SCALING)
    with mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        dispatch = Dispatch(as_route(logits, choices("mixed", 3), "prob"), "top1", path)
        y = lora_experts(x, A, B, dispatch, SCALING)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))


def test_initialisation_is_pefts():
    torch.manual_seed(0)
    experts = LoraExperts(64, 32, 3, 8, scaling=1.0)
    bound = (
        64**-0.5
    )  # kaiming_uniform with a=sqrt(5) has bound 1/sqrt(fan_in), fan_in of one expert
    assert experts.A.abs().max() <= bound
    assert experts.A.abs().amax(dim=(1, 2)).min() > 0.95 * bound
    assert not experts.B.any()
    experts.reset_parameters(init=False)
    assert experts.B.any()
    experts.reset_parameters(init="gaussian")
    assert experts.A.std().item() == pytest.approx(1 / 8, rel=0.1)
    assert not experts.B.any()


def test_dropout_only_in_training():
    experts = LoraExperts(D_IN, D_OUT, 2, R, scaling=1.0, dropout=0.5)
    experts.reset_parameters(init=False)
    x = torch.ones(T, D_IN)
    route = Route(torch.zeros(T, dtype=torch.long), torch.ones(T, 2) / 2, None)
    assert not torch.equal(experts(x, Dispatch(route)), experts(x, Dispatch(route)))
    experts.eval()
    assert torch.equal(experts(x, Dispatch(route)), experts(x, Dispatch(route)))
