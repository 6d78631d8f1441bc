"""What a run's ``data:`` section may say: the typed, documented fields and nothing else."""

import dataclasses
import re
from dataclasses import dataclass, field
from fractions import Fraction

POLICIES = ("fail", "skip")
OVERLONG = ("error", "drop_turns")
IMAGE_CHECKS = ("exists", "decode")


def _choose(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"data.{key} is {value!r}; choose one of {', '.join(allowed)}.")


def parse_count(text: int | str) -> int:
    """A number of samples as people write it: ``1100000``, ``"1.1M"`` or ``"250k"``.

    Raises:
        ValueError: not a whole number of at least 1.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", str(text).replace(",", "").replace("_", ""))
    count = Fraction(match[1]) * {"": 1, "k": 10**3, "M": 10**6}[match[2]] if match else Fraction(0)
    if count < 1 or count.denominator != 1:
        raise ValueError(f"{text!r} is no number of samples; write 1100000, 1.1M or 250k.")
    return int(count)


@dataclass
class DatasetConfig:
    """One data set and the folder that its image paths start from.

    Attributes:
        name: unique name in logs, reports and metrics.
        path: folder made by ``llava-mole data prepare``, or LLaVA JSON (one array) or JSONL.
        image_root: folder that image paths are relative to; null means the prepared folder's own
            (or the JSON file's folder). No image outside it is ever opened.
        weight: base weight within the domain; the sampling frequency is the domain's weight times
            this one.
        resample: count the data set as this many samples per unit of weight (``1.1M``, ``250k`` or
            a plain number) instead of as many as it has. More than it has shows some samples
            twice, fewer a fresh part each epoch; null means as many as it has.
    """

    name: str
    path: str
    image_root: str | None = None
    weight: float = 1.0
    resample: int | str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a name or weight that can't be used."""
        if not self.name or not self.path:
            raise ValueError("data.domains.*.datasets: each entry needs a name and a path.")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"data: weight of data set {self.name!r} is {self.weight}; it must be a number "
                ">= 0 (2 shows each sample twice an epoch)."
            )
        if self.resample is not None:
            try:
                self.resample = parse_count(self.resample)
            except ValueError as error:
                raise ValueError(f"data: resample of data set {self.name!r}: {error}") from None


@dataclass
class DomainConfig:
    """A named group of data sets and its sampling frequency.

    Attributes:
        weight: the paper's lambda: 1 shows each sample once an epoch, 2 twice, 0.25 a fresh
            quarter each epoch, 0 never. Weights need not sum to 1.
        datasets: the group's data sets.
    """

    weight: float = 1.0
    datasets: list[DatasetConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ValueError for a weight that can't be used."""
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"data.domains: weight is {self.weight}; it must be a number >= 0 "
                "(2 shows each sample twice an epoch)."
            )


@dataclass
class BenchmarkConfig:
    """A benchmark, or a slice of one, that is asked and scored during training.

    Attributes:
        name: ``ehub``, ``chartqa``, ``docvqa``, ``pathvqa``, a domain of the quickstart, or any
            other name for a question set of one's own.
        path: folder that holds the benchmark; an own set's file.
        limit: only the first so many questions of each part; null means all.
        metric: of an own set; null means ``exact_match``.
        image_root: images of an own set; null means its file's folder.
        max_new_tokens: longest answer; null means the benchmark's.
    """

    name: str
    path: str
    limit: int | None = None
    metric: str | None = None
    image_root: str | None = None
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a limit below 1, or a name that is a path."""
        if not self.name or self.name != self.name.replace("/", "_") or self.name.startswith("."):
            raise ValueError(
                f"data.eval.benchmarks: {self.name!r} must be a name, as it is a folder's too."
            )
        for key in ("limit", "max_new_tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(
                    f"data.eval.benchmarks, {self.name}: {key} is {value}; it must be >= 1."
                )


@dataclass
class EvalConfig:
    """Held-out sets whose loss is reported during training, and benchmarks that are scored.

    Every ``train.eval_steps`` the mean cross-entropy of each set's target tokens is logged as
    ``eval/<name>/loss``, from padded batches of ``train.per_device_train_batch_size`` samples
    however training is batched; and each benchmark is asked and scored as by ``llava-mole eval``,
    logged in per cent as ``eval/<name>/<total, part or data set>``, its answers kept in
    ``validation/step-N/`` of the run.

    Attributes:
        datasets: the sets, given as in a domain; weight and resample are not used.
        max_samples: at most this many of each, the first ones; null means all.
        benchmarks: what is asked and scored.
        batch_size: questions that are answered at once.
    """

    datasets: list[DatasetConfig] = field(default_factory=list)
    max_samples: int | None = None
    benchmarks: list[BenchmarkConfig] = field(default_factory=list)
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Raises ValueError for a batch size below 1 or a benchmark that is named twice."""
        if self.batch_size < 1:
            raise ValueError(f"data.eval.batch_size is {self.batch_size}; it must be >= 1.")
        names = [benchmark.name for benchmark in self.benchmarks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"data.eval.benchmarks: {name!r} is there twice; remove one.")


