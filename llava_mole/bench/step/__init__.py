"""A whole optimizer step of instruction finetuning, against LLaVA's way of making one.

Every arm is a trainer whose ``train()`` runs as it does in training and stops after each optimizer
step (`paused.py`): forward, loss, backward, clipping, AdamW, schedule, callbacks and logs all
count. Data loading up to the collator does not, which data workers do beside training: the arms
start from the same samples in memory.

- `ways.py`, `peer.py`: LLaVA's way, and its levers taken away one at a time, in HF's Trainer;
- `arms.py`: these, and plain LoRA and MoLE in the product's own trainer, as the run config has it;
- `samples.py`, `synthetic.py`: what is trained on, from a run config or made up;
- `equal.py`: all arms compute the same loss and gradient, or nothing is timed;
- `measure.py`: the rounds, and the figures beside their targets; `draw.py`: their picture;
- `operations.py`: floating-point operations of a step, for the share of a GPU's peak.
"""
