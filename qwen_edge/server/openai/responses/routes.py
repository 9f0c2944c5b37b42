"""The paths of the Responses API."""

from __future__ import annotations

from qwen_edge.server.openai.responses import create, kept
from qwen_edge.server.openai.responses.body import ResponsesBody
from qwen_edge.server.routes import GENERATES, Route, v1
from qwen_edge.server.sse import EVENTS

_ONE = "/v1/responses/{id}"
_ERRORS = (401, 403, 404, 503)

ROUTES = (
    Route(
        "POST",
        "/v1/responses",
        create.create,
        "Answer with a response.",
        body=ResponsesBody,
        stream=EVENTS,
        also=v1("/v1/responses"),
        errors=GENERATES,
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        create.count_tokens,
        "Count the tokens of a response's prompt.",
        body=ResponsesBody,
        also=v1("/v1/responses/input_tokens"),
        errors=GENERATES,
    ),
    Route("GET", _ONE, kept.show, "A stored response.", also=v1(_ONE), errors=(400, *_ERRORS)),
    Route("DELETE", _ONE, kept.delete, "Delete a stored response.", also=v1(_ONE), errors=_ERRORS),
    Route(
        "GET",
        f"{_ONE}/input_items",
        kept.list_input,
        "The items of which a stored response was made.",
        also=v1(f"{_ONE}/input_items"),
        errors=(400, *_ERRORS),
        query={"limit": "1 to 100 items; 20", "order": "asc or desc; desc", "after": "the id of an item"},
    ),
    Route(
        "POST",
        f"{_ONE}/cancel",
        kept.cancel,
        "Always an error: nothing runs in the background.",
        answer_at=(),
        also=v1(f"{_ONE}/cancel"),
        errors=(400, *_ERRORS),
    ),
)