@dataclass
class DataConfig:
    """The training mixture and how it is read.

    Attributes:
        domains: name to group of data sets.
        on_bad_record: ``fail`` stops before training with the reasons; ``skip`` leaves bad records
            out and lists them in a report. An image that becomes unreadable while training runs
            stops the run under ``fail``; under ``skip`` its sample keeps its place in the global
            batch as one token without image or target (nothing is put in its stead) and is listed.
        max_bad_fraction: under ``skip``, a data set with a larger share of bad records stops the
            run: then something else is wrong, such as the image root. While training runs, so
            does a larger share of unreadable samples among those shown so far (of the first
            thousand before there are as many).
        check_images: what the audit before training does with images: ``exists`` looks for the
            file, ``decode`` reads it whole (slow, certain).
        overlong: what happens to a sample of more tokens than the model's length: ``error`` makes
            it a bad record, ``drop_turns`` leaves out whole exchanges from its end.
        group_by_modality_length: within each global batch, put samples with and without images,
            and samples of similar length, into the same micro-batches, so that less is padding.
        packing: several samples in one row without padding, each seeing only itself. Each global
            batch is dealt anew into rows of about the same number of tokens, one row a forward.
        packing_length: tokens of a packed row at most; null means ``model.model_max_length``. No
            sample is ever cut.
        feature_cache: file of the frozen vision tower's features, made on first use; null computes
            them each time.
        cache_dir: where converted records are kept; null means ``~/.cache/llava_mole``.
        num_workers: processes that load and encode samples beside the training process.
        eval: held-out sets.
    """

    domains: dict[str, DomainConfig] = field(default_factory=dict)
    on_bad_record: str = "fail"
    max_bad_fraction: float = 0.02
    check_images: str = "exists"
    overlong: str = "error"
    group_by_modality_length: bool = False
    packing: bool = False
    packing_length: int | None = None
    feature_cache: str | None = None
    cache_dir: str | None = None
    num_workers: int = 0
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        """Raises ValueError for values that no run could use."""
        _choose("on_bad_record", self.on_bad_record, POLICIES)
        _choose("check_images", self.check_images, IMAGE_CHECKS)
        _choose("overlong", self.overlong, OVERLONG)
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(
                f"data.max_bad_fraction is {self.max_bad_fraction}; it must be in [0, 1]."
            )
        if self.packing_length is not None and self.packing_length < 1:
            raise ValueError(f"data.packing_length is {self.packing_length}; it must be >= 1.")
        if self.packing_length is not None and not self.packing:
            raise ValueError(
                "data.packing_length is the length of a packed row; set data.packing to true, or "
                "remove it."
            )
        if self.packing and self.group_by_modality_length:
            raise ValueError(
                "data.packing and data.group_by_modality_length are two ways to avoid padding and "
                "packing leaves none; set one of them to false."
            )
        names = [dataset.name for domain in self.domains.values() for dataset in domain.datasets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"data.domains: two data sets are named {name!r}; rename one.")
        for name, domain in self.domains.items():
            if not domain.datasets:
                raise ValueError(f"data.domains.{name}: no datasets; list one or remove it.")

    def drawn(self) -> "DataConfig":
        """This section without the data sets of weight 0, which need not be on this machine."""
        domains = {}
        for name, domain in self.domains.items():
            kept = [dataset for dataset in domain.datasets if domain.weight * dataset.weight > 0]
            if kept:
                domains[name] = dataclasses.replace(domain, datasets=kept)
        if self.domains and not domains:
            raise ValueError("data.domains: every weight is 0, so there is nothing to train on.")
        return dataclasses.replace(self, domains=domains)
