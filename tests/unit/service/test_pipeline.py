"""Whoever answers, a request is let in or refused, and its answers come out side by side."""

import asyncio
from dataclasses import replace

import msgspec
import pytest

from qwen_edge.chat.messages import ChatRequest, Content, Finish, Reasoning, Usage, combined_usage
from qwen_edge.core.errors import RequestError, WaitedTooLongError, device_limited, unavailable
from qwen_edge.protocol.messages import Sampling
from qwen_edge.service.pipeline import ChatService, ModelInfo

REQUEST = ChatRequest(({"role": "user", "content": "hi"},), Sampling(seed=7))
FINISH = Finish("stop", Usage(prompt_tokens=3, completion_tokens=2))


class Echo:
    """Another Answerer: it has no engine. Says its seed."""

    most_pending = 3
    model = ModelInfo(Sampling(), 512)

    def __init__(self) -> None:
        self.asked: list[tuple[ChatRequest, bool]] = []
        self.open = 0
        self.busy: RequestError | None = None
        self.fails: RequestError | None = None

    def refuse_if_busy(self) -> None:
        if self.busy:
            raise self.busy

    async def answer(self, request, *, first=True):
        self.asked.append((request, first))
        self.open += 1
        try:
            if self.fails:
                raise self.fails
            yield Reasoning("Hm.")
            await asyncio.sleep(0)
            yield Content(str(request.sampling.seed))
            yield FINISH
        finally:
            self.open -= 1


class Weather:
    """Stands for the thermal control. The device is hot once `hot_after` more requests were let in."""

    def __init__(self) -> None:
        self.hot_after = 99

    def admit(self, priority, client):
        if self.hot_after == 0:
            raise device_limited("requests", "hot", 60)
        self.hot_after -= 1
        return "background" if client == "spender" else priority


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def weather():
    return Weather()


@pytest.fixture
def service(echo, weather):
    return ChatService(echo, weather)


async def all_of(events):
    return [event async for event in events]


async def test_an_answer_is_what_the_answerer_says_in_its_order(service):
    assert await all_of(service.answer(REQUEST)) == [Reasoning("Hm."), Content("7"), FINISH]


async def test_reasoning_that_is_not_wanted_is_left_out_whoever_answers(service):
    assert await all_of(service.answer(replace(REQUEST, return_reasoning=False))) == [Content("7"), FINISH]


def test_the_model_is_that_of_whoever_answers(service):
    assert service.model == Echo.model


async def test_several_answers_differ_in_the_seed_and_one_of_them_is_the_first(service, echo):
    events = await all_of(service.all_choices([replace(REQUEST, choices=3)]))
    said = {number: event.text for number, event in events if isinstance(event, Content)}
    assert said == {0: "7", 1: "8", 2: "9"}
    assert [event for _, event in events].count(FINISH) == 3
    assert sorted((asked.sampling.seed, first) for asked, first in echo.asked) == [(7, True), (8, False), (9, False)]


async def test_the_last_seed_is_followed_by_the_first(service, echo):
    last = replace(REQUEST, sampling=msgspec.structs.replace(REQUEST.sampling, seed=0xFFFFFFFE), choices=2)
    await all_of(service.all_choices([last]))
    assert {asked.sampling.seed for asked, _ in echo.asked} == {0xFFFFFFFE, 0}


async def test_more_answers_than_there_are_places_are_refused_unasked(service, echo):
    with pytest.raises(RequestError, match="4 answers are asked for") as refused:
        await all_of(service.all_choices([replace(REQUEST, choices=4)]))
    assert (refused.value.kind, refused.value.parameter) == ("invalid_request", "n")
    assert not echo.asked


async def test_who_is_busy_says_so_before_the_device_is_asked(service, echo, weather):
    echo.busy, weather.hot_after = unavailable("busy", 5), 0
    with pytest.raises(RequestError, match="busy"):
        await all_of(service.answer(REQUEST))
    echo.busy = None
    with pytest.raises(RequestError, match="takes no requests now"):
        await all_of(service.answer(REQUEST))
    assert not echo.asked


async def test_the_answerer_gets_the_priority_that_was_granted(service, echo):
    await all_of(service.answer(replace(REQUEST, client="spender")))
    assert [asked.priority for asked, _ in echo.asked] == ["background"]


async def test_whoever_has_waited_too_long_for_a_device_that_is_hot_hears_of_the_heat(service, echo, weather):
    echo.fails = WaitedTooLongError()
    with pytest.raises(WaitedTooLongError):
        await all_of(service.answer(REQUEST))
    weather.hot_after = 1  # it is hot only when the request has waited
    with pytest.raises(RequestError, match="takes no requests now"):
        await all_of(service.answer(REQUEST))
    assert len(echo.asked) == 2


async def test_leaving_early_stops_every_answer(service, echo):
    events = service.all_choices([replace(REQUEST, choices=3)])
    await anext(events)
    await events.aclose()
    assert echo.open == 0
    assert echo.asked


def test_answers_to_one_request_have_its_prompt_in_common():
    one = Usage(10, 3, cached_tokens=8, joules=1.5)
    other = Usage(10, 4, cached_tokens=2, missed="new", joules=0.5)
    assert combined_usage([one, other]) == Usage(10, 7, cached_tokens=2, missed="new", joules=2.0)
    assert combined_usage([one, replace(other, joules=None)]).joules is None
    assert combined_usage([one]) == one
