"""One global batch, cut in any way, gives one result."""

import gc
import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llava_mole.config import from_dict
from llava_mole.data.layout import Layout
from llava_mole.data.mixture import Mixture, Part
from llava_mole.data.sampler import EpochSampler
from llava_mole.model.build import build_model
from llava_mole.train.adapter import attach
from llava_mole.train.batches import GlobalBatches, RankSteps, Step, StepCollator, TrainLoader
from llava_mole.train.config import RunConfig
from tests.train.conftest import largest_difference, weights


@pytest.mark.parametrize("size", [4, 1])
def test_accumulation_equals_one_large_batch(runs, one_process, size):
    values = runs.values(f"micro{size}", per_device_train_batch_size=size, max_steps=20)
    run = runs.run(values)
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    texts = [(folder / "metrics.jsonl").read_text() for folder in (run, one_process)]
    for here, there in zip(*(map(json.loads, t.splitlines()) for t in texts), strict=True):
        for key in ("loss", "loss_lm", "loss_balance", "samples/squares", "routing/all/expert_0"):
            assert here.get(key) == pytest.approx(there.get(key), abs=1e-5)


def logs_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


def test_packed_equals_padded(runs, one_process):
    """Rows of at most 440 tokens, so that steps have 4 to 7 micro-batches."""
    values = runs.values("packed", max_steps=20)
    values["data"] |= {"packing": True, "packing_length": 440}
    packed = runs.run(values)
    assert largest_difference(weights(packed), weights(one_process)) <= 1e-6
    micro_steps = {line["data/micro_steps"] for line in logs_of(packed)[:-1]}
    assert len(micro_steps) > 1
    assert all(line["data/useful_tokens"] == 1 for line in logs_of(packed)[:-1])
    for here, there in zip(logs_of(packed), logs_of(one_process), strict=True):
        for key in ("loss", "loss_lm", "loss_balance", "samples/squares", "routing/all/expert_0"):
            assert here.get(key) == pytest.approx(there.get(key), abs=1e-5)


@pytest.mark.parametrize("every", [1, 2])
def test_recomputed_activations_change_nothing(runs, one_process, monkeypatch, every):
    recomputing = []

    def backward(accelerator, loss, **options):
        layers = [m for m in gc.get_objects() if isinstance(m, LlamaDecoderLayer) and m.training]
        recomputing.append([m.gradient_checkpointing for m in layers][-2:])
        loss.backward(**options)

    monkeypatch.setattr(Accelerator, "backward", backward)
    checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_every": every}
    run = runs.run(runs.values(f"recomputed{every}", max_steps=20, **checkpointing))
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    assert recomputing[0] == [True, every == 1]


def test_grouped_equals_ungrouped(runs, one_process):
    values = runs.values("grouped", per_device_train_batch_size=2, max_steps=20)
    values["data"]["group_by_modality_length"] = True
    grouped = runs.run(values)
    assert largest_difference(weights(grouped), weights(one_process)) <= 1e-6
    useful = [
        sum(line["data/useful_tokens"] for line in logs_of(run)[:-1])
        for run in (grouped, one_process)
    ]
    assert useful[0] > useful[1]


def test_a_sample_longer_than_a_packed_row_is_named_before_training(runs):
    values = runs.values("too_long", max_steps=2)
    values["data"] |= {"packing": True, "packing_length": 15}
    with pytest.raises(ValueError, match=r"squares.json:\d+: record 'squares-\d+': takes \d+ tok"):
        runs.run(values)
    assert not (runs.folder / "too_long" / "metrics.jsonl").exists()


def test_packed_and_padded_choose_the_same_experts(runs, one_process, monkeypatch):
    """The precondition of the comparison above, on the trained weights."""
    from llava_mole.train.trainer import MoleTrainer

    chosen = {}
    add_routing = "llava_mole.train.meter.Meter.add_routing"
    for packing in (False, True):
        counts = []
        monkeypatch.setattr(add_routing, lambda self, c, ids, kept=counts: kept.append(c.clone()))
        monkeypatch.setattr(MoleTrainer, "_save_checkpoint", lambda *args: None)
        values = runs.values(f"choices{packing}", per_device_train_batch_size=8, max_steps=6)
        values["data"] |= {"packing": packing, "packing_length": 9999 if packing else None}
        runs.run(values)
        chosen[packing] = counts
    assert len(chosen[True]) == 6
    for padded, packed in zip(chosen[False], chosen[True], strict=True):
        assert torch.equal(padded, packed)


def test_workers_do_not_change_the_order(runs, one_process):
    values = runs.values("workers", per_device_train_batch_size=8, max_steps=9)
    here = runs.run(values)
    values = runs.values("workers2", per_device_train_batch_size=8, max_steps=9)
    values["data"]["num_workers"] = 2
    there = runs.run(values)
    assert all(torch.equal(a, b) for a, b in zip_named(weights(here), weights(there)))


def zip_named(one, other):
    assert one.keys() == other.keys()
    return [(one[name], other[name]) for name in one]


