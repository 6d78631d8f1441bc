"""Runs on prepared folders: the same training, and held-out sets beside it."""

import json

import pytest
import torch

from llava_mole.config import from_dict
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.sources.llava import LlavaSource
from llava_mole.model.processor import build_processor
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from tests.train.conftest import weights


def logged(run, key):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return {line["step"]: line[key] for line in lines if key in line}


@pytest.mark.parametrize("batching", [{}, {"packing": True, "packing_length": 440}])
def test_prepared_folders_train_and_evaluate_as_their_files_do(runs, batching):
    name = "packed" if batching else "padded"
    values = runs.values(f"files_{name}", max_steps=4, eval_steps=2)
    values["data"] |= batching
    sets = [dataset for d in values["data"]["domains"].values() for dataset in d["datasets"]]
    values["data"]["eval"] = {
        "datasets": [{"name": f"held_{d['name']}", "path": d["path"]} for d in sets],
        "max_samples": 9,
    }
    files = runs.run(values)

    config = from_dict(RunConfig, values, "test")
    encoder = encoder_for(config.model, build_processor(config.model))
    for dataset in [*sets, *values["data"]["eval"]["datasets"]]:
        folder = runs.folder / f"prepared_{name}" / dataset["name"]
        folder.parent.mkdir(exist_ok=True)
        prepare(LlavaSource(dataset["path"], dataset["name"]), folder, encoder=encoder)
        dataset["path"] = str(folder)
    values["output_dir"] = str(runs.folder / f"folders_{name}")
    folders = runs.run(values)

    first, second = weights(files), weights(folders)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for held in ("held_squares", "held_mixed"):
        losses = logged(folders, f"eval/{held}/loss")
        assert list(losses) == [2, 4]
        assert losses == logged(files, f"eval/{held}/loss")


def test_held_out_losses_do_not_depend_on_how_they_are_batched(runs, one_process):
    """Nine samples by 1, 4 and 8 at a time, beside padded and packed training."""
    losses = []
    for size, packing in ((1, False), (4, True), (8, False)):
        values = runs.values(
            f"held_by_{size}", max_steps=1, eval_steps=1, per_device_train_batch_size=size
        )
        path = values["data"]["domains"]["document"]["datasets"][0]["path"]
        values["data"] |= {"packing": packing}
        values["data"]["eval"] = {"datasets": [{"name": "h", "path": path}], "max_samples": 9}
        losses.append(logged(runs.run(values), "eval/h/loss")[1])
    assert losses == pytest.approx(losses[:1] * 3, abs=1e-5)
