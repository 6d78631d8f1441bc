"""What happened since the last log line, gathered without a device sync per layer or micro-step.

Losses and expert choices stay on the device and are added up there; token and sample counts come
from the batches before they leave the CPU. One reduction and one copy happen per log line.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist

from llava_mole.data.layout import Work
from llava_mole.mole import statistics
from llava_mole.train.counts import GlobalBatch


class Meter:
    """Sums over the optimizer steps since the last `read`.

    Attributes:
        samples_seen: samples per data set since training began, resumed part included. (D,) int64
    """

    def __init__(self, datasets: Sequence[str], device: torch.device):
        """Starts at zero for data sets named ``datasets`` (index = ``dataset_ids``)."""
        self.datasets = list(datasets)
        self.samples_seen = torch.zeros(len(datasets), dtype=torch.int64)
        self._device = device
        self._routed: torch.Tensor | None = None  # all of training, (D, N, K) float64 on the CPU
        self._reset()

    def _reset(self) -> None:
        self._losses = torch.zeros(3, dtype=torch.float64, device=self._device)
        self._new_samples = torch.zeros(len(self.datasets), dtype=torch.int64)
        self._counts: torch.Tensor | None = None
        self._tokens = self._targets = self._samples = self._steps = 0
        self._work = Work()
        self._started = time.perf_counter()

    def add_step(self, batch: GlobalBatch, work: np.ndarray) -> None:
        """One optimizer step over ``batch`` begins; ``work`` as `count_step` gives it."""
        self._steps += 1
        self._tokens += batch.tokens
        self._targets += batch.targets
        self._samples += batch.sequences
        self._work.add(work)

    def add_samples(self, dataset_ids: torch.Tensor) -> None:
        """This rank's next micro-batch has these data set ids, (S,) int64 on the CPU."""
        self._new_samples += torch.bincount(dataset_ids, minlength=len(self.datasets))

    def add_loss(self, language: torch.Tensor, balance: torch.Tensor, domain: torch.Tensor) -> None:
        """One micro-batch's shares of the step's losses (scalars on the device)."""
        losses = torch.stack([language.detach(), balance.detach(), domain.detach()])
        self._losses += losses.double()

    def add_routing(self, counts: torch.Tensor, dataset_ids: torch.Tensor) -> None:
        """Tokens per layer, sequence and expert, (N, S, K); ``dataset_ids`` (S,), same device."""
        layers, _, experts = counts.shape
        if self._counts is None:
            shape = (len(self.datasets), layers, experts)
            self._counts = torch.zeros(shape, dtype=torch.float64, device=self._device)
        self._counts.index_add_(0, dataset_ids, counts.detach().transpose(0, 1).double())

    def read(self) -> tuple[dict[str, float], torch.Tensor | None]:
        """Logs of the window over all ranks, and the window's (D, N, K) token counts.

        Collective: every rank must call it at the same step.
        """
        seconds = time.perf_counter() - self._started
        samples = self._new_samples.to(self._device, torch.float64)
        parts = [self._losses, samples] + ([] if self._counts is None else [self._counts.flatten()])
        flat = torch.cat(parts)
        if dist.is_initialized():
            dist.all_reduce(flat)
        flat = flat.cpu()
        steps = max(self._steps, 1)
        language, balance, domain = (flat[:3] / steps).tolist()
        new = flat[3 : 3 + len(self.datasets)].round().long()
        self.samples_seen += new
        counts = None
        if self._counts is not None:
            counts = flat[3 + len(self.datasets) :].view(self._counts.shape)
            self._routed = counts if self._routed is None else self._routed + counts
        logs: dict[str, float] = {
            "loss_lm": language,
            "loss_balance": balance,
            **({"loss_domain": domain} if domain else {}),
            "tokens_per_second": self._tokens / seconds,
            "samples_per_second": self._samples / seconds,
            "target_tokens_per_step": self._targets / steps,
        }
        for name, value in dataclasses.asdict(self._work.efficiency).items():
            logs[f"data/{name}"] = value
        for name, seen in zip(self.datasets, self.samples_seen.tolist(), strict=True):
            logs[f"samples/{name}"] = seen
        self._reset()
        return logs, counts

    def state(self) -> dict:
        """Totals since training began, as plain lists. Collective; the window goes on."""
        samples, counts = self._new_samples.to(self._device), self._counts
        if dist.is_initialized():
            samples = samples.clone()
            dist.all_reduce(samples)
            if counts is not None:
                counts = counts.clone()
                dist.all_reduce(counts)
        totals = (self.samples_seen + samples.cpu()).tolist()
        routed = [part.cpu() for part in (self._routed, counts) if part is not None]
        return {
            "samples_seen": dict(zip(self.datasets, totals, strict=True)),
            "tokens_routed": sum(routed).tolist() if routed else None,
        }

    def restore(self, state: dict) -> None:
        """Goes on from `state`."""
        self.samples_seen = torch.tensor([state["samples_seen"][name] for name in self.datasets])
        routed = state["tokens_routed"]
        self._routed = None if routed is None else torch.tensor(routed, dtype=torch.float64)


def routing_logs(counts: torch.Tensor, datasets: Sequence[str]) -> dict[str, float]:
    """Expert load per data set, and how differently the data sets use the experts.

    Args:
        counts: tokens per data set, layer and expert, (D, N, K).
        datasets: D names; those without tokens in the window are left out.

    Returns:
        Means over layers: ``routing/<name>/expert_<k>`` (share of tokens), ``/entropy`` (0: one
        expert takes all, 1: even) and ``/dead`` (share of experts without a token), the same for
        ``all``, and ``routing/jensen_shannon`` in bits.
    """
    logs: dict[str, float] = {}
    for name, load in [*zip(datasets, counts, strict=True), ("all", counts.sum(0))]:
        if not load.any():
            continue
        shares = load / load.sum(-1, keepdim=True).clamp(min=1)  # (N, K)
        for expert, share in enumerate(shares.mean(0).tolist()):
            logs[f"routing/{name}/expert_{expert}"] = share
        logs[f"routing/{name}/entropy"] = statistics.load_entropy(load).mean().item()
        logs[f"routing/{name}/dead"] = statistics.dead_expert_share(load).mean().item()
    logs["routing/jensen_shannon"] = statistics.jensen_shannon(counts).mean().item()
    return logs
