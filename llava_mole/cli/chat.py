"""examples:
  # talk with a trained run about an image (flags as LLaVA's serve.cli)
  llava-mole chat --model-path playground/runs/my_run --image-file picture.jpg

  # the language model has moved since training; load it in 4 bits
  llava-mole chat --model-path RUN --model-base /models/vicuna-7b-v1.5 --load-4bit

  # any LLaVA checkpoint in transformers' layout, one answer a line, the same each time
  printf 'What is this?\\nWhat colour is it?\\n' | \\
      llava-mole chat --model-path llava-hf/llava-1.5-7b-hf --image-file a.png --temperature 0

In the conversation: /image PATH starts a new one about that image, /reset a new one about the same
image, /history shows it, /exit (or end of input) leaves, /help lists these. Ctrl-C stops an answer.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

from llava_mole.cli.arguments import device_of, open_image
from llava_mole.model.config import CONV_MODES

HELP = "talk with a trained model about an image, in the terminal or through a pipe"

COMMANDS = """\
/image PATH   new conversation about the image at PATH
/reset        new conversation about the same image
/history      show the conversation
/help         show this list
/exit         leave (so does end of input)
Ctrl-C        stop the answer"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``llava-mole chat``."""
    parser.add_argument("--model-path", required=True, help="run directory, or a LLaVA checkpoint")
    parser.add_argument("--model-base", help="language model in place of the one the run names")
    parser.add_argument("--image-file", help="what the conversation is about (or /image later)")
    parser.add_argument(
        "--conv-mode",
        choices=CONV_MODES,
        help="template (default: the run's own; vicuna_v1 for a checkpoint)",
    )
    parser.add_argument(
        "--temperature", type=float, default=0.2, help="0 is greedy (default: %(default)s)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=512, help="longest answer (default: %(default)s)"
    )
    parser.add_argument("--load-4bit", action="store_true", help="language model in nf4")
    parser.add_argument("--load-8bit", action="store_true", help="language model in int8")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")


def run(args: argparse.Namespace) -> int:
    """Loads the model and converses until the input ends; returns the exit status."""
    if args.temperature < 0:
        raise ValueError(f"--temperature is {args.temperature}; it must be >= 0")
    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {args.max_new_tokens}; it must be >= 1")
    image = open_image(args.image_file, "--image-file") if args.image_file else None

    import torch

    import llava_mole  # noqa: F401  (registers MoLE with PEFT)
    from llava_mole.model.load import load_run

    model, processor = load_run(
        args.model_path,
        model_base=args.model_base,
        load_4bit=args.load_4bit,
        load_8bit=args.load_8bit,
        device=device_of(args.device),
        conv_mode=args.conv_mode,
    )
    torch.manual_seed(args.seed)
    chat = Chat(model, processor, args.temperature, args.max_new_tokens)
    chat.image = image
    if sys.stdin.isatty():
        print("Type /help for commands.")
    for line in _lines():
        if not chat.take(line):
            break
    return 0


class Chat:
    """A conversation about one image, fed line by line.

    Attributes:
        image: PIL image in RGB, or None.
        turns: what was said, ``{"role", "content"}``.
    """

    def __init__(self, model: Any, processor: Any, temperature: float, max_new_tokens: int):
        self.model = model
        self.processor = processor
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.image = None
        self.turns: list[dict[str, str]] = []

    def take(self, line: str) -> bool:
        """Does what one line of input says; False ends the program."""
        line = line.strip()
        command, _, rest = line.partition(" ")
        if command in ("/exit", "/quit"):
            return False
        if command == "/image":
            self._show(rest.strip())
        elif command == "/reset":
            self.turns = []
            print("(new conversation)")
        elif command == "/history":
            for turn in self.turns:
                print(f"{turn['role'].upper()}: {turn['content']}")
        elif command == "/help":
            print(COMMANDS)
        elif command.startswith("/") and command[1:].isalpha():
            print(f"(unknown command {command}; /help lists them)")
        elif line:
            self._say(line)
        return True

    def _show(self, path: str) -> None:
        if not path:
            print("(write /image PATH)")
            return
        try:
            self.image = open_image(path.strip("'\""), "/image")
        except (ValueError, OSError) as error:
            print(f"({error})")
            return
        self.turns = []
        width, height = self.image.size
        print(f"(new conversation about {path}, {width}x{height})")

    def _say(self, text: str) -> None:
        """One exchange; an answer that was stopped stays in the history as far as it came."""
        from llava_mole.generate import answer
        from llava_mole.model.templates import image_as_data

        question = {"role": "user", "content": image_as_data(text)}
        streamer = _streamer(self.processor.tokenizer, _write)
        _write("ASSISTANT: ")
        try:
            reply = answer(
                self.model,
                self.processor,
                self.image,
                [*self.turns, question],
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                streamer=streamer,
            )
        except KeyboardInterrupt:
            reply = "".join(streamer.written).strip()
            _write(" (stopped)")
        except ValueError as error:
            _write(f"({error} /reset starts a new conversation)\n")
            return
        _write("\n")
        if reply:
            self.turns += [question, {"role": "assistant", "content": reply}]


def _lines() -> Iterator[str]:
    """Lines typed or piped in, until their end."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            # A transcript that reads like the conversation on a terminal.
            _write(f"USER: {line.rstrip()}\n")
            yield line
        return
    try:
        import readline  # noqa: F401  (line editing and the arrow keys' history in input())
    except ImportError:
        print("(no line editing on this system)")
    while True:
        try:
            yield input("USER: ")
        except KeyboardInterrupt:
            print("\n(/exit leaves)")
        except EOFError:
            print()
            return


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _streamer(tokenizer: Any, write: Callable[[str], None]) -> Any:
    """A transformers streamer that writes an answer as it comes, and keeps it in ``written``."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        def __init__(self):
            super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.written: list[str] = []

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if not self.written:
                text = text.lstrip()
            if text:
                self.written.append(text)
                write(text)

    return Streamer()
