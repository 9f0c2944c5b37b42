"""The training stream: scenes, their dialogues, their samples, packed into rows. Endless, and fixed by its seed."""

import re
from collections.abc import Iterator
from functools import lru_cache
from random import Random

from tokenizers import Tokenizer

from .dialogue.dialogues import write_dialogue
from .dialogue.scene import draw_scene
from .dialogue.split import Split
from .dialogue.words import LANGS
from .samples import Sample, samples_of
from .tokenizer import ADDED
from .tree import Tree, grow

_MARKS = re.compile("|".join(map(re.escape, ADDED)))
_TURN = "<|im_start|>"


class Encoder:
    """Text to token ids. Turns come again and again in the samples of a row, so they are remembered."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._turn = lru_cache(maxsize=256)(lambda text: tokenizer.encode(text).ids)

    def __call__(self, text: str) -> list[int]:
        first, *turns = text.split(_TURN)
        ids = list(self._turn(first)) if first else []
        for turn in turns:
            ids += self._turn(_TURN + turn)
        return ids


def scenes(seed: int, most_tools: int = 3, wide: float = 0.0, dialogues: int = 2) -> Iterator[list[Sample]]:
    """The samples of one scene after another, a share of them wide."""
    rng = Random(seed)
    while True:
        split = Split.WIDE if wide and rng.random() < wide else Split.TRAIN
        scene = draw_scene(rng, split, most_tools)
        yield [
            sample
            for _ in range(dialogues)
            for sample in samples_of(rng, write_dialogue(rng, scene, rng.choice(LANGS)))
        ]


def plain_texts(seed: int, count: int) -> Iterator[str]:
    """What the tokenizer is trained on: the text between the added tokens."""
    for samples, _ in zip(scenes(seed), range(count), strict=False):
        for sample in samples:
            yield from _MARKS.split(sample.prompt + sample.target)


def trees(seed: int, encode: Encoder, most_tools: int = 3, wide: float = 0.0, longest: int = 1280) -> Iterator[Tree]:
    """One tree a scene; the rare one that is too long loses its last samples."""
    for samples in scenes(seed, most_tools, wide):
        pairs = [(encode(sample.prompt), encode(sample.target)) for sample in samples]
        while pairs:
            tree = grow((prompt + target, len(prompt)) for prompt, target in pairs)
            if len(tree.tokens) <= longest:
                yield tree
                break
            pairs.pop()


def mixed(main: Iterator[Tree], other: Iterator[Tree], every: int) -> Iterator[Tree]:
    """The main stream with one tree of the other after so many of its own."""
    for number, tree in enumerate(main, 1):
        yield tree
        if number % every == 0:
            yield next(other)
