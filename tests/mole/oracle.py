"""The method written token by token in float64: slow, and independent of the package."""

import torch


def experts(x, A, B, choice, gate, scaling):
    """Eq. 4-5 for one linear: one token after the other."""
    rows = []
    for t in range(len(x)):
        k = int(choice[t])
        rows.append(gate[t] * scaling * (B[k] @ (A[k] @ x[t])))
    return torch.stack(rows)


def dense_experts(x, A, B, probs, scaling):
    """Table 5's dense mixture: every expert, weighted by its probability."""
    rows = []
    for t in range(len(x)):
        row = 0
        for k in range(len(A)):
            row = row + probs[t, k] * scaling * (B[k] @ (A[k] @ x[t]))
        rows.append(row)
    return torch.stack(rows)


def softmax(logits):
    exponentials = [torch.exp(value) for value in logits]
    total = sum(exponentials)
    return torch.stack([value / total for value in exponentials])


def first_argmax(values):
    best = 0
    for k in range(len(values)):
        if values[k] > values[best]:
            best = k
    return best


def gate_values(probs, choice, gate_scaling):
    """The factor on each token's expert; the straight-through one has the gradient of p_k."""
    gates = []
    for t in range(len(choice)):
        p = probs[t, choice[t]]
        if gate_scaling == "none":
            gates.append(torch.ones((), dtype=p.dtype))
        elif gate_scaling == "prob":
            gates.append(p)
        else:
            gates.append(p - float(p.detach()) + 1.0)
    return gates


def balance(choices, probs, ids, K, norm, scope):
    """Eq. 7-8 by loops; choices: N lists of T, probs: N (T, K), ids: list of T, -1 on pads."""
    N, T = len(choices), len(ids)
    if scope == "sequence":
        groups = [[t for t in range(T) if ids[t] == s] for s in sorted(set(ids) - {-1})]
    else:
        groups = [[t for t in range(T) if ids[t] >= 0]]
    total = 0
    for tokens in groups:
        L = len(tokens)
        count = [[0] * K for _ in range(N)]
        mass = [[0] * K for _ in range(N)]
        for n in range(N):
            for t in tokens:
                count[n][choices[n][t]] += 1
                for j in range(K):
                    mass[n][j] = mass[n][j] + probs[n][t, j]
        for j in range(K):
            if norm == "authors":
                load = sum(count[n][j] / L for n in range(N)) / N
                total = total + load * sum(mass[n][j] / L for n in range(N)) / N
            else:
                for n in range(N):
                    term = count[n][j] * mass[n][j]
                    if norm == "switch":
                        term = term * K / L**2
                    total = total + term / N
    return total
