"""What PEFT promises its users: saving, loading, disabling, several adapters."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from llava_mole import MoleConfig
from llava_mole.tuner import MoleLayer, balance_loss_of, routing_of
from tests.tuner import models


def saved(tmp_path, family="llama", **options):
    model = models.mole(models.decoder(family), **options)
    model.save_pretrained(tmp_path)
    return model


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_round_trip(tmp_path, family, low_cpu_mem_usage):
    options = {"routing": "top1", "gate_scaling": "prob", "router_bias": True}
    model = saved(tmp_path, family, **options)
    keys = load_file(tmp_path / "adapter_model.safetensors")
    assert not [key for key in keys if "default" in key]
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "MOLE"
    assert config["num_experts"] == 3
    again = PeftModel.from_pretrained(
        models.decoder(family), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage
    )
    ids = models.batch()
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert not any(p.requires_grad for p in again.parameters())
    loaded, kept = again.peft_config["default"].to_dict(), model.peft_config["default"].to_dict()
    assert {k for k in loaded if loaded[k] != kept[k]} <= {"inference_mode", "auto_mapping"}


def train(model, optimizer, steps):
    losses = []
    for seed in range(steps):
        ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(seed))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_goes_on_from_a_saved_adapter(tmp_path):
    model = models.mole(models.decoder()).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    train(model, optimizer, 2)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(models.decoder(), tmp_path, is_trainable=True).train()
    trainable = [p for p in again.parameters() if p.requires_grad]
    assert len(trainable) == len(optimizer.param_groups[0]["params"])
    expected = train(model, optimizer, 3)
    assert train(again, torch.optim.SGD(trainable, lr=0.1), 3) == expected


def test_a_projector_travels_along(tmp_path):
    options = {"num_experts": 3, "r": 4, "modules_to_save": ["multi_modal_projector"]}
    model = models.randomize(get_peft_model(models.llava(), MoleConfig(**options))).eval()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(models.llava(), tmp_path)
    batch = models.llava_batch()
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert not torch.equal(again(**batch).logits, models.llava()(**batch).logits)


def test_disable_adapter_is_the_base_exactly():
    ids = models.batch()
    for family in ("llama", "opt"):
        expected = models.decoder(family)(ids).logits
        model = models.mole(models.decoder(family))
        adapted = model(ids).logits
        with model.disable_adapter():
            assert torch.equal(model(ids).logits, expected)
            with pytest.raises(ValueError, match="Run a forward with the adapter enabled"):
                routing_of(model)
        assert torch.equal(model(ids).logits, adapted)
        assert not torch.equal(adapted, expected)


def test_several_adapters():
    ids = models.batch()
    model = models.mole(models.decoder())
    first = model(ids).logits
    model.add_adapter("second", MoleConfig(num_experts=5, r=2, gate_scaling="prob"))
    assert torch.equal(model(ids).logits, first)
    for name, parameter in model.named_parameters():
        if "second" in name:
            assert not parameter.requires_grad
            torch.nn.init.normal_(parameter, std=0.3)
    model.set_adapter("second")
    second = model(ids).logits
    assert routing_of(model).counts.shape[-1] == 5
    assert not torch.equal(first, second)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".second" in name for name in trainable)
    model.set_adapter("default")
    assert torch.equal(model(ids).logits, first)
    assert routing_of(model).counts.shape[-1] == 3

    model.base_model.set_adapter(["default", "second"])
    both = model(ids).logits
    assert not torch.equal(both, first)
    with pytest.raises(ValueError, match="name one if several are active"):
        routing_of(model)
    parts = [routing_of(model, name) for name in ("default", "second")]
    assert [part.counts.shape[-1] for part in parts] == [3, 5]
    assert balance_loss_of(model) > 0

    model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(model(ids).logits, second)
    layer = next(m for m in model.modules() if isinstance(m, MoleLayer))
    assert list(layer.mole_router) == list(layer.mole_up_proj) == ["second"]
    assert list(layer.state.configs) == ["second"]


def test_load_adapter_under_another_name(tmp_path):
    ids = models.batch()
    expected = saved(tmp_path)(ids).logits
    model = get_peft_model(models.decoder(), MoleConfig(num_experts=2))
    model.load_adapter(tmp_path, "loaded")
    model.set_adapter("loaded")
    assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_unload_gives_the_base_back(family):
    ids = models.batch()
    model = models.mole(models.decoder(family))
    model(ids)
    base = model.unload()
    assert torch.equal(base(ids).logits, models.decoder(family)(ids).logits)
    assert [n for n, _ in base.named_modules()] == [
        n for n, _ in models.decoder(family).named_modules()
    ]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


@pytest.mark.parametrize("method", ["merge_and_unload", "merge_adapter"])
def test_merging_is_refused(method):
    model = models.mole(models.decoder())
    with pytest.raises(ValueError, match=r"every token chooses its own expert.*unload\(\)"):
        getattr(model, method)()
    layer = next(m for m in model.modules() if isinstance(m, MoleLayer))
    with pytest.raises(ValueError, match="cannot be merged"):
        layer.merge()


def test_what_experts_cannot_do_is_refused():
    model = models.mole(models.decoder())
    with pytest.raises(ValueError, match="cannot be combined"):
        model.add_weighted_adapter(["default"], [1.0], "sum")
    with pytest.raises(ValueError, match="adapter_names"):
        model(models.batch(), adapter_names=["default", "__base__"])


def test_missing_and_renamed_keys_are_errors(tmp_path):
    saved(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    for key in weights:
        rest = {k: v for k, v in weights.items() if k != key}
        save_file(rest, path)
        with pytest.raises(
            ValueError, match=f"1 missing .*{key.rpartition('.')[0].split('.')[-1]}"
        ):
            PeftModel.from_pretrained(models.decoder(), tmp_path)
        save_file({**rest, key.replace("layers.1", "layers.7") + "x": weights[key]}, path)
        with pytest.raises(ValueError, match=r"1 missing .* 1 unknown"):
            PeftModel.from_pretrained(models.decoder(), tmp_path)
    save_file(weights, path)
    PeftModel.from_pretrained(models.decoder(), tmp_path)


def test_a_missing_projector_is_an_error(tmp_path):
    options = {"r": 4, "modules_to_save": ["multi_modal_projector"]}
    get_peft_model(models.llava(), MoleConfig(**options)).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    key = next(key for key in weights if "projector" in key)
    save_file({k: v for k, v in weights.items() if k != key}, path)
    with pytest.raises(KeyError, match=key.replace(".", r"\.")):
        PeftModel.from_pretrained(models.llava(), tmp_path)


def test_wrong_sizes_are_errors(tmp_path):
    saved(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["num_experts"] = 4
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(models.decoder(), tmp_path)


def test_dropout_is_pefts():
    model = models.mole(models.decoder(), num_experts=1, dispatch="loop", lora_dropout=0.3).train()
    lora = models.peft_lora(models.decoder(), model)
    for module in lora.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.3)
    lora.train()
    ids = models.batch()
    torch.manual_seed(7)
    logits = model(ids).logits
    torch.manual_seed(7)
    assert_close(logits, lora(ids).logits, rtol=0, atol=0)
