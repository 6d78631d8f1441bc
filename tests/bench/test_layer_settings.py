"""What is wanted, and where: only what the protocol measures has a target."""

import pytest

from llava_mole.bench.layer import Settings


def test_a_gpu_measures_the_large_ffn():
    cpu, gpu = Settings.of("cpu"), Settings.of("cuda:1")
    assert cpu == Settings()
    assert (gpu.shapes, gpu.tokens, gpu.dtype) == (((4096, 11008),), (4096,), "bfloat16")
    given = Settings.of("cuda", dtype="float32", tokens=None, r=128)
    assert (given.dtype, given.tokens, given.r) == ("float32", (4096,), 128)


@pytest.mark.parametrize("shape", [(576, 1536), (1024, 2816)])
def test_time_bars_on_the_cpu(shape):
    settings = Settings()
    bars = {
        bar: [settings.time_bar(shape, 2048, bar, k) for k in (3, 8, 16)]
        for bar in ("PEFT", "mask loop", "dense", "MixLoRA-style")
    }
    assert bars == {
        "PEFT": [1.00, 1.03, 1.05],
        "mask loop": [0.95, 0.85, None],
        "dense": [0.80, 0.55, None],
        "MixLoRA-style": [None, None, None],
    }
    assert settings.decode_bar(shape) == 1
    assert settings.time_bar(shape, 256, "PEFT", 3) is None
    assert settings.time_bar((512, 512), 2048, "PEFT", 3) is None
    for other in (Settings(dtype="bfloat16"), Settings(r=128)):
        assert other.time_bar(shape, 2048, "PEFT", 3) is None
        assert other.decode_bar(shape) is None


def test_time_bars_on_a_gpu():
    settings = Settings.of("cuda")
    assert settings.time_bar((4096, 11008), 4096, "PEFT", 8) == 0.95
    assert settings.time_bar((4096, 11008), 4096, "dense", 3) is None
    assert settings.time_bar((4096, 11008), 2048, "PEFT", 8) is None
    assert settings.decode_bar((4096, 11008)) is None


def test_saved_bars():
    settings = Settings()
    assert settings.saved_bar("PEFT", 3) == 0.55
    assert settings.saved_bar("PEFT", 8) is None
    assert [settings.saved_bar("dense", k) for k in (2, 3, 8)] == [0.25, 0.20, None]
    assert Settings(saved_shape=(64, 128)).saved_bar("PEFT", 3) is None
    assert Settings(r=8).saved_bar("dense", 2) is None
