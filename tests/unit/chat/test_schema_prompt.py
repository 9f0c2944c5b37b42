"""The model is shown the schema that its answer is held to."""

import pytest

from qwen_edge.chat.schema_prompt import with_schema

SCHEMA = '{"type":"object"}'
SHOWN = "Answer with one JSON value that fits this JSON schema:\n" + SCHEMA
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Dim the light"}
ANSWER = {"role": "assistant", "content": "Done."}


@pytest.mark.parametrize(
    ("messages", "system", "expected"),
    [
        ([USER], True, [{"role": "system", "content": SHOWN}, USER]),
        ([SYSTEM, USER], True, [SYSTEM | {"content": f"Be brief.\n\n{SHOWN}"}, USER]),
        ([SYSTEM | {"content": ""}, USER], True, [SYSTEM | {"content": SHOWN}, USER]),
        ([USER, SYSTEM], True, [USER, SYSTEM | {"content": f"Be brief.\n\n{SHOWN}"}]),
        ([SYSTEM, USER, SYSTEM], True, [SYSTEM | {"content": f"Be brief.\n\n{SHOWN}"}, USER, SYSTEM]),
        ([USER], False, [USER | {"content": f"{SHOWN}\n\nDim the light"}]),
        ([USER, ANSWER, USER], False, [USER, ANSWER, USER | {"content": f"{SHOWN}\n\nDim the light"}]),
        ([ANSWER], False, [ANSWER]),
    ],
)
def test_the_schema_joins_the_system_message_or_the_last_question(messages, system, expected):
    before = [dict(message) for message in messages]
    assert [*with_schema(messages, SCHEMA, system=system)] == expected
    assert messages == before, "the caller's messages stay as they are"


def test_other_fields_of_the_message_stay():
    named = {**SYSTEM, "name": "home"}
    assert with_schema([named], SCHEMA, system=True)[0]["name"] == "home"
