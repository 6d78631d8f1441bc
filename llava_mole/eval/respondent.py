"""Who answers a benchmark's questions: a trained run or checkpoint, or a file of answers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llava_mole.eval.ask import ALONE, Ranks
from llava_mole.eval.predictions import read_predictions
from llava_mole.eval.scores import Answer
from llava_mole.eval.task import Task
from llava_mole.model import load_run
from llava_mole.model.identity import weights_of
from llava_mole.model.templates import conversation


class Respondent(NamedTuple):
    """Who answers, as `llava_mole.eval.evaluate.evaluate` takes it.

    Attributes:
        answers_to: a task's answers, in the order of its questions.
        model: who it is, for ``results.json``; empty for predictions.
        how: how it is asked, besides each task's own prompting.
        loaded: model and processor; None for predictions.
    """

    answers_to: Callable[[Task], Sequence[Answer]]
    model: dict[str, Any]
    how: dict[str, Any]
    loaded: tuple[Any, Any] | None = None


def from_files(tasks: Sequence[Task], given: Mapping[str, Path]) -> Respondent:
    """Answers that were given elsewhere.

    Args:
        tasks: what was asked.
        given: benchmark's name to file.

    Raises:
        ValueError: a missing, repeated or unknown id.
    """
    answers = {
        task.label: read_predictions(
            given[task.benchmark.name], task.questions, sliced=task.limit is not None
        )
        for task in tasks
    }
    return Respondent(lambda task: answers[task.label], {}, {})


def from_model(
    model_path: str,
    tasks: Sequence[Task],
    output: Path,
    *,
    device: str,
    batch_size: int,
    prompt_style: str = "llava",
    image_root: str | None = None,
    ranks: Ranks = ALONE,
    progress: bool = True,
    **options: Any,
) -> Respondent:
    """A model, loaded once the folder is known to take its answers.

    Args:
        model_path: run directory, or LLaVA checkpoint.
        tasks: what will be asked.
        output: folder of the answers.
        device: of the model.
        batch_size: questions that are answered at once.
        prompt_style: as the results name it.
        image_root: images of one's own sets.
        ranks: who shares the work.
        progress: whether to show a bar.
        **options: ``model_base``, ``conv_mode``, ``load_4bit``, ``load_8bit``, see `load_run`.

    Raises:
        ValueError: no loadable model, a template that leaves questions out, or a folder with
            answers of another model.
    """
    identity = {
        "model_path": model_path,
        "weights": weights_of(model_path),
        "model_base": None,
        "conv_mode": None,
        "load_4bit": False,
        "load_8bit": False,
        **options,
    }
    settings = {**identity, "image_root": image_root}
    if ranks.rank == 0:
        for task in tasks:
            task.settle(output, settings)
    model, processor = load_run(model_path, device=device, **options)
    if conversation("plain").tag in processor.chat_template:
        raise ValueError(
            f"{model_path}: its template, plain, leaves questions out, as stage 1 only captions; "
            "give --conv-mode vicuna_v1 or chatml"
        )

    def ask(task: Task) -> list[Answer]:
        return task.ask(model, processor, output, settings, batch_size, ranks, progress)

    how = {"prompt_style": prompt_style, "batch_size": batch_size}
    return Respondent(ask, identity, how, (model, processor))
