"""A real engine with a real model: it goes, is killed, hangs, and what was said before it went is still known."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.served import ServedModel

pytestmark = pytest.mark.model

STORY = "The lamp in the kitchen is on, the door of the garage is closed, and it is warm. " * 12


def wait_for(condition) -> None:
    while not condition():
        threading.Event().wait(0.02)


def remember(folder: Path, more: str = "") -> str:
    return f"remember: {{folder: {folder}}}\nengine: {{context: 2048, threads: 1{more}}}\n"


def ask(served: ServedModel, text: str = STORY) -> tuple[str, int, int]:
    """The answer, and how many tokens of the prompt had been computed before, and how many it has."""
    answer = served.ask(text, max_tokens=20, temperature=0)
    usage = answer["usage"]
    return answer["content"], usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def kv_files(folder: Path) -> list[Path]:
    return list(folder.glob("*.kv"))


def test_a_conversation_outlives_the_daemon(tiny_model, tmp_path):
    with ServedModel(tiny_model, settings=remember(tmp_path)) as served:
        first, _, _ = ask(served)
    assert kv_files(tmp_path)
    with ServedModel(tiny_model, settings=remember(tmp_path)) as served:
        again, cached, prompt = ask(served)
    assert again == first
    assert cached > prompt - 20


def test_a_conversation_outlives_a_power_cut(tiny_model, tmp_path):
    with ServedModel(tiny_model, settings=remember(tmp_path, ", hang_seconds: 2")) as served:
        first, _, _ = ask(served)
        ask(served)
        wait_for(lambda: len(kv_files(tmp_path)) == 4)
        engine = served.engine
        served.process.kill()
        engine.kill()
        served.process.wait()
    with ServedModel(tiny_model, settings=remember(tmp_path)) as served:
        again, cached, prompt = ask(served)
    assert again == first
    assert cached > prompt - 20


def talk(served: ServedModel, number: int, answer: str = "") -> tuple[str, dict]:
    """A turn of one of several conversations, which begin with the same words: the answer, and its usage; with the
    `answer` before, its next one."""
    system = f"You watch house {number}. " + f"The lamp is on, and door {number} is closed. " * 6
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"How is it, {number}?"}]
    if answer:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And now?"}]
    status, body = served.post({"messages": messages, "max_tokens": 20, "temperature": 0})
    assert status == 200, body
    return body["choices"][0]["message"]["content"], body["usage"]


def cached(usage: dict, prompt: int) -> int:
    """How much of the first turn's prompt was there. Some tokens of its answer may be, too, as long as no other
    request needs their cells: nothing promises that."""
    return min(prompt, usage["prompt_tokens_details"]["cached_tokens"])


def stop(served: ServedModel, folder: Path) -> None:
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(30)


def kill_the_daemon(served: ServedModel, folder: Path) -> None:
    engine = served.engine
    served.process.kill()
    engine.wait(30)


def stop_in_an_answer(served: ServedModel, folder: Path) -> None:
    body = {"messages": [{"role": "user", "content": "count"}], "ignore_eos": True, "max_tokens": 200}
    chunks = served.stream(body)
    next(chunks)
    served.process.send_signal(signal.SIGTERM)
    for _ in chunks:
        pass
    served.process.wait(30)


@pytest.mark.parametrize("end", [stop, kill_the_daemon, stop_in_an_answer], ids=lambda end: end.__name__)
@pytest.mark.parametrize("count", [2, 6])
def test_all_of_some_conversations_are_there_after_a_stop_that_comes_at_once(tiny_model, tmp_path, end, count):
    def ahead(folder: str) -> str:  # nothing is computed ahead: how much is, is a matter of time
        return remember(tmp_path / folder, ", ahead_tokens_per_hour: 0")

    with ServedModel(tiny_model, settings=ahead("staying")) as served:
        firsts = [talk(served, number) for number in range(count)]
        answers, prompts = [answer for answer, _ in firsts], [usage["prompt_tokens"] for _, usage in firsts]
        staying = [cached(talk(served, number, answers[number])[1], prompts[number]) for number in range(count)]
    with ServedModel(tiny_model, settings=ahead("stopped")) as served:
        assert [talk(served, number)[0] for number in range(count)] == answers
        end(served, tmp_path)
    with ServedModel(tiny_model, settings=ahead("stopped")) as served:
        back = [cached(talk(served, number, answers[number])[1], prompts[number]) for number in range(count)]
        assert back == staying
        assert min(staying) > 40


@pytest.mark.parametrize("more", ["", ", flash_attention: on"], ids=["parked cells have a price", "they have none"])
def test_without_memory_for_copies_all_conversations_are_there_after_a_stop_at_once(tiny_model, tmp_path, more):
    settings = remember(tmp_path, f", stash_bytes: 0, ahead_tokens_per_hour: 0{more}")
    with ServedModel(tiny_model, settings=settings) as served:
        firsts = [talk(served, number) for number in range(5)]
        stop(served, tmp_path)
    with ServedModel(tiny_model, settings=settings) as served:
        for number, (answer, usage) in enumerate(firsts):
            prompt = usage["prompt_tokens"]
            assert cached(talk(served, number, answer)[1], prompt) > prompt - 16


def test_conversations_without_a_system_prompt_are_there_beside_one_with_it(tiny_model, tmp_path):
    """All they have in common is the few tokens with which a message begins. They end, one after the other, while the
    one with a system prompt is answered, and nothing of them stays in the cache."""
    settings = remember(tmp_path, ", ahead_tokens_per_hour: 0")

    def chat(number: int, tokens: int = 5) -> dict:
        role = "user" if number else "system"
        messages = [{"role": role, "content": f"{number} is a house. " + f"Its door {number} is closed. " * 6}]
        body = {"messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        status, answer = served.post(body)
        assert status == 200, answer
        return answer["usage"]

    with ServedModel(tiny_model, settings=settings) as served, ThreadPoolExecutor(3) as pool:
        talks = [pool.submit(chat, 0, 800)]
        wait_for(lambda: served.get("/health")[1]["pending"] == 1)
        talks += [pool.submit(chat, number, 20 * number) for number in (1, 2)]
        prompts = [running.result()["prompt_tokens"] for running in talks]
        stop(served, tmp_path)
    with ServedModel(tiny_model, settings=settings) as served:
        back = [cached(chat(number), prompt) for number, prompt in enumerate(prompts)]
    assert min(held - prompt for held, prompt in zip(back, prompts, strict=True)) > -16


def test_damaged_files_are_computed_again_and_told(tiny_model, tmp_path):
    with ServedModel(tiny_model, settings=remember(tmp_path)) as served:
        first, _, _ = ask(served)
    for file in kv_files(tmp_path):
        whole = bytearray(file.read_bytes())
        whole[-1000] ^= 1
        file.write_bytes(whole)
    with ServedModel(tiny_model, settings=remember(tmp_path)) as served:
        again, cached, _ = ask(served)
        assert (again, cached) == (first, 0)
        wait_for(lambda: "it is damaged" in "".join(served.log))


def test_the_engine_leaves_memory_when_nobody_asks_and_comes_back_with_the_conversation(tiny_model, tmp_path):
    settings = remember(tmp_path, ", unload_seconds: 0.5")
    with ServedModel(tiny_model, settings=settings) as served:
        first, _, _ = ask(served)
        wait_for(lambda: served.get("/health")[1]["status"] == "asleep")
        with pytest.raises(ValueError, match="not enough values"):
            served.engine  # noqa: B018 - there is none
        again, cached, prompt = ask(served)
        assert again == first
        assert cached > prompt - 20
        assert served.get("/health")[1]["restarts"] == 0


def test_a_folder_that_cannot_be_used_is_told_and_serving_goes_on(tiny_model, tmp_path):
    (tmp_path / "file").touch()
    with ServedModel(tiny_model, settings=remember(tmp_path / "file")) as served:
        assert ask(served)[1] == 0
        wait_for(lambda: "conversations are not kept on disk" in "".join(served.log))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP], ids=lambda number: number.name)
def test_eight_streams_end_in_an_error_and_those_who_wait_are_answered(tiny_model, number):
    settings = "engine: {context: 8192, threads: 1, hang_seconds: 2, speculate: false}"

    def stream(name: int) -> list[dict]:
        body = {"messages": [{"role": "user", "content": f"number {name}"}], "ignore_eos": True, "max_tokens": 5000}
        chunks = []
        for chunk in served.stream(body):
            chunks.append(chunk)
            begun.add(name)
        return chunks

    with ServedModel(tiny_model, settings=settings) as served, ThreadPoolExecutor(12) as pool:
        begun: set[int] = set()
        streams = [pool.submit(stream, name) for name in range(8)]
        wait_for(lambda: len(begun) == 8)
        waiting = [pool.submit(served.ask, f"I wait, {name}", max_tokens=5) for name in range(4)]
        wait_for(lambda: served.get("/health")[1]["pending"] == 12)
        os.kill(served.engine.pid, number)
        for running in streams:
            assert running.result()[-1]["error"]["code"] == "engine_failed"
        assert all(late.result()["usage"]["completion_tokens"] <= 5 for late in waiting)
        health = served.get("/health")[1]
        assert (health["status"], health["restarts"]) == ("ok", 1)
        reasons = {signal.SIGKILL: "killed by SIGKILL", signal.SIGABRT: "killed by SIGABRT"}
        assert health["last_death"].startswith(reasons.get(number, "silent for "))
