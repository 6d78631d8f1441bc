"""What one forward leaves behind: counts and probabilities of every FFN, for loss and logs."""

from typing import NamedTuple

import torch

from llava_mole.mole import GlobalCounts, Route, balance_loss, sum_by_sequence
from llava_mole.tuner.config import MoleConfig
from llava_mole.tuner.forwards import Forwards


class Routing(NamedTuple):
    """How the last forward routed its tokens.

    Attributes:
        counts: ``(N, S, K)`` float32, tokens per layer, sequence and expert (with dense routing,
            tokens whose weight is largest there); no gradient.
        probs: ``(N, S, K)`` summed probabilities (Eq. 8) in the routers' dtype, with gradient.
        lengths: ``(S,)`` float32, tokens per sequence, padding excluded.
    """

    counts: torch.Tensor
    probs: torch.Tensor
    lengths: torch.Tensor


class RoutingState:
    """Shared by all MoLE layers of a model; filled between the decoder stack's two hooks.

    A forward leaves the routes themselves; they are summed when somebody asks, so that a decode
    step, after which nobody does, pays nothing. Records are taken only while the stack runs: when
    gradient checkpointing runs a layer again during backward, the first ones, which the loss was
    made from, stay.
    """

    def __init__(self):
        self.configs: dict[str, MoleConfig] = {}
        self.global_counts: dict[str, GlobalCounts] = {}
        self.forwards = Forwards()
        self._clear()

    def _clear(self) -> None:
        self.ids: torch.Tensor | None = None
        self.num_sequences = 0
        self.recording = False
        self.grad_enabled = False
        self.records: dict[str, dict[int, Route]] = {}
        self._routings: dict[str, Routing] = {}
        self._added: dict[str, torch.Tensor] = {}

    def __getstate__(self):
        # Records hold graphs, which can be neither copied nor pickled; a copy starts without any.
        return {"configs": self.configs}

    def __setstate__(self, state):
        self.__init__()
        self.configs = state["configs"]

    def begin(self, ids: torch.Tensor, num_sequences: int) -> None:
        """Starts a forward over tokens whose sequences are ``ids (B, L)``."""
        self._clear()
        self.ids = ids.flatten()
        self.num_sequences = num_sequences
        self.recording = True
        self.grad_enabled = torch.is_grad_enabled()

    def end(self) -> None:
        """Ends a forward; what was recorded stays until the next one."""
        self.recording = False

    def record(self, layer: int, adapter: str, route: Route) -> None:
        """Keeps how one FFN routed its tokens.

        Raises:
            ValueError: If gradient checkpointing is reentrant.
        """
        if not self.recording or len(self.ids) != len(route.choice):
            return  # run again for backward, or called by itself, outside its decoder
        if self.grad_enabled and not torch.is_grad_enabled():
            raise ValueError(
                "Gradient checkpointing with use_reentrant=True drops the balance loss's graph, so "
                "the router would not train. Call model.gradient_checkpointing_enable("
                "gradient_checkpointing_kwargs={'use_reentrant': False})."
            )
        self.records.setdefault(adapter, {})[layer] = route

    def routing(self, adapter: str | None = None) -> Routing:
        """Sums the records of one adapter, by default the only active one.

        Raises:
            ValueError: If nothing was recorded, or several adapters were and none is named.
        """
        if adapter is None and len(self.records) == 1:
            adapter = next(iter(self.records))
        if adapter not in self.records:
            raise ValueError(
                f"There is no routing of adapter {adapter!r}; recorded: {sorted(self.records)}. "
                "Run a forward with the adapter enabled first, and name one if several are active."
            )
        if adapter not in self._routings:
            # With the forward's graph, if it had one, whatever mode the asker is in.
            with torch.inference_mode(False), torch.set_grad_enabled(self.grad_enabled):
                self._routings[adapter] = self._sum(self.records[adapter])
        return self._routings[adapter]

    def _sum(self, layers: dict[int, Route]) -> Routing:
        routes = [layers[index] for index in sorted(layers)]
        device = routes[0].probs.device
        probs = torch.cat([route.probs.to(device) for route in routes], dim=1)  # (T, N*K)
        choice = torch.stack([route.choice.to(device) for route in routes], dim=1)
        N, K = len(routes), routes[0].probs.shape[1]
        chosen = torch.zeros(len(probs), N, K, device=device).scatter_(2, choice[:, :, None], 1)
        ids, S = self.ids.to(device), self.num_sequences
        counts, probs = (
            sum_by_sequence(values, ids, S).view(S, N, K).transpose(0, 1)
            for values in (chosen.flatten(1), probs)
        )
        return Routing(counts, probs, counts[0].sum(-1))

    def balance_loss(self, adapter: str, num_sequences: int | torch.Tensor | None) -> torch.Tensor:
        """One adapter's balance loss times its coefficient; see ``balance_loss_of``."""
        config = self.configs[adapter]
        counts, probs, lengths = self.routing(adapter)
        if config.routing == "dense":
            # All experts compute all tokens: c_j in Eq. 7 is constant, there is nothing to balance.
            return probs.sum() * 0.0
        total = None
        if config.balance_scope == "global_batch":
            total = self._global_counts(adapter, counts, probs.requires_grad)
        loss = balance_loss(
            counts, probs, lengths, config.balance_norm, config.balance_scope, total
        )
        here = (lengths > 0).sum()
        if config.balance_scope == "sequence":
            loss = loss / (here.clamp(min=1) if num_sequences is None else num_sequences)
        elif num_sequences is not None:
            loss = loss * here / num_sequences
        return config.balance_coef * loss

    def _global_counts(self, adapter: str, counts: torch.Tensor, training: bool) -> torch.Tensor:
        """``(N, K)`` counts of the global batch so far; a forward is counted once."""
        if not training:
            return counts.sum(1)  # no step to accumulate for, and no collective call
        if adapter not in self._added:
            buffer = self.global_counts.setdefault(adapter, GlobalCounts())
            self._added[adapter] = buffer.add(counts.sum(1))
        return self._added[adapter]

    def reset_global_counts(self) -> None:
        """Starts the next global batch."""
        for counts in self.global_counts.values():
            counts.reset()
