"""LoRA dropout that is drawn again for the backward pass instead of kept."""

import torch


def draw_seeds(count: int) -> tuple[int, ...]:
    """Seeds of ``count`` masks, from torch's global generator.

    Seeding and activation checkpointing hold by that. It is the CPU's generator, so that the host
    need not wait for a device.
    """
    return tuple(torch.randint(2**62, (count,), device="cpu").tolist())


def drop(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """``x`` with each value zeroed with probability ``p``, the same ones for the same seed.

    The others are not scaled up: ``1 / (1 - p)`` belongs on the rank-r activations.
    """
    # Kept masks would take a byte for every input of every linear.
    generator = torch.Generator(x.device).manual_seed(seed)
    return torch.empty_like(x).bernoulli_(1 - p, generator=generator).mul_(x)
