"""Which models and inputs take the fused path, and that it changes nothing but speed."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from llava_mole.tuner import MoleLayer, routing_of
from llava_mole.tuner import fused as fused_module
from llava_mole.tuner import layer as layer_module
from llava_mole.tuner import lora as lora_module
from tests.tuner import models

SWIGLU = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture
def fused_calls(monkeypatch):
    """The inputs' shapes of all FFNs that took the fused path."""
    calls = []

    def counted(x, *args):
        calls.append(tuple(x.shape))
        return run(x, *args)

    run = layer_module.run_fused
    monkeypatch.setattr(layer_module, "run_fused", counted)
    return calls


def step(model, ids=None):
    """Loss, embeddings' and weights' gradients, and counts of one training step."""
    ids = models.batch() if ids is None else ids
    model.train().zero_grad()
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    loss = model(inputs_embeds=embeddings, labels=ids, use_cache=False).loss
    loss.backward()
    weights = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {
        "loss": loss.detach(),
        "x": embeddings.grad,
        "counts": routing_of(model).counts,
    } | weights


def assert_same(actual, expected, tolerance=1e-5):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1e-3)
        assert_close(
            actual[name] / scale,
            value / scale,
            rtol=0,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


OPTIONS = [
    {"gate_scaling": "none"},
    {"gate_scaling": "prob"},
    {"gate_scaling": "straight_through", "router_bias": True},
    {"routing": "dense"},
    {"num_experts": 2, "rank_pattern": {r"layers\.1\.mlp": 8}},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_training_step_equals_the_reference_paths(options, fused_calls):
    fused = step(models.mole(models.decoder(), dispatch="auto", **options))
    assert fused_calls == [(2, 9, models.WIDTH)] * 2
    assert_same(fused, step(models.mole(models.decoder(), dispatch="loop", **options)))
    assert len(fused_calls) == 2


@pytest.mark.parametrize("family", models.FAMILIES)
def test_families_of_llamas_ffn_take_it_and_others_say_why(family, fused_calls):
    step(models.mole(models.decoder(family)))
    assert len(fused_calls) == (2 if family in SWIGLU else 0)
    demanding = models.mole(models.decoder(family), dispatch="fused")
    if family in SWIGLU:
        step(demanding)
    else:
        with pytest.raises(ValueError, match="an FFN that computes what Llama's does"):
            step(demanding)


def test_one_expert_is_pefts_lora_unless_asked_for(fused_calls):
    step(models.mole(models.decoder(), num_experts=1))
    assert not fused_calls
    step(models.mole(models.decoder(), num_experts=1, dispatch="fused"))
    assert len(fused_calls) == 2


def test_activation_checkpointing_changes_nothing(fused_calls):
    expected = step(models.mole(models.decoder(), gate_scaling="prob"))
    model = models.mole(models.decoder(), gate_scaling="prob")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(step(model), expected, tolerance=0)
    assert len(fused_calls) == 2 + 4


def test_checkpointing_draws_the_same_dropout_again():
    options = {"lora_dropout": 0.3, "gate_scaling": "prob"}
    model = models.mole(models.decoder(), **options)
    torch.manual_seed(5)
    expected = step(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(5)
    assert_same(step(model), expected, tolerance=0)


def test_dropout_is_off_outside_training():
    model = models.mole(models.decoder(), lora_dropout=0.5).eval()
    ids = models.batch(3, 11)
    with torch.no_grad():
        outputs = [model(input_ids=ids).logits for _ in range(2)]
        reference = models.mole(models.decoder(), dispatch="loop").eval()(input_ids=ids).logits
    assert torch.equal(*outputs)
    assert_close(outputs[0], reference, rtol=1e-4, atol=1e-5)


def test_decode_steps_go_token_by_token(monkeypatch):
    calls = []
    for name in ("ffn_by_token", "fused_ffn"):
        run = getattr(fused_module, name)
        monkeypatch.setattr(
            fused_module, name, lambda *a, name=name, run=run: calls.append(name) or run(*a)
        )
    model = models.mole(models.decoder()).eval()
    reference = models.mole(models.decoder(), dispatch="loop").eval()

    def taken(ids):
        calls.clear()
        logits = model(input_ids=ids).logits
        assert_close(logits, reference(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
        return set(calls)

    with torch.no_grad():
        assert taken(models.batch(1, 16)) == {"ffn_by_token"}
        assert taken(models.batch(1, 17)) == {"fused_ffn"}
    assert taken(models.batch(1, 9)) == {"fused_ffn"}  # every expert needs a gradient


def test_autocast_with_float32_experts_on_a_bfloat16_base(fused_calls):
    def model(dispatch):
        adapted = models.mole(models.decoder().bfloat16(), dispatch=dispatch, gate_scaling="prob")
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
            assert parameter.dtype == torch.float32 or "mole_" not in name
        return adapted

    exact = step(model("loop").float())
    with torch.autocast("cpu", torch.bfloat16):
        fused, reference = step(model("auto")), step(model("loop"))
    assert len(fused_calls) == 2
    names = [name for name in exact if "mole_" in name or "lora_" in name]
    assert {fused[name].dtype for name in names} == {torch.float32}

    def distance(gradients):
        return sum(float((gradients[name] - exact[name]).norm() ** 2) for name in names) ** 0.5

    # Rounding sends a token near a tie to another expert, in either.
    assert distance(fused) < 1.5 * distance(reference)


def first_layer(model):
    return next(module for module in model.modules() if isinstance(module, MoleLayer))


def _hook(layer):
    layer.base_layer.up_proj.register_forward_hook(lambda module, args, output: output)


def _hook_experts(layer):
    layer.mole_up_proj["default"].register_forward_hook(lambda module, args, output: output)


def _hook_router(layer):
    layer.mole_router["default"].register_forward_pre_hook(lambda module, args: None)


def _hook_activation(layer):
    layer.base_layer.act_fn.register_forward_hook(lambda module, args, output: output)


def _rescale_one(layer):
    layer.mole_up_proj["default"].scaling = 7.0


def _drop_in_one(layer):
    layer.mole_up_proj["default"].dropout = nn.Dropout(1e-12)


def _other_activation(layer):
    layer.base_layer.act_fn = nn.GELU()


def _other_linear(layer):
    layer.base_layer.up_proj = nn.Linear(models.WIDTH, 64, bias=False).requires_grad_(False)
    nn.init.constant_(layer.base_layer.up_proj.weight, 0.1)


def _train_base(layer):
    layer.base_layer.up_proj.weight.requires_grad_()


def _partition(layer):
    layer.base_layer.gate_proj.weight.ds_id = 0


def _replace_forward(layer):
    linear = layer.base_layer.gate_proj
    linear.forward = linear.forward


class _Subclass(nn.Linear):
    pass


def _replace_class(layer):
    layer.base_layer.down_proj.__class__ = _Subclass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_hook, "experts without other hooks"),
        (_hook_experts, "experts without other hooks"),
        (_hook_router, "experts without other hooks"),
        (_hook_activation, "experts without other hooks"),
        (_rescale_one, "one scaling for all linears, not 7.0 beside 2.0"),
        (_drop_in_one, "the same dropout for all linears"),
        (_other_activation, "with SiLU and not GELU"),
        (_other_linear, "up_proj is another now"),
        (_train_base, "a frozen base, and up_proj is trained"),
        (_partition, "ZeRO-3"),
        (_replace_forward, "a forward that nothing has replaced"),
        (_replace_class, "an unquantised torch.nn.Linear as down_proj, not _Subclass"),
    ],
)
def test_what_hangs_on_a_linears_own_call_is_left_to_it(change, words, fused_calls):
    model = models.mole(models.decoder())
    reference = models.mole(models.decoder(), dispatch="loop")
    for changed in (reference, model):
        change(first_layer(changed))
    expected, actual = step(reference), step(model)
    assert len(fused_calls) == 1  # the other layer
    assert_same({name: actual[name] for name in expected}, expected)
    demanding = models.mole(models.decoder(), dispatch="fused")
    change(first_layer(demanding))
    with pytest.raises(ValueError, match=words):
        step(demanding)


def test_differing_dtypes_are_left_to_pefts_casts(fused_calls):
    model = models.mole(models.decoder().bfloat16())  # PEFT makes float32 experts here
    step(model)
    assert not fused_calls
    demanding = models.mole(models.decoder().bfloat16(), dispatch="fused")
    with pytest.raises(ValueError, match="one dtype, and the input has"):
        step(demanding)


def test_several_adapters_add_their_outputs(fused_calls):
    model = models.mole(models.decoder())
    model.add_adapter("second", model.peft_config["default"])
    models.randomize(model)
    model.base_model.set_adapter(["default", "second"])
    model(input_ids=models.batch())
    assert not fused_calls
    model.base_model.set_adapter(["second"])
    model(input_ids=models.batch())
    assert len(fused_calls) == 2


def test_a_compiled_model_takes_the_general_path(fused_calls):
    model = models.mole(models.decoder(), dispatch="auto")
    expected = step(model)
    fused_calls.clear()
    layer = first_layer(model)
    x = torch.randn(2, 9, models.WIDTH)
    with torch.no_grad():
        eager = layer(x)
    assert len(fused_calls) == 1
    compiled = torch.compile(layer, backend="eager")
    with torch.no_grad():
        assert_close(compiled(x), eager, rtol=1e-4, atol=1e-5)
    assert len(fused_calls) == 1
    assert_same(step(model), expected, tolerance=0)


def test_attentions_lora_is_one_operation(monkeypatch):
    calls = []
    run = lora_module.lora_linear
    monkeypatch.setattr(lora_module, "lora_linear", lambda *a: calls.append(1) or run(*a))
    model = models.mole(models.decoder())
    actual = step(model)
    assert len(calls) == 2 * 4
    expected = step(models.mole(models.decoder(), dispatch="loop"))
    assert len(calls) == 2 * 4  # the reference is PEFT's
    assert_same(actual, expected)


def test_attentions_lora_leaves_what_it_cannot_to_peft(monkeypatch):
    calls = []
    run = lora_module.lora_linear
    monkeypatch.setattr(lora_module, "lora_linear", lambda *a: calls.append(1) or run(*a))
    model = models.mole(models.decoder())
    expected = step(model)
    calls.clear()
    attention = first_attention(model)
    attention.q_proj.get_base_layer().register_forward_hook(lambda module, args, output: output)
    attention.k_proj.lora_A["default"].register_forward_hook(lambda module, args, output: output)
    assert_same(step(model), expected)
    assert len(calls) == 2 * 4 - 2
    calls.clear()
    with model.disable_adapter():
        model(input_ids=models.batch())
    model.add_adapter("second", model.peft_config["default"])
    model.base_model.set_adapter(["default", "second"])
    model(input_ids=models.batch())
    assert not calls


def test_attentions_lora_in_inference(monkeypatch):
    with torch.inference_mode():
        actual = models.mole(models.decoder())(input_ids=models.batch()).logits
        expected = models.mole(models.decoder(), dispatch="loop")(input_ids=models.batch()).logits
    assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def first_attention(model):
    return model.get_base_model().model.layers[0].self_attn
