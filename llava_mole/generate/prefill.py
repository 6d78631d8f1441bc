"""Questions about the same image share its prefill: system prompt and image tokens run once.

An image comes first in its turn, so all that precedes a question, 576 of some 650 tokens at
LLaVA-1.5's size, is the same for every question about it. It goes through the model once per
image; its keys and values are then repeated for the questions, which follow it behind a padding
that is masked:

    image A | . . what shape is this? ASSISTANT:
    image A | is there a red circle? ASSISTANT:
    image B | . . . how many are there? ASSISTANT:

Positions are counted without the padding, as transformers does from the attention mask.
"""

import torch
from torch import nn
from transformers import DynamicCache

from llava_mole.generate.prompts import Prompts
from llava_mole.tuner import select_images


def shared_prefill(model: nn.Module, prompts: Prompts, image_token: int) -> dict:
    """What ``model.generate`` takes for ``prompts``, with the cache of the images' part filled.

    Args:
        model: a LLaVA, with or without adapter, in eval mode.
        prompts: on the model's device.
        image_token: id of ``<image>``.

    Returns:
        ``input_ids``, ``attention_mask`` (B, P + S), S the longest question, and
        ``past_key_values`` of the first P positions. Where nothing is shared, or the images do not
        stand at the same place in all prompts, the inputs as they are.
    """
    ids, mask = prompts.inputs["input_ids"], prompts.inputs["attention_mask"]
    images = prompts.image_of.tolist()
    if len(set(images)) == len(images) or min(images) < 0:
        return dict(prompts.repeated())
    length = ids.shape[1]
    is_image = ids == image_token
    # Behind the last image token of each row, and in front of the first token that is no padding.
    ends = length - is_image.flip(1).int().argmax(dim=1)
    starts = mask.argmax(dim=1)
    sizes = (ends - starts).tolist()
    if len(set(sizes)) > 1:
        return dict(prompts.repeated())
    size = sizes[0]
    prefixes = torch.stack(
        [row[start : start + size] for row, start in zip(ids, starts.tolist(), strict=True)]
    )
    distinct: dict[tuple, int] = {}
    owner = [
        distinct.setdefault((image, *prefix), len(distinct))
        for image, prefix in zip(images, prefixes.tolist(), strict=True)
    ]
    first = [owner.index(row) for row in range(len(distinct))]
    if len(distinct) == len(owner):
        return dict(prompts.repeated())

    cache = DynamicCache(config=model.config.get_text_config())
    with torch.inference_mode():
        model(
            input_ids=prefixes[first],
            attention_mask=torch.ones_like(prefixes[first]),
            pixel_values=prompts.inputs["pixel_values"][[images[row] for row in first]],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    rows = torch.tensor(owner, device=ids.device)
    cache.batch_select_indices(rows)
    select_images(cache, rows)

    # What follows the prefix ends at the last column already; where a row's is shorter, what stands
    # in front of it is masked.
    longest = length - int(ends.min())
    rest, rest_mask = ids[:, length - longest :], mask[:, length - longest :]
    follows = torch.arange(length - longest, length, device=ids.device)[None] >= ends[:, None]
    return {
        "input_ids": torch.cat([prefixes, rest], dim=1),
        "attention_mask": torch.cat([torch.ones_like(prefixes), rest_mask * follows], dim=1),
        "past_key_values": cache,
    }
