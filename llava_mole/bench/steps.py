"""What `llava_mole.bench.data` measures, each in a process of its own: the real functions, timed.

Every step takes and returns plain values. Importing is not part of any time; it is given apart.
"""

import time
from pathlib import Path
from typing import Any

BATCH = 64


def prepare_step(
    files: dict[str, str], output: str, processes: int, model: dict[str, Any] | None
) -> dict[str, float]:
    """Prepares each file.

    Args:
        files: name to LLaVA JSON.
        output: where the folders go.
        processes: worker processes.
        model: ``model:`` section whose lengths are counted, or None.

    Returns:
        ``seconds`` on the clock, ``records``, and ``cpu_before``: CPU seconds of this process when
        it began, which are imports.
    """
    from llava_mole.data.prepared.prepare import prepare
    from llava_mole.data.sources.llava import LlavaSource

    encoder = None if model is None else encoder_of(model)
    started, cpu = time.perf_counter(), time.process_time()
    records = 0
    for name, file in files.items():
        made = prepare(
            LlavaSource(file, name),
            Path(output) / name,
            encoder=encoder,
            processes=processes,
        )
        records += made.records
    return {
        "seconds": time.perf_counter() - started,
        "cpu_before": cpu,
        "records": records,
    }


def lengths_step(files: dict[str, str], records: int, model: dict[str, Any]) -> dict[str, float]:
    """Token lengths by the encoder and the tokenizer alone on the same texts, block by block.

    Args:
        files: name to LLaVA JSON.
        records: how many of each file, at most.
        model: ``model:`` section.

    Returns:
        CPU seconds of ``encoder`` and ``tokenizer``, ``records`` and their ``tokens``.
    """
    from itertools import islice

    from llava_mole.data.records import Record
    from llava_mole.data.sources.llava import LlavaSource

    encoder = encoder_of(model)
    backend = encoder.tokenizer.backend_tokenizer
    times = {"encoder": 0.0, "tokenizer": 0.0}
    count = tokens = 0
    for name, file in files.items():
        source = LlavaSource(file, name)
        items = (item for piece in source.pieces() for item in source.read(piece))
        good = (item for item in islice(items, records) if isinstance(item, Record))
        while block := list(islice(good, 1000)):
            texts = [
                "".join(
                    span.text
                    for span in encoder.template.spans(
                        [{"role": turn.role, "content": turn.content} for turn in record.turns]
                    )
                )
                for record in block
            ]

            def own(texts=texts) -> int:
                return sum(map(len, backend.encode_batch(texts)))

            def ours(block=block) -> int:
                return sum(map(int, encoder.lengths(block)))

            # By turns first and second, as the first of two finds colder caches.
            order = (("tokenizer", own), ("encoder", ours))
            for key, work in order if count // 1000 % 2 else order[::-1]:
                started = time.process_time()
                result = work()
                times[key] += time.process_time() - started
                tokens += result if key == "tokenizer" else 0
            count += len(block)
    return {**times, "records": count, "tokens": tokens}


def check_step(
    folders: dict[str, str], image_root: str, cache_dir: str, processes: int
) -> dict[str, float]:
    """Checks every record of prepared folders, without decoding; nothing is cached yet.

    Returns:
        ``seconds`` on the clock, ``records``, ``problems``.
    """
    from llava_mole.data.build import open_data

    config = data_config(folders, image_root, cache_dir, processes)
    started = time.perf_counter()
    data = open_data(config, None, seed=0)
    return {
        "seconds": time.perf_counter() - started,
        "records": sum(len(records) for records in data.sets),
        "problems": len(data.audit.problems),
    }


def open_step(
    folders: dict[str, str], image_root: str, cache_dir: str, model: dict[str, Any]
) -> dict[str, float]:
    """Opens a mixture that was checked before, and draws and collates its first global batch.

    Returns:
        Seconds of ``imports``, of the ``processor``, of ``opening``, and of the ``batch``.
    """
    times, started = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        times[name], started = now - started, now

    from llava_mole.data.build import open_data
    from llava_mole.data.collate import PackedCollator
    from llava_mole.data.images.pixels import ProcessorPixels
    from llava_mole.data.sampler import EpochSampler
    from llava_mole.model.config import ModelConfig
    from llava_mole.model.processor import build_processor
    from llava_mole.train.encoder import encoder_for

    lap("imports")
    section = ModelConfig(**model)
    processor = build_processor(section)
    encoder = encoder_for(section, processor)
    lap("processor")
    data = open_data(data_config(folders, image_root, cache_dir, 0), None, seed=0)
    lap("opening")
    samples = data.samples(encoder, ProcessorPixels(processor.image_processor))
    pairs = iter(EpochSampler(data.mixture, BATCH))
    batch = PackedCollator()([samples[next(pairs)] for _ in range(BATCH)])
    lap("batch")
    assert batch["num_sequences"] == BATCH
    return times


def data_config(folders: dict[str, str], image_root: str, cache_dir: str, processes: int):
    """A ``data:`` section: each folder a domain of its own with weight 1."""
    from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig

    return DataConfig(
        domains={
            name: DomainConfig(datasets=[DatasetConfig(name, folder, image_root)])
            for name, folder in folders.items()
        },
        cache_dir=cache_dir,
        num_workers=processes,
    )


def encoder_of(model: dict[str, Any]):
    """The encoder of a ``model:`` section."""
    from llava_mole.model.config import ModelConfig
    from llava_mole.model.processor import build_processor
    from llava_mole.train.encoder import encoder_for

    section = ModelConfig(**model)
    return encoder_for(section, build_processor(section))
