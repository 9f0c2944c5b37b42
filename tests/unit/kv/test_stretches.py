"""What many copies are of is held once, compared token by token, and forgotten when no copy needs it."""

import random

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.kv.host_tier import Copy, HostTier, Replaced
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import common_prefix
from qwen_edge.kv.stretches import Stretch, StretchTree
from qwen_edge.protocol.messages import Caller

texts = st.lists(st.integers(0, 2), min_size=1, max_size=12)
plans = st.lists(st.tuples(st.sampled_from(("hold", "hold", "hold before", "release")), texts, st.integers(0, 12)))


def held_tokens(tree: StretchTree) -> int:
    return sum(len(stretch.tokens) for stretch in tree.in_common([]))


@given(plans, texts)
def test_the_tree_holds_every_beginning_once_and_tells_exactly_what_is_in_common(plan, asked):
    tree, held = StretchTree(), list[tuple[Stretch, list[int]]]()
    released = list[tuple[Stretch, list[int]]]()
    for kind, tokens, number in plan:
        if kind == "hold":
            held.append((tree.hold(tokens), tokens))
        elif kind == "hold before" and held:
            stretch, text = held[number % len(held)]
            position = number % (len(text) + 1)
            held.append((tree.hold_before(stretch, position), text[:position]))
        elif held:
            released.append(held.pop(number % len(held)))
            tree.release(released[-1][0])
        common = tree.in_common(asked)
        for stretch, text in held:
            assert stretch.from_beginning() == text
            assert (stretch.end, common[stretch]) == (len(text), common_prefix(text, asked))
        beginnings = {tuple(text[:end]) for _, text in held for end in range(1, len(text) + 1)}
        assert held_tokens(tree) == len(beginnings)
    for stretch, text in released:
        assert stretch.from_beginning() == text, "it can be read when it is out of the tree, too"
    for stretch, _ in held:
        tree.release(stretch)
    assert len(tree.in_common(asked)) == 1, "only the root is left"


def test_the_copies_of_a_long_prompt_hold_its_beginning_once():
    tier, prompt = HostTier(32_768, Pins()), list(range(32_768))
    for start in range(0, len(prompt), 256):
        tier.put(Copy(prompt[: start + 256], start, b"", 1))
    assert held_tokens(tier._tree) == len(prompt)
    assert all(copy.tokens == prompt[: copy.end] for copy in tier.copies)
    assert tier.wanted(prompt, 32_512) == 0
    while tier.give_up(None):
        pass
    assert held_tokens(tier._tree) == 0


class WholeCopies:
    """The host tier in its plainest form: a list of copies, each with all tokens from the beginning."""

    def __init__(self, limit: int, pins: Pins) -> None:
        self.limit, self.pins, self.age = limit, pins, 0.0
        self.copies = list[tuple[Copy, list[int]]]()

    def leads(self, tokens: list[int], scope: str | None) -> list[tuple[Copy, int]]:
        found = list[tuple[Copy, int]]()
        for copy, text in self.copies:
            until = common_prefix(text, tokens)
            if scope is not None and copy.caller.owner != scope:
                until = min(until, self.pins.public(tokens))
            if until > copy.start:
                found.append((copy, until))
        return found

    def needed_by_copies(self, tokens: list[int]) -> int:
        return max((one.start for one, text in self.copies if one.start <= common_prefix(text, tokens)), default=0)

    def parts(self, tokens: list[int], owner: str) -> list[Copy]:
        return [one for one, text in self.copies if one.caller.owner == owner and text == tokens[: len(text)]]

    def put(self, copy: Copy, text: list[int]) -> tuple[list[Copy], list[Copy]]:
        covered, evicted = list[Copy](), list[Copy]()
        for one, other in list(self.copies):
            if one.caller.owner == copy.caller.owner and copy.start <= one.start and other == text[: len(other)]:
                covered.append(one)
                self.copies.remove((one, other))
        self.copies.append((copy, text))
        while sum(len(text) - one.start for one, text in self.copies) > self.limit and (least := self.give_up(copy)):
            evicted.append(least)
        return covered, evicted

    def give_up(self, staying: Copy | None) -> Copy | None:
        others = [one for one in self.copies if one[0] is not staying]
        ends = [one for one in others if not any(self.leads_to(*one, *other) for other in self.copies)]
        pinned = {one: self.pins.holds(text, one.caller.owner) for one, text in others}
        least = min(ends or others, key=lambda one: (pinned[one[0]], one[0].score), default=None)
        if least:
            self.copies.remove(least)
        return least[0] if least else None

    @staticmethod
    def leads_to(one: Copy, text: list[int], other: Copy, others_text: list[int]) -> bool:
        return one.start < other.start <= len(text) and common_prefix(text, others_text) >= other.start


long_texts = texts.map(lambda text: [token for token in text for _ in range(3)])
owners = st.sampled_from(("", "one", "two")).map(lambda name: Caller(name, admin=name == "two"))
acts = st.tuples(
    st.sampled_from(("put", "put", "put", "use", "give up", "remove", "pin")), long_texts, owners, st.integers(0, 40)
)


@given(st.lists(acts, max_size=30), long_texts, st.sampled_from((20, 60, 1000)))
def test_the_tier_does_what_a_list_of_whole_copies_would_do(plan, asked, limit):
    pins = Pins()
    tier, plain = HostTier(limit, pins), WholeCopies(limit, pins)
    for kind, tokens, caller, number in plan:
        copies = [one for one, _ in plain.copies]
        if kind == "put":
            copy = Copy(tokens, number % len(tokens), b"", 1 + number % 3, caller=caller)
            assert tier.put(copy) == Replaced(*plain.put(copy, tokens))
        elif kind == "pin":
            pins.pin(tokens, 1000.0, caller)
        elif kind == "give up":
            assert tier.give_up(None) is plain.give_up(None)
        elif copies and kind == "use":
            tier.use(copies[number % len(copies)], 5, for_client=True)
        elif copies:
            tier.remove(copies[number % len(copies)])
            del plain.copies[number % len(copies)]
        assert [(one, one.tokens) for one in tier.copies] == plain.copies
        for scope in ("one", "two", "", None):
            assert tier.leads(asked, scope) == plain.leads(asked, scope)
        assert tier.needed_by_copies(asked) == plain.needed_by_copies(asked)
        assert tier.parts(asked, "one") == plain.parts(asked, "one")


def test_every_token_is_compared_also_where_two_texts_differ_in_one():
    prompt, chance = list(range(5000)), random.Random(1)
    tier = HostTier(10_000, Pins())
    for start in range(0, 5000, 256):
        tier.put(Copy(prompt[: start + 256], start, b"", 1))
    for position in chance.sample(range(5000), 50):
        other = [*prompt[:position], -1, *prompt[position + 1 :]]
        assert max((until for _, until in tier.leads(other)), default=0) == position
