"""Injection into many families, with defaults only."""

import copy

import pytest
import torch
import transformers as tf
from peft import PeftModel, get_peft_model
from torch import nn
from torch.testing import assert_close

from llava_mole import MoleConfig
from llava_mole.tuner import MoleLayer, attention_targets, ffn_targets, lora_targets, routing_of
from tests import tiny
from tests.tuner import models

FFN_LINEARS = {
    "gpt_neox": {"dense_h_to_4h", "dense_4h_to_h"},
    "phi": {"fc1", "fc2"},
    "opt": {"fc1", "fc2"},
    "phi3": {"gate_up_proj", "down_proj"},
}


@pytest.mark.parametrize("family", models.FAMILIES)
def test_defaults_find_every_ffn_and_attention(family):
    base = models.decoder(family)
    ids = models.batch()
    expected = base(ids).logits
    attention = attention_targets(base)
    ffns = ffn_targets(base)
    wanted = FFN_LINEARS.get(family, {"gate_proj", "up_proj", "down_proj"})
    assert [{name.rpartition(".")[2] for name in names} for names in ffns.values()] == [wanted] * 2
    linears = {n for n, m in base.named_modules() if isinstance(m, nn.Linear)} - {
        "lm_head",
        "embed_out",
    }
    assert set(lora_targets(base)) == linears

    model = get_peft_model(base, MoleConfig(num_experts=3))
    assert torch.equal(model(ids).logits, expected)  # B is zero at the start
    layers = [m for m in model.modules() if isinstance(m, MoleLayer)]
    assert len(layers) == 2
    loras = [n for n, m in model.named_modules() if n.endswith(".lora_A")]
    assert len(loras) == len(attention)
    assert lora_targets(model) == lora_targets(models.decoder(family))  # the same when asked again

    models.randomize(model).train()
    model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        adapter = "mole_" in name or "lora_" in name
        assert parameter.requires_grad == adapter
        assert (parameter.grad is not None) == adapter
    assert routing_of(model).counts.sum(-1).tolist() == [[9, 9], [9, 9]]


def by_hand(mlp, layer, x, K):
    """A gated FFN with experts, token by token in float64."""
    A, B = {}, {}
    for name in ("gate_proj", "up_proj", "down_proj"):
        experts = getattr(layer, f"mole_{name}")["default"]
        A[name], B[name] = experts.A.detach().double(), experts.B.detach().double()
    router = layer.mole_router["default"].weight.detach().double()
    rows, chosen = [], []
    for token in x.double():
        k = max(range(K), key=lambda j: float(router[j] @ token))

        def linear(name, v, k=k):
            weight = getattr(mlp, name).weight.detach().double()
            return weight @ v + 2.0 * (B[name][k] @ (A[name][k] @ v))

        gate = linear("gate_proj", token)
        hidden = gate / (1 + torch.exp(-gate)) * linear("up_proj", token)
        rows.append(linear("down_proj", hidden))
        chosen.append(k)
    return torch.stack(rows), chosen


@pytest.mark.parametrize("dispatch", ["loop", "masked", "grouped"])
def test_one_ffn_equals_the_method_by_hand(dispatch):
    model = models.mole(models.decoder(), dispatch=dispatch)
    layer = next(m for m in model.modules() if isinstance(m, MoleLayer))
    x = torch.randn(11, models.WIDTH)
    expected, chosen = by_hand(layer.base_layer, layer, x, 3)
    assert len(set(chosen)) == 3
    assert_close(layer(x[None])[0].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"routing": "dense"}, {"gate_scaling": "prob"}])
def test_paths_agree_in_a_whole_model(options):
    ids = models.batch()
    logits = [
        models.mole(models.decoder(), dispatch=path, **options)(ids).logits
        for path in ("loop", "masked", "grouped")
    ]
    assert_close(logits[0], logits[1])
    assert_close(logits[0], logits[2])


def test_llava_leaves_vision_projector_and_head_alone():
    model = get_peft_model(models.llava(), MoleConfig(modules_to_save=["multi_modal_projector"]))
    models.randomize(model).train()
    batch = models.llava_batch()
    model(**batch).loss.backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in model.named_parameters() if p.requires_grad}
    assert not [n for n in trained if "vision_tower" in n or "lm_head" in n]
    assert [n for n in trained if "multi_modal_projector.modules_to_save.default" in n]
    routing = routing_of(model)
    assert routing.lengths.tolist() == [9, 7]  # real tokens, image tokens among them
    assert routing.counts.sum(-1).tolist() == [[9, 7], [9, 7]]


