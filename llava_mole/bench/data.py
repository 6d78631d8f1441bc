"""The data path at the paper's size: prepare, check, open, images, each against its target.

Two million made-up records by default (`llava_mole.bench.synthetic`). Each measurement runs in a
process of its own, whose tree's memory is watched from outside.
"""

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava_mole.bench import synthetic
from llava_mole.bench.figures import Figure, say
from llava_mole.bench.images import SIDE, SIZE, images_step
from llava_mole.bench.memory import Peak, in_fresh_process
from llava_mole.bench.steps import BATCH, check_step, lengths_step, open_step, prepare_step

STEPS = ("prepare", "check", "open", "images")
# JSON, prepared folders and caches, measured and rounded up.
DISK_BYTES = 2500
_LENGTHS_SHARE = 0.1
_RECORDS_PER_SECOND = 20_000
_MEMORY = 1.5 * 2**30
_NUM_JPEGS = 64


def run(
    work_dir: str | os.PathLike[str],
    records: int,
    processes: int,
    only: Sequence[str] = STEPS,
    model: dict[str, Any] | None = None,
) -> list[Figure]:
    """Measures the chosen steps.

    Args:
        work_dir: an existing folder for the data; emptied by whoever made it.
        records: how many records are made up.
        processes: worker processes of ``prepare`` and ``check``.
        only: of `STEPS`; ``check`` and ``open`` need what ``prepare`` writes, which is then
            written without being reported.
        model: a ``model:`` section whose tokenizer counts lengths; None trains a small one.

    Raises:
        ValueError: an unknown step, too few records, or too little room on the disk.
    """
    work_dir = Path(work_dir)
    unknown = sorted(set(only) - set(STEPS))
    if unknown or not only:
        raise ValueError(f"--only {','.join(unknown)}: choose from {', '.join(STEPS)}")
    if records < 1000 or processes < 1:
        raise ValueError("--records must be >= 1000 and --processes >= 1")
    figures: list[Figure] = []
    if set(only) - {"images"}:
        _check_disk(work_dir, records)
        say(f"writing {records:,} records to {work_dir}")
        paths = synthetic.write(work_dir / "raw", records)
        files = {name: str(path) for name, path in paths.items()}
        folders = {name: str(work_dir / "prepared" / name) for name in files}
        say("prepare, without lengths")
        made = in_fresh_process(prepare_step, files, str(work_dir / "prepared"), processes, None)
        assert made[0]["records"] == records, "prepare lost records of a good file"
        if "prepare" in only or "open" in only:
            model = model or _small_model(work_dir, files)
        if "prepare" in only:
            figures += _prepare_figures(made, files, work_dir, records, processes, model)
        if "check" in only or "open" in only:
            say("check, without decoding")
            root, cache = str(work_dir / "raw"), str(work_dir / "cache")
            looked = in_fresh_process(check_step, folders, root, cache, processes)
            assert looked[0]["problems"] == 0, "check found problems in good records"
            if "check" in only:
                figures += _speed("check", *looked, "existence of every image, no decoding")
        if "open" in only:
            say("open")
            times, _ = in_fresh_process(open_step, folders, root, cache, model)
            figures += [
                Figure(
                    "open the mixture and draw the first batch",
                    times["opening"] + times["batch"],
                    "s",
                    5.0,
                    note=f"checked before; first batch of {BATCH} encoded, decoded and collated",
                ),
                Figure("  of that, opening", times["opening"], "s"),
                Figure("  before that, imports", times["imports"], "s"),
                Figure("  before that, processor and encoder", times["processor"], "s"),
            ]
    if "images" in only:
        say("images")
        figures += _image_figures(work_dir)
    return figures


