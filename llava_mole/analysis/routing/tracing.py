"""One image, one question and the model's answer: the expert of every token, layer by layer."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from llava_mole.analysis.routing.choices import Choices, choices_of, experts_of, layers_of
from llava_mole.analysis.routing.grid import Grid, Square, grid_of
from llava_mole.analysis.routing.samples import KINDS, encoder_of
from llava_mole.analysis.sample import Token, tokens_of
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.records import IMAGE_TOKEN, Record, Turn
from llava_mole.generate import answer
from llava_mole.model.templates import image_as_data

_KIND = {"image": 0, "prompt": 1, "target": 2}


@dataclass(frozen=True)
class Trace:
    """How one conversation was routed. N MoLE layers, L tokens, P image tokens, K experts.

    Attributes:
        name: of the image.
        image: RGB.
        fill: colour that pads it to a square.
        grid: of the image's tokens, None where they form no square.
        question: what was asked.
        answer: what the model said, greedily.
        layers: the decoder layers that have experts.
        num_experts: K.
        tokens: the sequence; the image is one of these and stands for P ids.
        expert: (N, L) int64, the chosen experts.
        prob: (N, L) float32, their probabilities.
    """

    name: str
    image: Image.Image
    fill: tuple[int, int, int]
    grid: Grid | None
    question: str
    answer: str
    layers: tuple[int, ...]
    num_experts: int
    tokens: tuple[Token, ...]
    expert: torch.Tensor
    prob: torch.Tensor

    @property
    def square(self) -> Square:
        """The image's place on its padded square."""
        return Square(*self.image.size)

    @property
    def image_positions(self) -> slice:
        """Of the image's ids in the sequence."""
        token = next(token for token in self.tokens if token.kind == "image")
        return slice(token.position, token.position + token.count)

    @property
    def words(self) -> list[Token]:
        """The tokens of text."""
        return [token for token in self.tokens if token.kind != "image"]

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """Names of the sequence's parts to (L,) bool; the image's cells apart from its padding."""
        kinds = torch.tensor([_KIND[t.kind] for t in self.tokens for _ in range(t.count)])
        parts = {kind: kinds == place for place, kind in enumerate(KINDS)}
        if self.grid is None:
            return parts
        on_image = parts["image"].clone()
        on_image[self.image_positions] = self.square.covered(self.grid).flatten()
        padding = parts["image"] & ~on_image
        found = {"image": on_image}
        if padding.any():
            found["padding"] = padding
        return found | {kind: parts[kind] for kind in KINDS[1:]}

    def counts(self, part: str) -> torch.Tensor:
        """(N, K) int64, tokens of a part by layer and expert."""
        chosen = self.expert[:, self.parts[part]]
        return torch.stack([(chosen == k).sum(1) for k in range(self.num_experts)], dim=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        patches = self.expert[:, self.image_positions]
        side = None if self.grid is None else self.grid.side
        return {
            "image": self.name,
            "question": self.question,
            "answer": self.answer,
            "layers": list(self.layers),
            "num_experts": self.num_experts,
            "grid": side,
            "patches": (patches if side is None else patches.unflatten(1, (side, side))).tolist(),
            "tokens": [
                {
                    "text": token.text or token.name,
                    "kind": KINDS[_KIND[token.kind]],
                    "experts": self.expert[:, token.position].tolist(),
                }
                for token in self.words
            ],
            "counts": {part: self.counts(part).tolist() for part in self.parts},
        }


@torch.inference_mode()
def trace(
    model: nn.Module,
    processor: Any,
    image: Image.Image,
    question: str,
    name: str = "",
    max_new_tokens: int = 128,
) -> Trace:
    """Asks ``question`` about ``image`` and routes question and answer in one forward.

    The answer's tokens are routed as they were when it was written, for each sees only those before
    it. Its text is tokenised again for that, which nearly always gives the tokens it was written
    in, and ends with the token that ends a turn, whether or not the answer had room for it.

    Args:
        model: with one active MoLE adapter, in eval mode.
        processor: its LLaVA processor.
        image: RGB.
        question: text.
        name: of the image, to show.
        max_new_tokens: the longest answer.

    Raises:
        ValueError: no MoLE layer, an empty question, or a conversation longer than the context.
    """
    layers, num_experts = layers_of(model), experts_of(model)
    encoder = encoder_of(processor)
    asked = f"{IMAGE_TOKEN}\n{image_as_data(question)}"
    said = answer(
        model,
        processor,
        image,
        [{"role": "user", "content": asked}],
        max_new_tokens=max_new_tokens,
    )
    # A record must have an answer: where the model said nothing, one stands in and is cut off, and
    # what a template writes behind an answer is never read.
    record = Record(
        name, "", "", (name or "image",), (Turn("user", asked), Turn("assistant", said or "."))
    )
    encoded = encoder(record)
    tokens = tokens_of(record, encoded, encoder)
    targets = [place for place, token in enumerate(tokens) if token.kind == "target"]
    tokens = tokens[: targets[-1] + 1 if said else targets[0]]
    length = sum(token.count for token in tokens)
    ids = encoded.input_ids[None, :length].to(next(model.parameters()).device)
    pixels = ProcessorPixels(processor.image_processor)(image)[None].to(ids.device)
    model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pixels,
        logits_to_keep=1,
        use_cache=False,
    )
    choices: Choices = choices_of(model, (1, length))
    mean = processor.image_processor.image_mean
    return Trace(
        name=name,
        image=image,
        fill=tuple(int(value * 255) for value in mean),
        grid=grid_of(encoder.num_image_tokens, processor),
        question=question,
        answer=said,
        layers=layers,
        num_experts=num_experts,
        tokens=tokens,
        expert=choices.expert[:, 0],
        prob=choices.prob[:, 0],
    )
