"""What crosses between the processes arrives as it was sent, however the stream is cut."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.protocol.framing import encode, inbound_frames, outbound_frames
from qwen_edge.protocol.messages import (
    Abort,
    Beat,
    Done,
    Failed,
    Load,
    Markers,
    Part,
    Sampling,
    Segment,
    Stop,
    Submit,
    Tokens,
)
from tests.cuts import cut

texts = st.text(max_size=40)
ids = st.integers(0, 2**40)
submits = st.builds(
    Submit,
    id=ids,
    prompt=st.lists(st.builds(Segment, texts, st.booleans()), max_size=4).map(tuple),
    sampling=st.builds(Sampling, seed=st.integers(0, 2**32 - 1)),
    max_tokens=st.integers(1, 10**6),
    max_seconds=st.floats(0.1, 1e6),
    stop=st.lists(texts, max_size=3).map(tuple),
    reasoning=st.none() | st.builds(Markers, texts, texts),
    reasons=st.booleans(),
)
inbound = st.lists(submits | st.builds(Abort, ids) | st.builds(Stop), max_size=5)
parts = st.builds(
    Part,
    st.sampled_from(["reasoning", "answer", "call", "thought_call"]),
    texts,
    st.sampled_from(["", "open", "close", "break"]),
)
outbound = st.lists(
    st.builds(Tokens, ids, st.lists(parts, max_size=3).map(tuple))
    | st.builds(Done, ids, st.sampled_from(["stop", "length"]), ids, ids, ids, st.just(0.5), st.just(1.5))
    | st.builds(Failed, st.none() | ids, st.just("engine"), texts)
    | st.builds(Beat),
    max_size=5,
)


def feed_in_cuts(frames, data: bytes, cuts: list[int]):
    return [message for piece in cut(data, cuts) for message in frames.feed(piece)]


@given(st.lists(inbound, max_size=4), st.lists(st.integers(0, 10**6), max_size=8))
def test_messages_to_the_engine_survive_any_cut_of_the_stream(batches, cuts):
    data = b"".join(encode(batch) for batch in batches)
    assert feed_in_cuts(inbound_frames(), data, cuts) == [message for batch in batches for message in batch]


@given(st.lists(outbound, max_size=4), st.lists(st.integers(0, 10**6), max_size=8))
def test_messages_to_the_daemon_survive_any_cut_of_the_stream(batches, cuts):
    data = b"".join(encode(batch) for batch in batches)
    assert feed_in_cuts(outbound_frames(), data, cuts) == [message for batch in batches for message in batch]


def test_a_load_message_keeps_every_field():
    load = Load("m.gguf", 8192, 128, 4, -1, "q8_0", "auto", 5.0)
    assert inbound_frames().feed(encode([load])) == [load]
