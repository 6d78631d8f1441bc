"""HF CLIP vision weights under open_clip's names, written from the two state dicts."""

import torch


def to_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A ``CLIPVisionModel`` state dict as open_clip's ``visual.*``."""
    state = {k.removeprefix("vision_model."): v for k, v in state.items()}
    out = {
        "visual.class_embedding": state["embeddings.class_embedding"],
        "visual.conv1.weight": state["embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["embeddings.position_embedding.weight"],
    }
    for part in ("weight", "bias"):
        out[f"visual.ln_pre.{part}"] = state[f"pre_layrnorm.{part}"]
        out[f"visual.ln_post.{part}"] = state[f"post_layernorm.{part}"]
    layers = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.layers."))
    for i in range(layers):
        hf, ours = f"encoder.layers.{i}", f"visual.transformer.resblocks.{i}"
        for part in ("weight", "bias"):
            qkv = [state[f"{hf}.self_attn.{x}_proj.{part}"] for x in "qkv"]
            out[f"{ours}.attn.in_proj_{part}"] = torch.cat(qkv)
            out[f"{ours}.attn.out_proj.{part}"] = state[f"{hf}.self_attn.out_proj.{part}"]
            out[f"{ours}.ln_1.{part}"] = state[f"{hf}.layer_norm1.{part}"]
            out[f"{ours}.ln_2.{part}"] = state[f"{hf}.layer_norm2.{part}"]
            out[f"{ours}.mlp.c_fc.{part}"] = state[f"{hf}.mlp.fc1.{part}"]
            out[f"{ours}.mlp.c_proj.{part}"] = state[f"{hf}.mlp.fc2.{part}"]
    return out
