"""The main job on real input: a full-size checkpoint converted, served, and right word for word."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_edge.convert.manifest import read_manifest
from tests.served import ServedModel


@pytest.fixture(scope="module")
def served(conversion):
    with ServedModel(conversion["file"]) as served:
        yield served


def test_the_file_has_the_size_its_users_count_on(conversion):
    assert conversion["file"].stat().st_size == pytest.approx(396.7e6, rel=1e-3)
    assert read_manifest(conversion["file"]).types == {"Q4_K": 168, "F32": 113, "Q6_K": 29}


def test_the_conversion_stays_within_its_memory(conversion):
    assert conversion["anonymous"] < 300e6, "before quantization"
    assert conversion["resident"] < 1.1e9, "all of it, worker included"


def test_the_model_thinks_and_answers_word_for_word(served, walk):
    assert served.streamed("Hello", temperature=0) == (walk["thinking"], walk["answer"])
    message = served.ask("Hello", temperature=0)
    assert (message["reasoning_content"], message["content"]) == (walk["thinking"], walk["answer"])
    assert message["finish_reason"] == "stop"


def test_without_thinking_it_answers_at_once(served, walk):
    assert served.streamed("Hello", temperature=0, enable_thinking=False) == ("", walk["answer"])


@pytest.mark.parametrize("topic", ["alpha", "beta", "gamma", "delta", "sigma"])
def test_the_answer_depends_on_the_conversation_and_on_nothing_cached(served, walk, topic):
    expected = (walk["topics"][topic]["thinking"], walk["topics"][topic]["answer"])
    assert served.streamed(f"Tell me about {topic} please", temperature=0) == expected


def test_sampling_with_the_models_own_defaults_says_the_same_words(served, walk):
    assert served.streamed("Hello", seed=3) == (walk["thinking"], walk["answer"])


@pytest.mark.parametrize("thinks", [True, False])
@pytest.mark.parametrize("shape", ["pattern", "choice", "grammar"])
def test_a_shape_that_the_words_obey_changes_none_of_them(served, walk, shape, thinks):
    shapes = {
        "pattern": {"guided_regex": r"(.|\n)*"},
        "choice": {"guided_choice": [walk["answer"], "Something else."]},
        "grammar": {"grammar": "root ::= [^<]*"},
    }
    expected = (walk["thinking"] if thinks else "", walk["answer"])
    assert served.streamed("Hello", temperature=0, enable_thinking=thinks, **shapes[shape]) == expected


def test_several_turns_are_right_and_reuse_what_was_computed(served, walk):
    messages = [{"role": "user", "content": "A word on alpha first. " + "Some more words to read. " * 40}]
    cached = []
    for turn in range(3):
        _, answer = served.post({"messages": messages, "temperature": 0, "enable_thinking": False})
        message = answer["choices"][0]["message"]
        assert message["content"] == walk["topics"]["alpha"]["answer"]
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        messages += [message, {"role": "user", "content": f"And then, {turn}?"}]
    assert cached[1] > 200
    assert cached[2] > cached[1]


def test_a_prompt_of_several_thousand_tokens_is_right(served, walk):
    text = "About beta: " + "The kitchen sensor says twenty one degrees. " * 500
    message = served.ask(text, temperature=0, enable_thinking=False)
    assert message["usage"]["prompt_tokens"] > 4000
    assert message["content"] == walk["topics"]["beta"]["answer"]


def test_many_at_once_are_all_right_while_a_long_prompt_is_computed(served, walk):
    def ask(topic: str, words: str) -> bool:
        thinking, answer = walk["topics"][topic]["thinking"], walk["topics"][topic]["answer"]
        return served.streamed(f"{words}On {topic}, please", temperature=0) == (thinking, answer)

    manual = "The house has a kitchen, a hall and a garden with two lamps. " * 15
    asked = [(topic, words) for words in ("", manual) for topic in ("alpha", "beta", "gamma", "delta")]
    with ThreadPoolExecutor(9) as clients:
        answers = [clients.submit(ask, *one) for one in asked]
        answers.append(clients.submit(ask, "sigma", "A long story about the weather and the sea. " * 200))
        assert [answer.result() for answer in answers] == [True] * 9


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(served):
    status, answer = served.post({"messages": [{"role": "user", "content": "word " * 9000}]})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert "8192 tokens" in answer["error"]["message"]


@pytest.mark.parametrize(
    "settings",
    [
        "{kv_type: q8_0_keys}",
        "{kv_type: q8_0_keys, flash_attention: on}",
        "{kv_type: q8_0_keys, flash_attention: small}",
        "{kv_type: q8_0}",
        "{batch: 512}",
        "{flash_attention: on}",
        "{flash_attention: off}",
        "{flash_attention: small}",
    ],
)
def test_kv_type_batch_and_attention_change_no_word(conversion, walk, settings):
    with ServedModel(conversion["file"], settings=f"engine: {settings}") as served:
        text = "On alpha " + "and some more words " * 100
        expected = (walk["topics"]["alpha"]["thinking"], walk["topics"]["alpha"]["answer"])
        assert served.streamed(text, temperature=0) == expected


def with_second_head(source: Path, target: Path) -> None:
    """Copy a safetensors file, with the embedding a second time as lm_head.weight."""
    with source.open("rb") as given, target.open("wb") as made:
        header = json.loads(given.read(struct.unpack("<Q", given.read(8))[0]))
        data = given.tell()
        begin, end = header["model.embed_tokens.weight"]["data_offsets"]
        last = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        header["lm_head.weight"] = {**header["model.embed_tokens.weight"], "data_offsets": [last, last + end - begin]}
        encoded = json.dumps(header).encode()
        made.write(struct.pack("<Q", len(encoded)) + encoded)
        for start, stop in ((0, last), (begin, end)):
            given.seek(data + start)
            for size in [8 << 20] * ((stop - start) >> 23) + [(stop - start) % (8 << 20)]:
                made.write(given.read(size))


def test_the_head_that_a_checkpoint_carries_twice_is_left_out(checkpoint, conversion, tmp_path_factory):
    """The published Qwen3-0.6B holds its tied embedding a second time as lm_head.weight: the model is the same."""
    folder = tmp_path_factory.mktemp("twice") / "Qwen3-0.6B"
    folder.mkdir()
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).symlink_to(file)
    with_second_head(checkpoint / "model.safetensors", folder / "model.safetensors")
    output = folder / "twice.gguf"
    subprocess.run([sys.executable, "-m", "qwen_edge", "convert", str(folder), "-o", str(output)], check=True)
    assert read_manifest(output).sha256 == read_manifest(conversion["file"]).sha256
    (folder / "model.safetensors").unlink()
