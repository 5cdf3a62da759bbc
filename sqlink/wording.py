"""Numbers with their nouns in messages and captions: `1 point`, `2 points`."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return the number with its noun, in the plural unless the number is one.

    >>> counted(1, "block"), counted(0, "block")
    ('1 block', '0 blocks')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
