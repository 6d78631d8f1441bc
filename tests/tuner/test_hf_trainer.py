"""MoLE under transformers' own Trainer, without any code of ours."""

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from tests.tuner import models


def trained(tmp_path, batch_size, accumulation, **options):
    model = models.mole(models.decoder(), gate_scaling="prob", **options)
    rows = models.batch(8)
    data = [{"input_ids": row, "labels": row} for row in rows]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / f"{batch_size}x{accumulation}"),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0,
        use_cpu=True,
        report_to=[],
        save_strategy="steps",
        save_steps=2,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    Trainer(model, arguments, train_dataset=data).train()
    return model


@pytest.mark.parametrize("balance_coef", [0.0, 1.0])
def test_accumulation_equals_one_batch(tmp_path, balance_coef):
    whole = trained(tmp_path, 4, 1, balance_coef=balance_coef)
    start = models.mole(models.decoder(), gate_scaling="prob")
    parts = trained(tmp_path, 1, 4, balance_coef=balance_coef)
    first = dict(start.named_parameters())
    second = dict(parts.named_parameters())
    for name, parameter in whole.named_parameters():
        assert_close(second[name], parameter, rtol=0, atol=2e-6)
        if parameter.requires_grad:
            assert not torch.equal(parameter, first[name])


def test_its_checkpoint_is_the_adapter(tmp_path):
    model = trained(tmp_path, 4, 1).eval()
    again = PeftModel.from_pretrained(models.decoder(), tmp_path / "4x1" / "checkpoint-2")
    ids = models.batch()
    assert torch.equal(again(ids).logits, model(ids).logits)
