"""What token lengths depend on, as one digest: lengths and audits are kept under it."""

import hashlib
import json
from typing import Any

from llava_mole.data.records import IMAGE_TOKEN

# Raise when the same tokenizer and template would give other ids, labels or refusals than before:
# lengths and audits that were kept are then made anew.
RULES = 1

# What a template makes of this tells its code apart from another version's with the same fields.
_PROBE = (
    ("user", f"{IMAGE_TOKEN}\nWhat? </s> <s>"),
    ("assistant", f" An {IMAGE_TOKEN} </s>\n"),
    ("user", f"{IMAGE_TOKEN} {IMAGE_TOKEN}And? "),
    ("assistant", "That <unk> too."),
)


def fingerprint(tokenizer: Any, template: Any, num_image_tokens: int) -> str:
    """Hex digest of a fast tokenizer, a template and P, the same in every process and session.

    Args:
        tokenizer: a fast tokenizer.
        template: see `Template`; its ``repr`` counts, and what it makes of a conversation.
        num_image_tokens: P, tokens an image takes.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Left over from the last call with padding or truncation; encoding sets both aside.
    backend.pop("padding", None)
    backend.pop("truncation", None)
    turns = [{"role": role, "content": content} for role, content in _PROBE]
    settings = [
        RULES,
        backend,
        bool(tokenizer.split_special_tokens),
        repr(template),
        [(span.text, span.is_target) for span in template.spans(turns)],
        num_image_tokens,
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