def _prepare_figures(made, files, work_dir, records, processes, model) -> list[Figure]:
    figures = _speed("prepare, no lengths", *made, "LLaVA JSON arrays to Arrow")
    # Holds on a busy machine too, where the clock tells of others.
    own = made[0]["records"] / (made[1].cpu - made[0]["cpu_before"])
    figures.insert(1, Figure("  of that, each core by itself", own, "records/s of CPU"))
    # Fewer records, as counting tokens takes several times longer than everything else.
    some = max(1000, math.ceil(records * _LENGTHS_SHARE))
    paths = synthetic.write(work_dir / "some", some)
    files = {name: str(path) for name, path in paths.items()}
    say(f"prepare, with lengths, {some:,} records")
    result, peak = in_fresh_process(
        prepare_step, files, str(work_dir / "prepared_some"), processes, model
    )
    say("the tokenizer alone")
    alone, _ = in_fresh_process(lengths_step, files, some, model)
    ratio = alone["encoder"] / alone["tokenizer"]
    speed = alone["tokens"] / alone["tokenizer"] / 1e6
    return [
        *figures,
        Figure("prepare with lengths, speed", result["records"] / result["seconds"], "records/s"),
        Figure("prepare with lengths, peak memory", peak.total / 2**30, "GiB", note=_kind(peak)),
        Figure("lengths / tokenizer alone, CPU", ratio, "x", 1.2, note="in one process, by turns"),
        Figure(
            "all of prepare / tokenizer alone, CPU",
            (peak.cpu - result["cpu_before"]) / alone["tokenizer"],
            "x",
            1.2,
            note="reading, writing and starting processes included",
        ),
        Figure("  tokenizer alone", speed, "M tokens/s of CPU"),
    ]


def _speed(name: str, result: dict[str, float], peak: Peak, note: str) -> list[Figure]:
    figures = [
        Figure(
            f"{name}, speed",
            result["records"] / result["seconds"],
            "records/s",
            _RECORDS_PER_SECOND,
            most=False,
            note=note,
        ),
        Figure(
            f"{name}, peak memory",
            peak.total / 2**30,
            "GiB",
            _MEMORY / 2**30,
            note=_kind(peak),
        ),
    ]
    if peak.anonymous is not None:
        own = peak.anonymous / 2**30
        figures.append(Figure("  of that, not pages of mapped files", own, "GiB"))
    return figures


def _image_figures(work_dir: Path) -> list[Figure]:
    folder = work_dir / "jpegs"
    paths = synthetic.write_images(folder, _NUM_JPEGS, size=SIZE)
    size = sum((folder / path).stat().st_size for path in paths) / len(paths) / 1024
    result, _ = in_fresh_process(images_step, str(folder), paths)
    what = f"JPEG {SIZE[0]}x{SIZE[1]}, {size:.0f} KiB, to {SIDE}x{SIDE}"
    return [
        Figure("image pipeline", result["ours"], "images/s of CPU", 150.0, most=False, note=what),
        Figure(
            "image pipeline / PIL decode and resize",
            result["ratio"],
            "x",
            1.2,
            note=f"time; Pillow {result['pillow']}; this or the line above is the target",
        ),
        Figure("  PIL decode and resize alone", result["pil"], "images/s of CPU"),
    ]


def _small_model(work_dir: Path, files: dict[str, str]) -> dict[str, Any]:
    """A ``model:`` section with a tokenizer trained on the made-up text, 576 tokens an image."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(_head, files.values()), trainer)
    folder = work_dir / "tokenizer"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return {
        "language_config": {"model_type": "llama"},
        "tokenizer": str(folder),
        "model_max_length": 4096,
    }


def _head(file: str) -> str:
    with open(file, encoding="utf-8") as text:
        return text.read(2**21)


def _check_disk(work_dir: Path, records: int) -> None:
    need, free = records * DISK_BYTES, shutil.disk_usage(work_dir).free
    say(f"needs about {need / 1e9:.1f} GB below {work_dir}, {free / 1e9:.1f} GB are free")
    if need > free:
        raise ValueError(
            f"{work_dir}: {records:,} records need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free; choose another --work-dir or fewer --records"
        )


def _kind(peak: Peak) -> str:
    return f"sum of {peak.kind} over all processes, sampled"
