"""The prefix tree holds what its sequences hold, each shared beginning once, whatever is inserted and cut."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv.radix import Radix, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=12)
steps = st.lists(
    st.tuples(st.just("insert"), st.integers(0, 4), tokens) | st.tuples(st.just("cut"), st.integers(0, 4), tokens),
    max_size=25,
)


@given(tokens, tokens)
def test_the_common_prefix_is_the_longest(one, other):
    length = common_prefix(one, other)
    assert one[:length] == other[:length]
    assert length in (len(one), len(other)) or one[length] != other[length]


@given(steps, tokens)
def test_the_tree_holds_what_was_put_in_and_not_taken_out(plan, asked):
    tree, held = Radix(), dict[int, list[int]]()
    for kind, sequence, values in plan:
        if kind == "insert":
            held[sequence] = held.get(sequence, []) + values
            tree.insert(sequence, held[sequence])
        else:
            held[sequence] = held.get(sequence, [])[: len(values)]
            tree.cut(sequence, len(values))
    beginnings = {tuple(values[:length]) for values in held.values() for length in range(1, len(values) + 1)}
    assert tree.cells == len(beginnings)
    for sequence, values in held.items():
        assert (sequence in tree) == bool(values)
        assert tree.length(sequence) == len(values)
        assert [token for node in reversed([*tree.path(sequence)]) for token in node.tokens] == values
    length, holder = tree.match(asked)
    assert length == max((common_prefix(asked, values) for values in held.values()), default=0)
    assert (holder is None) == (length == 0)
    assert holder is None or held[holder][:length] == asked[:length]


@given(steps)
def test_a_stretch_after_which_nothing_comes_is_held_by_those_that_end_there(plan):
    tree, held = Radix(), dict[int, list[int]]()
    for _, sequence, values in plan:
        held[sequence] = held.get(sequence, []) + values
        tree.insert(sequence, held[sequence])
    for node in tree.nodes():
        assert set(tree.ends_in(node)) <= node.sequences
        assert node.children or set(tree.ends_in(node)) == node.sequences
