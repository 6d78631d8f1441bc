"""A tiny MoLE, records and a slow reference of its routing for this room's tests."""

import torch
from PIL import Image

from llava_mole.analysis.routing.grid import Grid
from llava_mole.analysis.routing.tracing import Trace
from llava_mole.analysis.sample import Token
from llava_mole.data.records import Record, Turn
from llava_mole.model.templates import VICUNA_SYSTEM, template_for
from llava_mole.tuner import MoleLayer
from tests import tiny

K = 3
P = tiny.NUM_IMAGE_TOKENS


def model():
    """Two layers, three experts, routers that send tokens to all of them."""
    return tiny.random_mole(tiny.tiny_llava())


def processor():
    """Its processor with our template."""
    tokenizer = tiny.tiny_tokenizer()
    return tiny.tiny_processor(template_for("vicuna_v1", tokenizer).jinja)


def record(*contents: str, images: int = 1, id: str = "r") -> Record:
    turns = [Turn(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    return Record(id, "", "", tuple(f"{n}.png" for n in range(images)), tuple(turns))


def write_images(folder, number: int = 2) -> None:
    for n in range(number):
        Image.new("RGB", (40 - 20 * n, 30), (90 * n, 200, 30)).save(folder / f"{n}.png")


def tokens_by_hand(contents, images: int) -> list[tuple[int, int]]:
    """(id, kind) of every token of a vicuna_v1 conversation: one token a byte, image at the front.

    Written a second time, from the conversation's words alone. Kinds: 0 image, 1 question,
    2 answer.
    """
    found = [(1, 1)]  # <s>

    def say(text, kind):
        ids = tiny.tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]
        assert len(ids) == len(text.encode())
        found.extend((id, kind) for id in ids)

    say(VICUNA_SYSTEM + " ", 1)
    for index, content in enumerate(contents):
        if index % 2:
            say("ASSISTANT:", 1)
            say(f" {content}", 2)
            found.append((2, 2))  # </s>
            continue
        say("USER: ", 1)
        if "<image>" in content:
            for _ in range(images):
                found.extend([(tiny.IMAGE_TOKEN_ID, 0)] * P)
                say("\n", 1)
            content = content.replace("<image>", "").strip()
        say(f"{content} ", 1)
    return found


def slow_choices(model, **inputs) -> torch.Tensor:
    """(N, B, L) experts: each router's scores by hand, from what its FFN was given, in float64."""
    layers = [m for m in model.modules() if isinstance(m, MoleLayer)]
    seen = []
    handles = [
        layer.register_forward_pre_hook(lambda m, args: seen.append((m, args[0].detach().double())))
        for layer in layers
    ]
    with torch.no_grad():
        model(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    found = []
    for layer, x in seen:
        weight = layer.mole_router["default"].weight.detach().double()
        rows = []
        for row in x:
            scores = [[float(sum(w * v)) for w in weight] for v in row]
            rows.append([score.index(max(score)) for score in scores])
        found.append(rows)
    return torch.tensor(found)


def trace(num_experts: int = 3, layers: int = 2, side: int = 3, size=(90, 60), text: str = "cat"):
    """A conversation with made-up experts: cell g of layer n goes to expert (n + g) % K."""
    tokens, position = [], 0
    words = [("<s>", "prompt"), ("see ", "prompt"), ("<image>", "image"), ("it\n", "prompt")]
    for name, kind in [*words, (text, "target"), ("</s>", "target")]:
        count = side * side if kind == "image" else 1
        tokens.append(Token(position, count, 5, name, name, 0, len(name), kind))
        position += count
    expert = torch.arange(layers)[:, None] + torch.arange(position) - 2
    return Trace(
        name="a.png",
        image=Image.new("RGB", size, (200, 100, 50)),
        fill=(10, 20, 30),
        grid=Grid(side, 1 / side),
        question="What?",
        answer=text,
        layers=tuple(range(layers)),
        num_experts=num_experts,
        tokens=tuple(tokens),
        expert=expert % num_experts,
        prob=torch.full((layers, position), 0.75),
    )
