"""The weights that every arm computes with: one FFN, its experts and its router."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

GATE, UP, DOWN = LINEARS = ("gate_proj", "up_proj", "down_proj")
# Between the best two logits, so that no rounding swaps them.
_MARGIN = 1e-4
_SHIFT = 8.0


@dataclass(frozen=True)
class Weights:
    """One Llama FFN (SwiGLU) with K LoRA experts and a router.

    Attributes:
        base: name of a linear -> its frozen weight ``(out, in)``.
        A: name of a linear -> ``(K, r, in)``, in the dtype of the base.
        B: name of a linear -> ``(K, out, r)``, not zero, in the dtype of the base.
        router: ``(K, D)``, float32 (float64 for a float64 base).
        scaling: factor on the experts' output, ``lora_alpha / r``.
    """

    base: dict[str, nn.Parameter]
    A: dict[str, torch.Tensor]
    B: dict[str, torch.Tensor]
    router: torch.Tensor
    scaling: float = 2.0

    @classmethod
    def draw(
        cls,
        shape: tuple[int, int],
        num_experts: int,
        r: int,
        dtype: torch.dtype,
        device: str = "cpu",
        seed: int = 0,
    ) -> "Weights":
        """Random weights of scales that make base, experts and router all matter.

        Args:
            shape: width D and FFN width F.
            num_experts: K.
            r: rank of each expert.
            dtype: of base and experts.
            device: of all.
            seed: of everything drawn.
        """
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*size: int, std: float, dtype: torch.dtype = dtype) -> torch.Tensor:
            tensor = torch.empty(size, dtype=dtype, device=device)
            return tensor.normal_(std=std, generator=generator)

        D, F = shape
        sizes = {GATE: (F, D), UP: (F, D), DOWN: (D, F)}
        base, A, B = {}, {}, {}
        for name, (d_out, d_in) in sizes.items():
            weight = normal(d_out, d_in, std=d_in**-0.5)
            base[name] = nn.Parameter(weight, requires_grad=False)
            A[name] = normal(num_experts, r, d_in, std=d_in**-0.5)
            B[name] = normal(num_experts, d_out, r, std=0.3 * r**-0.5)
        wide = torch.promote_types(dtype, torch.float32)
        return cls(base, A, B, normal(num_experts, D, std=0.5 * D**-0.5, dtype=wide))

    @property
    def num_experts(self) -> int:
        """K."""
        return len(self.router)

    @property
    def r(self) -> int:
        """Rank of each expert."""
        return self.A[GATE].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of base and experts."""
        return self.base[GATE].dtype

    def leaf(self, name: str) -> torch.Tensor:
        """What is trained: ``router``, or ``LINEAR.A`` or ``LINEAR.B`` for every linear."""
        linear, _, part = name.partition(".")
        return self.router if name == "router" else getattr(self, part)[linear]

    def first(self, num_experts: int) -> "Weights":
        """The same FFN with the first experts alone."""
        return dataclasses.replace(
            self,
            A={name: a[:num_experts] for name, a in self.A.items()},
            B={name: b[:num_experts] for name, b in self.B.items()},
            router=self.router[:num_experts],
        )

    def steered(self, expert: int, towards: bool) -> "Weights":
        """The same with a router that sends all tokens to one expert, or none.

        Holds for tokens of `tokens`, whose first feature is one.
        """
        router = self.router.clone()
        router[expert, 0] += _SHIFT if towards else -_SHIFT
        return dataclasses.replace(self, router=router)

    def ffn(self) -> LlamaMLP:
        """transformers' FFN on the base weights, which are shared with every other one."""
        d_out, d_in = self.base[GATE].shape
        # One head: LlamaConfig's 32 would have to divide the width, though there is no attention.
        config = LlamaConfig(hidden_size=d_in, intermediate_size=d_out, num_attention_heads=1)
        with torch.device("meta"):
            mlp = LlamaMLP(config)
        for name, weight in self.base.items():
            getattr(mlp, name).weight = weight
        return mlp

    def tokens(self, count: int, seed: int = 1) -> torch.Tensor:
        """Inputs ``(1, count, D)`` whose experts are beyond doubt, however many experts there are.

        Two experts that tie but for rounding would make arms differ that compute the same.
        """
        generator = torch.Generator(self.router.device).manual_seed(seed)
        x = torch.empty(count, self.router.shape[1], dtype=self.dtype, device=self.router.device)
        doubtful = torch.ones(count, dtype=torch.bool, device=x.device)
        while doubtful.any():
            drawn = torch.empty_like(x[doubtful]).normal_(generator=generator)
            drawn[:, 0] = 1
            x[doubtful] = drawn
            doubtful = self._margin(x) < _MARGIN
        return x[None]

    def _margin(self, x: torch.Tensor) -> torch.Tensor:
        """``(T,)`` how far the two best experts' logits are apart, at the least, for any K."""
        logits = x.double() @ self.router.double().t()
        margin = torch.full_like(logits[:, 0], torch.inf)
        for k in range(2, self.num_experts + 1):
            best = logits[:, :k].topk(2).values
            margin = torch.minimum(margin, best[:, 0] - best[:, 1])
        return margin