class Ids(torch.utils.data.Dataset):
    """Samples that are their own index."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return index


def ids(rows):
    """Collator that only says which samples a micro-batch has."""
    return {"ids": torch.tensor(rows), "dataset_ids": torch.tensor([d for d, _ in rows])}


RULES = {
    "in order": {},
    "grouped": {"group_by_modality_length": True},
    "packed": {"packing_length": 300},
}


def loaders(ranks, rule, workers=0):
    """A loader of each rank over one epoch of a mixture, 64 samples a global batch."""
    rng = np.random.default_rng(5)
    sizes = (101, 67)
    mixture = Mixture([Part("a", "x", 101), Part("b", "y", 67, 1.5)], seed=3)
    lengths = [rng.integers(2, 300, size) for size in sizes]
    images = [rng.integers(0, 3, size) for size in sizes]
    for rank in range(ranks):
        layout = Layout(ranks, 64 // ranks if rule == "in order" else 1, **RULES[rule])
        yield TrainLoader(
            RankSteps(Ids(), lengths, images, layout, rank),
            batch_sampler=GlobalBatches(EpochSampler(mixture, 64)),
            collate_fn=StepCollator(ids),
            num_workers=workers,
            generator=torch.Generator(),
        )


def steps_of(loader):
    """(data set, row) pairs of each micro-batch of each step."""
    return [
        [[tuple(pair) for pair in batch["ids"].tolist()] for batch in step.micro_batches()]
        for step in loader
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 64])
def test_a_global_batch_is_the_same_set_on_any_number_of_ranks(ranks, rule):
    mixture = Mixture([Part("a", "x", 101), Part("b", "y", 67, 1.5)], seed=3)
    order = [tuple(pair) for pair in mixture.epoch(0)[:192].tolist()]
    by_rank = [steps_of(loader) for loader in loaders(ranks, rule)]
    assert [len(steps) for steps in by_rank] == [3] * ranks
    for number, step in enumerate(zip(*by_rank, strict=True)):
        assert len({len(micro_batches) for micro_batches in step}) == 1
        taken = [pair for rank in step for batch in rank for pair in batch]
        assert sorted(taken) == sorted(order[64 * number : 64 * number + 64])


@pytest.mark.parametrize("rule", ["grouped", "packed"])
def test_workers_and_resuming_do_not_change_the_batches(rule):
    (loader,) = loaders(1, rule)
    whole = steps_of(loader)
    (with_workers,) = loaders(1, rule, workers=2)
    assert steps_of(with_workers) == whole
    (resumed,) = loaders(1, rule, workers=1)
    assert steps_of(skip_first_batches(resumed, 2)) == whole[2:]


@pytest.mark.parametrize(("ranks", "size"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (8, 1)])
def test_in_order_micro_batches_are_runs_of_the_global_order(ranks, size):
    mixture = Mixture([Part("a", "x", 21), Part("b", "y", 9, 1.5)], seed=3)
    order = list(EpochSampler(mixture, 8))
    zeros = [np.zeros(21), np.zeros(9)]
    for number, batch in enumerate(GlobalBatches(EpochSampler(mixture, 8))):
        dealt = [
            RankSteps(Ids(), zeros, zeros, Layout(ranks, size), rank).dealt(batch)
            for rank in range(ranks)
        ]
        taken = [i for step in zip(*dealt, strict=True) for rank in step for i in rank]
        assert taken == order[8 * number : 8 * number + 8]


def test_epochs_differ_and_are_the_mixtures():
    mixture = Mixture([Part("a", "x", 16)], seed=3)
    batches = GlobalBatches(EpochSampler(mixture, 8))
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        seen.append([index for batch in batches for index in batch])
        assert seen[-1] == [tuple(pair) for pair in mixture.epoch(epoch).tolist()]
    assert seen[0] == seen[2] != seen[1]
    assert len(batches) == 2


def test_a_step_crosses_processes_in_few_tensors():
    generator = torch.Generator().manual_seed(0)
    batches = [
        {
            "input_ids": torch.randint(9, (2, 3 + n), generator=generator),
            "pixel_values": torch.rand(n, 3, 4, 4, generator=generator).to(dtype),
            "num_sequences": 2,
            "problems": ["a"] * n,
        }
        for n, dtype in enumerate([torch.float32, torch.float32, torch.float16])
    ]
    step = Step(batches)
    assert len(step._buffers) == 3
    for batch, again in zip(batches, step.micro_batches(), strict=True):
        assert batch.keys() == again.keys()
        for key, value in batch.items():
            assert type(value) is type(again[key])
            if isinstance(value, torch.Tensor):
                assert value.dtype == again[key].dtype
                assert torch.equal(value, again[key])
            else:
                assert value == again[key]


def test_the_saved_adapter_is_what_was_trained(one_process):
    """`attach` on a fresh model plus the file gives the model that the run ended with."""
    from llava_mole.config import load
    from llava_mole.train.weights import load_trained

    config = load(RunConfig, one_process / "config.yaml")
    model = attach(build_model(config.model), config)
    load_trained(model, one_process)
    state = load_file(one_process / "adapter_model.safetensors")
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == len(state)
    for name, parameter in trained.items():
        assert torch.equal(parameter, state[name.replace("modules_to_save.", "")]), name


def test_unknown_values_are_errors():
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        from_dict(RunConfig, {"train": {"learning_rat": 1}}, "x")