def test_vicuna_7b_has_the_papers_parameters():
    with torch.device("meta"):
        base = tf.LlamaForCausalLM(
            tf.LlamaConfig(
                hidden_size=4096,
                intermediate_size=11008,
                num_hidden_layers=32,
                num_attention_heads=32,
                vocab_size=32064,
            )
        )
    model = get_peft_model(base, MoleConfig(num_experts=3, r=32, lora_alpha=64))
    assert model.get_nb_trainable_parameters()[0] == 173_146_112
    assert all(p.device.type == "meta" for p in model.parameters())


def test_explicit_targets():
    model = get_peft_model(models.decoder(), MoleConfig(target_modules=["mlp"]))
    assert not [n for n, _ in model.named_parameters() if "lora_" in n]
    model = get_peft_model(models.decoder(), MoleConfig(layers_to_transform=[1]))
    assert [m.index for m in model.modules() if isinstance(m, MoleLayer)] == [1]
    model = get_peft_model(models.decoder(), MoleConfig(exclude_modules=["q_proj", "k_proj"]))
    assert {n.split(".")[-4] for n, _ in model.named_parameters() if "lora_A" in n} == {
        "v_proj",
        "o_proj",
    }
    model = get_peft_model(models.decoder(), MoleConfig(rank_pattern={"layers.0.mlp": 2}))
    assert [m.mole_up_proj["default"].A.shape[1] for m in model.modules() if type(m) is MoleLayer]


def test_a_linear_inside_an_ffn_is_refused():
    with pytest.raises(ValueError, match="name the FFN \\('mlp'\\)"):
        get_peft_model(models.decoder(), MoleConfig(target_modules=["q_proj", "up_proj"]))


@pytest.mark.parametrize("which", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("key", ["mlp.gate_proj", "layers.7.mlp", "qproj"])
def test_a_pattern_that_names_nothing_is_refused(which, key):
    with pytest.raises(ValueError, match=rf"{which}: '{key}' names no module.*name the FFN"):
        get_peft_model(models.decoder(), MoleConfig(**{which: {"mlp": 4, key: 2}}))


def test_models_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="not a transformers model"):
        get_peft_model(nn.Sequential(nn.Linear(4, 4)), MoleConfig())
    sizes = {k: v for k, v in models._ROPE.items() if k != "pad_token_id"}
    mixtral = tf.MixtralForCausalLM(tf.MixtralConfig(**sizes, num_local_experts=2))
    with pytest.raises(ValueError, match="mixture of experts already"):
        get_peft_model(mixtral, MoleConfig())


def test_deepcopy_is_independent():
    model = models.mole(models.decoder()).train()
    ids = models.batch()
    loss = model(input_ids=ids, labels=ids).loss
    twin = copy.deepcopy(model)
    assert torch.equal(twin(input_ids=ids, labels=ids).loss, loss)
    models.randomize(twin, seed=9)
    assert not torch.equal(twin(input_ids=ids, labels=ids).loss, loss)
    assert torch.equal(model(input_ids=ids, labels=ids).loss, loss)


def test_bfloat16_base_keeps_routers_in_float32():
    model = get_peft_model(models.decoder().bfloat16(), MoleConfig(), autocast_adapter_dtype=False)
    dtypes = {n: p.dtype for n, p in model.named_parameters() if "mole_" in n}
    assert {d for n, d in dtypes.items() if "router" in n} == {torch.float32}
    assert {d for n, d in dtypes.items() if "router" not in n} == {torch.bfloat16}
    model = get_peft_model(models.decoder().bfloat16(), MoleConfig())
    dtypes = {p.dtype for n, p in model.named_parameters() if "mole_" in n}
    assert dtypes == {torch.float32}
    ids = models.batch()
    models.randomize(model).train()
    out = model(input_ids=ids, labels=ids)
    assert out.logits.dtype == torch.bfloat16
    out.loss.backward()


def test_four_bit_base(tmp_path):
    bnb = pytest.importorskip("bitsandbytes")
    models.decoder("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    quantization = tf.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    base = tf.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization, device_map="cpu"
    )
    assert isinstance(base.model.layers[0].mlp.up_proj, bnb.nn.Linear4bit)
    ids = models.batch()
    expected = tiny.without_bfloat16_kernels(base)(ids).logits
    model = get_peft_model(base, MoleConfig(r=4))
    assert torch.equal(model(ids).logits, expected)
    models.randomize(model).train()
    out = model(input_ids=ids, labels=ids)
    assert not torch.equal(out.logits, expected)
    out.loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any() or "mole_" in name
    model.save_pretrained(tmp_path / "adapter")
    again = tf.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization, device_map="cpu"
    )
    again = tiny.without_bfloat16_kernels(again)
    again = PeftModel.from_pretrained(again, tmp_path / "adapter", torch_device="cpu")
    assert torch.equal(again(ids).logits, model.eval()(ids).logits)
