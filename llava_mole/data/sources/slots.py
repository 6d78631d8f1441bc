"""Image slots in texts that were not written with them in mind."""

from llava_mole.data.records import IMAGE_TOKEN


def as_text(text: str) -> str:
    """``text`` without slots: what looks like one is broken by a space, as templates do."""
    return text.replace(IMAGE_TOKEN, f"{IMAGE_TOKEN[0]} {IMAGE_TOKEN[1:]}")


def with_images(text: str, count: int) -> str:
    """``text`` with ``count`` slots.

    Slots that it has already stay where they are if their number is right. Otherwise they are text,
    and the images go in front, each on a line of its own.
    """
    if text.count(IMAGE_TOKEN) == count:
        return text
    return f"{IMAGE_TOKEN}\n" * count + as_text(text)
