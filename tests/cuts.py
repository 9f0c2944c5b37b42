"""Cutting text or bytes at arbitrary places, as a network would."""

from itertools import pairwise
from typing import TypeVar

_Sliced = TypeVar("_Sliced", str, bytes)


def cut(whole: _Sliced, places: list[int]) -> list[_Sliced]:
    """The pieces of `whole`; any numbers will do as places."""
    edges = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[begin:end] for begin, end in pairwise(edges)]
