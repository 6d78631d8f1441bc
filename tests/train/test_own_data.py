"""``configs/own_data.yaml`` trains a released checkpoint on data that no other config names."""

from pathlib import Path

from safetensors.torch import load_file

from llava_mole.config import load
from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.processor import build_processor
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train
from tests.tiny import tiny_model_section
from tests.train.tiny_run import write_dataset

OWN_DATA = Path(__file__).parents[2] / "configs/own_data.yaml"


def test_own_data_on_a_checkpoint_in_transformers_layout(tmp_path):
    section = ModelConfig(**tiny_model_section(tmp_path))
    build_model(section).save_pretrained(tmp_path / "released")
    build_processor(section).save_pretrained(tmp_path / "released")
    data = []
    for seed, name in enumerate(("general", "special")):
        path = write_dataset(tmp_path, name, 8, seed)
        data.append(f"data.domains.{name}.datasets=[{{name: {name}, path: {path}}}]")
    smaller = ["max_steps=2", "global_batch_size=4", "warmup_steps=0", "save_steps=0"]
    smaller += [
        "logging_steps=1",
        "use_cpu=true",
        "learning_rate=1e-2",
        "bf16=false",
        "deepspeed=null",
    ]
    config = load(
        RunConfig,
        OWN_DATA,
        [
            f"model.checkpoint={tmp_path / 'released'}",
            "model.dtype=float32",
            "data.num_workers=0",
            f"data.cache_dir={tmp_path / 'cache'}",
            f"output_dir={tmp_path / 'run'}",
            *data,
            *(f"train.{one}" for one in smaller),
        ],
    )
    assert list(config.data.domains) == ["general", "special"]

    trained = load_file(train(config) / "adapter_model.safetensors")

    experts = [weight for name, weight in trained.items() if name.endswith(".mole_down_proj.B")]
    assert experts
    assert all(weight.any() for weight in experts)
    (projector,) = [w for name, w in trained.items() if name.endswith("projector.linear_1.weight")]
    before = load_file(tmp_path / "released" / "model.safetensors")
    (released,) = [w for name, w in before.items() if name.endswith("projector.linear_1.weight")]
    assert projector.shape == released.shape
    assert not projector.equal(released)
    assert (projector - released).abs().max() < 0.1 * released.abs().max()
