"""Instructor, by each mode that a server of OpenAI's API can have."""

from collections.abc import Iterable

import instructor
import openai
import pytest
from pydantic import BaseModel, field_validator


class Command(BaseModel):
    """What a light shall do."""

    room: str
    state: str


EXPECTED = {"room": "kitchen", "state": "on"}
CALL = '@call Command {"room": "kitchen", "state": "on"}'
COMPACT = '@say {"room":"kitchen","state":"on"}'
FENCED = '@say ```json\\n{"room": "kitchen", "state": "on"}\\n```'
MODES = {
    "TOOLS": CALL,
    "TOOLS_STRICT": CALL,
    "FUNCTIONS": CALL,
    "JSON": COMPACT,
    "JSON_SCHEMA": COMPACT,
    "MD_JSON": FENCED,
}


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(scripted):
    with openai.OpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        yield client


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_a_model_is_filled(client, mode):
    made = instructor.from_openai(client, mode=instructor.Mode[mode])
    answer = made.chat.completions.create(
        model="qwen3-0.6b", messages=user(MODES[mode]), response_model=Command, max_retries=0
    )
    assert answer.model_dump() == EXPECTED


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
def test_a_partial_model_streams(client, mode):
    made = instructor.from_openai(client, mode=instructor.Mode[mode])
    parts = list(
        made.chat.completions.create_partial(
            model="qwen3-0.6b", messages=user(MODES[mode]), response_model=Command, max_retries=0
        )
    )
    assert parts[-1].model_dump() == EXPECTED


class Kitchen(BaseModel):
    room: str

    @field_validator("room")
    @classmethod
    def is_the_kitchen(cls, room: str) -> str:
        if room != "kitchen":
            raise ValueError("only the kitchen has a light")
        return room


def test_an_answer_that_does_not_validate_is_asked_for_again(client):
    made = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
    script = '@call Kitchen {"room": "attic"}\n@then\n@call Kitchen {"room": "kitchen"}'
    asked = {"model": "qwen3-0.6b", "messages": user(script), "response_model": Kitchen, "max_retries": 2}
    assert made.chat.completions.create(**asked).room == "kitchen"


def test_a_list_of_models_is_filled(client):
    made = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
    script = '@call IterableCommand {"tasks": [{"room": "kitchen", "state": "on"}]}'
    asked = {"model": "qwen3-0.6b", "messages": user(script), "response_model": Command, "max_retries": 0}
    assert [one.model_dump() for one in made.chat.completions.create_iterable(**asked)] == [EXPECTED]


def test_parallel_tools(client):
    made = instructor.from_openai(client, mode=instructor.Mode.PARALLEL_TOOLS)
    script = f'{CALL}\n@call Kitchen {{"room": "kitchen"}}'
    asked = {"model": "qwen3-0.6b", "messages": user(script), "response_model": Iterable[Command | Kitchen]}
    answers = list(made.chat.completions.create(**asked))
    assert [type(one).__name__ for one in answers] == ["Command", "Kitchen"]


def test_responses_tools(client):
    made = instructor.from_openai(client, mode=instructor.Mode.RESPONSES_TOOLS)
    answer = made.responses.create(model="qwen3-0.6b", input=CALL, response_model=Command, max_retries=0)
    assert answer.model_dump() == EXPECTED
