"""Teaching a router which domain it looks at: what the balance loss alone does not do."""

import torch


def experts_of_domains(num_domains: int, num_experts: int) -> torch.Tensor:
    """``(M, K)`` bool: the experts that are each domain's own.

    Expert k is of domain k mod M. With fewer experts than domains, domain m shares expert m mod K.
    """
    domains, experts = torch.arange(num_domains), torch.arange(num_experts)
    if num_experts >= num_domains:
        return experts[None] % num_domains == domains[:, None]
    return experts[None] == domains[:, None] % num_experts


def domain_loss(
    probs: torch.Tensor, lengths: torch.Tensor, domains: torch.Tensor, num_domains: int
) -> torch.Tensor:
    """Cross-entropy of the routers' probabilities against the sequences' domains.

    With ``P̄`` the mean probability of a sequence's tokens and E(m) the experts of its domain m,
    ``-log sum_{k in E(m)} P̄_k``, averaged over layers. Within a domain nothing is asked of the
    experts. Domain labels as experts' supervision: DEMix layers (Gururangan et al., 2021), where
    the label chooses; here the router learns to, so that none is needed to generate.

    Args:
        probs: ``(N, S, K)`` summed probabilities (Eq. 8) per layer, sequence and expert.
        lengths: ``(S,)`` tokens per sequence, padding excluded. Empty sequences add nothing.
        domains: ``(S,)`` int64 in [0, M), each sequence's domain.
        num_domains: M.

    Returns:
        Scalar, the **sum** over sequences, so that it adds up over micro-batches and ranks; the
        caller divides by the number of sequences.
    """
    own = experts_of_domains(num_domains, probs.shape[-1]).to(probs.device)
    mean = probs / lengths.clamp(min=1)[:, None]
    share = (mean * own[domains]).sum(-1)  # (N, S)
    loss = -share.clamp(min=torch.finfo(share.dtype).tiny).log()
    return (loss * (lengths > 0)).sum(-1).mean()
