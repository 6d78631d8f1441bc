"""What a run's ``data:`` section may say: the typed, documented fields and nothing else."""

from dataclasses import dataclass, field

POLICIES = ("fail", "skip")
OVERLONG = ("error", "drop_turns")
IMAGE_CHECKS = ("exists", "decode")


def _choose(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"data.{key} is {value!r}; choose one of {', '.join(allowed)}.")


@dataclass
class DatasetConfig:
    """One file of records and the folder that its image paths start from.

    Attributes:
        name: unique name in logs, reports and metrics.
        path: LLaVA JSON (one array) or JSONL.
        image_root: folder that image paths are relative to; null means the file's own folder. No
            image outside it is ever opened.
        weight: base weight within the domain; the sampling frequency is the domain's weight times
            this one.
    """

    name: str
    path: str
    image_root: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a name or weight that can't be used."""
        if not self.name or not self.path:
            raise ValueError("data.domains.*.datasets: each entry needs a name and a path.")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"data: weight of data set {self.name!r} is {self.weight}; it must be a number "
                ">= 0 (2 shows each sample twice an epoch)."
            )


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
class EvalConfig:
    """Held-out sets that are scored for loss during training.

    Attributes:
        datasets: the sets; their weights are not used.
        max_samples: at most this many of each, the first ones; null means all.
    """

    datasets: list[DatasetConfig] = field(default_factory=list)
    max_samples: int | None = None


@dataclass
class DataConfig:
    """The training mixture and how it is read.

    Attributes:
        domains: name to group of data sets.
        on_bad_record: ``fail`` stops before training with the reasons; ``skip`` leaves bad records
            out and lists them in a report.
        max_bad_fraction: under ``skip``, a data set with a larger share of bad records stops the
            run: then something else is wrong, such as the image root.
        check_images: what the audit before training does with images: ``exists`` looks for the
            file, ``decode`` reads it whole (slow, certain).
        overlong: what happens to a sample of more tokens than the model's length: ``error`` makes
            it a bad record, ``drop_turns`` leaves out whole exchanges from its end.
        packing: several samples in one row without padding, each seeing only itself.
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
    packing: bool = False
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
        names = [dataset.name for domain in self.domains.values() for dataset in domain.datasets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"data.domains: two data sets are named {name!r}; rename one.")
        for name, domain in self.domains.items():
            if not domain.datasets:
                raise ValueError(f"data.domains.{name}: no datasets; list one or remove it.")
