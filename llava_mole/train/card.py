"""The README.md of a finished run: what it is and how to load it."""

from llava_mole.train.config import RunConfig

_CARD = """\
---
library_name: peft
tags: [llava, {method}]
---
# {name}

{what}, trained by llava_mole {version} in {steps:,} steps on {domains}.

Talk to it:

    llava-mole chat --model-path {folder} --image-file IMAGE

Load it in Python:

    from llava_mole.model import load_run   # also registers MoLE with PEFT
    model, processor = load_run("{folder}")

| file | |
|---|---|
| `config.yaml` | the resolved config: model, data, method, optimisation, seed |
| `versions.json` | Python, packages and hardware |
| `metrics.jsonl` | one line a logging step: losses, rates, speed, routing per data set |
| {weights} | what was trained; the frozen base is not here but where `config.yaml` names it |
| `processor_config.json`, `tokenizer*.json`, `chat_template.jinja` | the processor |
| `order.json` | the records that were left out when the run began |
| `checkpoint-N/` | complete states to resume from |
"""
_METHODS = {
    "mole": "LoRA on attention, K = {k} LoRA experts on every FFN, and a projector",
    "lora": "Plain LoRA on attention and FFN, and a projector",
    "none": "A projector",
}


def model_card(config: RunConfig, steps: int, version: str) -> str:
    """Markdown for the run directory, with the metadata block that model hubs read."""
    method = config.adapter.type if config.stage == "finetune" else "none"
    domains = ", ".join(f"{name} (λ = {d.weight:g})" for name, d in config.data.domains.items())
    return _CARD.format(
        method="projector" if method == "none" else method,
        name=config.output_dir.rstrip("/").rpartition("/")[2],
        what=_METHODS[method].format(k=config.adapter.num_experts),
        version=version,
        steps=steps,
        domains=domains,
        folder=config.output_dir,
        weights="`projector.safetensors`"
        if method == "none"
        else "`adapter_model.safetensors`, `adapter_config.json`",
    )
