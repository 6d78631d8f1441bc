"""What image routers read, against a loop over tokens in float64."""

import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import pool_images

D = 6


def slow(embeddings, is_image, ids, num_sequences):
    rows = []
    for sequence in range(num_sequences):
        own = [t for t in range(len(ids)) if ids[t] == sequence]
        read = [t for t in own if is_image[t]] or own[:1]
        if not read:
            rows.append(torch.zeros(D, dtype=torch.float64))
            continue
        mean = sum(embeddings[t] for t in read) / len(read)
        rows.append(mean / (mean.square().sum() / D).sqrt())
    return torch.stack(rows)


LAYOUTS = {
    "one image each": ([0] * 5 + [1] * 5, [1, 2, 3, 6, 7]),
    "padding on the left": ([0] * 5 + [-1] * 2 + [1] * 3, [1, 2, 8]),
    "padding on the right": ([0] * 3 + [-1] * 2 + [1] * 5, [1, 6, 7]),
    "an image's token among the padding": ([0] * 5 + [-1] * 2 + [1] * 3, [1, 5, 8]),
    "text beside an image": ([0] * 5 + [1] * 5, [6, 7, 9]),
    "text alone, behind padding": ([-1] * 3 + [0] * 2 + [1] * 5, []),
    "packed": ([0] * 2 + [1] * 4 + [2] * 4, [1, 3, 4, 9]),
    "two images in a sequence": ([0] * 10, [1, 2, 6, 7, 8]),
    "a sequence without tokens": ([0] * 4 + [2] * 6, [2, 5]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_loop(layout, dtype):
    sequence_of, images = LAYOUTS[layout]
    ids = torch.tensor(sequence_of)
    S = int(ids.max()) + 1
    is_image = torch.zeros(len(ids), dtype=torch.bool)
    is_image[images] = True
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(ids), D, generator=generator).to(dtype).requires_grad_()
    weights = torch.randn(S, D, generator=generator, dtype=torch.float64)
    exact = embeddings.detach().double().requires_grad_()
    expected = slow(exact, is_image, ids, S)
    (expected * weights).sum().backward()

    actual = pool_images(embeddings, is_image, ids, S)
    (actual.double() * weights).sum().backward()
    assert actual.dtype == torch.promote_types(dtype, torch.float32)
    tolerance = {torch.float64: 1e-7, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)
    assert_close(embeddings.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_is_exact_under_autocast():
    ids, is_image = torch.zeros(4, dtype=torch.long), torch.tensor([False, True, True, False])
    embeddings = torch.randn(4, D, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        actual = pool_images(embeddings, is_image, ids, 1)
    assert torch.equal(actual, pool_images(embeddings, is_image, ids, 1))


def test_what_follows_the_prompt_changes_nothing():
    ids = torch.tensor([0] * 4 + [1] * 4)
    is_image = torch.zeros(8, dtype=torch.bool)
    is_image[1:3] = True
    embeddings = torch.randn(8, D, generator=torch.Generator().manual_seed(1))
    other = embeddings.clone()
    other[3] += 1  # behind the image
    other[5:] += 1  # behind a text's first token
    before, after = (pool_images(e, is_image, ids, 2) for e in (embeddings, other))
    assert torch.equal(before, after)
