"""Where the images of a forward are, for routers that send a whole sequence by its image.

The decoder gets embeddings, in which an image's tokens look like any other; the model around it
still has the ids.
"""

import torch
from torch import nn

from llava_mole.mole import pool_images
from llava_mole.tuner.forwards import Forward
from llava_mole.tuner.hooks import named_arguments
from llava_mole.tuner.image_cache import Pooled, go_on, keep
from llava_mole.tuner.state import RoutingState


def image_tokens_of(model: nn.Module) -> tuple[int, ...]:
    """The ids of a model's image and video tokens; empty if it reads neither."""
    config = getattr(model, "config", None)
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    ids = (getattr(config, name, None) for name in names)
    return tuple(dict.fromkeys(id for id in ids if id is not None))


class ImageHooks:
    """Sees the ids that enter a model and pools what its images became in front of the decoder.

    The decoder stack's come after `llava_mole.tuner.hooks.StackHook`, which reads its sequences.

    Args:
        state: its `forwards` is told.
        image_tokens: ids of image and video tokens.
    """

    def __init__(self, state: RoutingState, image_tokens: tuple[int, ...]):
        self.state = state
        self.image_tokens = image_tokens
        self._token_ids: torch.Tensor | None = None

    def before_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook of the whole model."""
        self._token_ids = named_arguments(module, args, kwargs).get("input_ids")

    def before_stack(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook of the decoder stack."""
        token_ids, self._token_ids = self._token_ids, None  # this forward's alone
        rows = self.state.ids.clamp(min=0)
        try:
            pooled = self._pool(token_ids, named_arguments(module, args, kwargs))
            forward = Forward(rows, pooled)
        except LookupError as error:
            # Said to whoever asks for them: with the adapter disabled nobody does.
            forward = Forward(rows, None, str(error))
        self.state.forwards.begin(forward)

    def before_attention(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook of every layer's attention."""
        self.state.forwards.enter_attention(kwargs.get("position_embeddings"))

    def after_stack(self, module: nn.Module, args: tuple, output: object) -> None:
        """A forward hook of the decoder stack."""
        ended = self.state.forwards.end()
        if ended is not None and ended.pooled is not None:
            keep(ended.pooled, getattr(output, "past_key_values", None))

    def _pool(self, token_ids: torch.Tensor | None, arguments: dict) -> Pooled:
        embeddings, cache = arguments.get("inputs_embeds"), arguments.get("past_key_values")
        if embeddings is None:
            raise LookupError("this model's decoder reads ids, its images enter elsewhere")
        ids, num_sequences = self.state.ids.view(embeddings.shape[:2]), self.state.num_sequences
        is_image = None
        if token_ids is not None and token_ids.shape == ids.shape:
            is_image = self._is_image(token_ids.to(ids.device)) & (ids >= 0)
        if cache is not None and cache.get_seq_length() > 0:
            return go_on(cache, ids, num_sequences, is_image)
        if is_image is None:
            raise LookupError(
                "the routers find an image by its tokens; call the whole model, with input_ids "
                "(and pixel_values), not with inputs_embeds alone"
            )
        ids = ids.flatten()
        flat = embeddings.flatten(0, 1)
        begun = torch.zeros(num_sequences + 1, dtype=torch.bool, device=ids.device)
        begun[ids] = True  # padding is -1, the entry too many
        return Pooled(pool_images(flat, is_image.flatten(), ids, num_sequences), begun[:-1])

    def _is_image(self, token_ids: torch.Tensor) -> torch.Tensor:
        found = torch.zeros_like(token_ids, dtype=torch.bool)
        for image_token in self.image_tokens:
            found |= token_ids == image_token
        return found
