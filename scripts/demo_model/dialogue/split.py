"""What training may see, decided by hash: no list to keep, the same on every machine.

Held out, each with probability one in ten: a way of saying one command (language, action,
values, sentence), a number for a slot, and a tool's spelling (its name with its parameters'
names). The words under `unseen room` are held out whole.
"""

from enum import Enum
from hashlib import blake2b


class Split(Enum):
    """Who a dialogue is written for; WIDE is training with many more words for rooms and tools."""

    TRAIN = "train"
    WIDE = "wide"
    HELD_OUT = "held-out"


def held_out(kind: str, *key: object) -> bool:
    """True for one key in ten of every kind."""
    digest = blake2b(repr((kind, *key)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 10 == 0
