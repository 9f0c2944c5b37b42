"""Cells are thought to lie where a cache puts them that always takes the first that is free."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv.layout import Layout

SIZE = 60
SEQUENCES = st.integers(0, 2)
POSITIONS = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
ACTS = st.lists(
    st.tuples(st.just("fill"), SEQUENCES, st.integers(1, 6))
    | st.tuples(st.sampled_from(("share", "drop")), SEQUENCES, SEQUENCES, POSITIONS)
    | st.tuples(st.just("close up")),
    max_size=40,
)


class Row:
    """Who holds which of the cells."""

    def __init__(self) -> None:
        self.held: dict[int, dict[int, int]] = {one: {} for one in range(3)}  # sequence -> position -> cell

    @property
    def cells(self) -> list[int]:
        return sorted({cell for held in self.held.values() for cell in held.values()})

    @property
    def end(self) -> int:
        return max(self.cells, default=-1) + 1

    @property
    def stretches(self) -> int:
        return len(self.cells) and 1 + sum(other - one > 1 for one, other in pairwise(self.cells))

    def length(self, sequence: int) -> int:
        return max(self.held[sequence], default=-1) + 1

    def fill(self, sequence: int, start: int, end: int) -> None:
        free = (cell for cell in range(SIZE) if cell not in self.cells)
        self.held[sequence] |= dict(zip(range(start, end), list(free), strict=False))

    def share(self, source: int, target: int, start: int, end: int) -> None:
        self.held[target] |= {at: cell for at, cell in self.held[source].items() if start <= at < end}

    def drop(self, sequence: int, start: int, end: int) -> None:
        self.held[sequence] = {at: cell for at, cell in self.held[sequence].items() if not start <= at < end}

    def close_up(self) -> None:
        place = {cell: at for at, cell in enumerate(self.cells)}
        self.held = {one: {at: place[cell] for at, cell in held.items()} for one, held in self.held.items()}


def calls(row: Row, kind: str, values: list) -> list[tuple]:
    if kind == "fill":
        sequence, count = values
        start = row.length(sequence)
        room = SIZE - max(start, len(row.cells))
        return [("fill", sequence, start, start + count)] if count <= room else []
    if kind == "close up":
        return [("close_up",)]
    source, target, positions = values
    share = [("share", source, target, *positions)] if kind == "share" and source != target else []
    return [("drop", target, *positions), *share]  # nobody is given what it holds already


@given(ACTS)
def test_the_stretches_and_the_end_of_what_is_held_are_those_of_such_a_cache(acts):
    row, layout = Row(), Layout(3, SIZE)
    for kind, *values in acts:
        for name, *arguments in calls(row, kind, values):
            for one in (row, layout):
                getattr(one, name)(*arguments)
        assert (layout.stretches, layout.end) == (row.stretches, row.end)


def test_the_cells_of_one_stream_lie_scattered_when_the_other_has_ended():
    layout = Layout(2, SIZE)
    for at in range(20):
        layout.fill(0, at, at + 1)
        layout.fill(1, at, at + 1)
    assert (layout.stretches, layout.end) == (1, 40)
    layout.drop(1, 0, 20)
    assert (layout.stretches, layout.end) == (20, 39)
    layout.close_up()
    assert (layout.stretches, layout.end) == (1, 20)
    layout.drop(0, 0, 20)
    assert (layout.stretches, layout.end) == (0, 0)


def test_all_that_a_sequence_holds_is_shared_and_dropped_without_knowing_how_much():
    layout = Layout(2, SIZE)
    layout.fill(0, 0, SIZE)
    layout.share(0, 1, 10, -1)
    layout.drop(0, 0, -1)
    assert (layout.stretches, layout.end) == (1, SIZE)
    layout.drop(1, 0, -1)
    assert layout.end == 0


def test_no_cell_is_lost_where_others_are_given_for_those_that_are_held():
    layout = Layout(2, SIZE)
    for _ in range(SIZE):
        layout.fill(0, 0, 10)
        layout.fill(1, 0, 10)
        layout.share(0, 1, 0, 10)
    assert layout.end <= 20
