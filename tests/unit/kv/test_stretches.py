"""The count of stretches is that of a cache that fills its cells one after the other."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv.stretches import Stretches

SEQUENCES = st.integers(0, 2)
ACTS = st.lists(
    st.tuples(st.just("fill"), SEQUENCES, st.integers(1, 6))
    | st.tuples(st.sampled_from(("share", "drop")), SEQUENCES, SEQUENCES, st.integers(0, 9), st.integers(0, 9))
    | st.tuples(st.just("close up")),
    max_size=40,
)


class Row:
    """Cells that are never filled twice, and who holds which of them."""

    def __init__(self) -> None:
        self.held: dict[int, dict[int, int]] = {one: {} for one in range(3)}  # sequence -> position -> cell
        self.next = 0

    @property
    def cells(self) -> list[int]:
        return sorted({cell for held in self.held.values() for cell in held.values()})

    @property
    def stretches(self) -> int:
        return len(self.cells) and 1 + sum(other - one > 1 for one, other in pairwise(self.cells))

    def length(self, sequence: int) -> int:
        return max(self.held[sequence], default=-1) + 1

    def close_up(self) -> None:
        place = {cell: at for at, cell in enumerate(self.cells)}
        self.held = {one: {at: place[cell] for at, cell in held.items()} for one, held in self.held.items()}
        self.next = len(place)


@given(ACTS)
def test_as_many_stretches_are_counted_as_there_are(acts):
    row, stretches = Row(), Stretches()
    for kind, *values in acts:
        if kind == "fill":
            sequence, count = values
            start = row.length(sequence)
            stretches.fill(sequence, start, start + count)
            row.held[sequence] |= {start + i: row.next + i for i in range(count)}
            row.next += count
        elif kind == "share" and values[0] != values[1]:
            source, target, *positions = values
            start, end = sorted(positions)
            for one in (target, target + 0):
                stretches.drop(one, start, end)
                row.held[one] = {at: cell for at, cell in row.held[one].items() if not start <= at < end}
            stretches.share(source, target, start, end)
            row.held[target] |= {at: cell for at, cell in row.held[source].items() if start <= at < end}
        elif kind == "drop":
            sequence, _, *positions = values
            start, end = sorted(positions)
            stretches.drop(sequence, start, end)
            row.held[sequence] = {at: cell for at, cell in row.held[sequence].items() if not start <= at < end}
        elif kind == "close up":
            row.close_up()
            stretches.close_up()
        assert stretches.count == row.stretches


def test_the_cells_of_one_stream_lie_scattered_when_the_other_has_ended_and_not_before():
    stretches = Stretches()
    for at in range(20):
        stretches.fill(0, at, at + 1)
        stretches.fill(1, at, at + 1)
    assert stretches.count == 1
    stretches.drop(1, 0, 20)
    assert stretches.count == 20
    stretches.close_up()
    assert stretches.count == 1
    stretches.drop(0, 0, 20)
    assert stretches.count == 0
