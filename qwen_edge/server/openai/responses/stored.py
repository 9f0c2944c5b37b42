"""What stored responses give to requests: the conversation before one, items by their ids, pages of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.openai.responses.body import ResponsesBody
from qwen_edge.server.openai.responses.items import InputText, Item, ItemReference, Message, response_of
from qwen_edge.server.openai.responses.store import ResponseStore, Stored

_MOST_LISTED = 100
_LISTED = 20


async def whole_conversation(body: ResponsesBody, store: ResponseStore, owner: str) -> tuple[list[Item], int]:
    """All items that the model is to see, and how many of them are not of the body: those of the response before, its
    output, the input. Raises RequestError."""
    before = await _items_before(body.previous_response_id, store, owner) if body.previous_response_id else []
    given = [Message("user", [InputText(body.input)])] if isinstance(body.input, str) else body.input or []
    found = dict[str, list[dict[str, Any]]]()  # the items of each response that is referred to
    for response in {response_of(item.id) for item in given if isinstance(item, ItemReference)}:
        stored = await store.get(response, owner)
        found[response] = all_items(stored) if stored else []
    return [*before, *(_resolved(item, number, found) for number, item in enumerate(given))], len(before)


async def _items_before(id_: str, store: ResponseStore, owner: str) -> list[Item]:
    stored = await store.get(id_, owner)
    if stored is None:
        raise RequestError(
            f"There is no stored response {printable(id_, 80)!r}: it was not stored, has expired or was deleted, or it "
            "is of another key. Send the whole conversation as input.",
            "not_found",
            code="previous_response_not_found",
            parameter="previous_response_id",
        )
    return msgspec.convert(all_items(stored), list[Item])


def _resolved(item: Item, number: int, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Item:
    """The item, or the item that it refers to. Raises RequestError."""
    if not isinstance(item, ItemReference):
        return item
    same = [one for one in found[response_of(item.id)] if one.get("id") == item.id]
    if not same:
        raise RequestError(
            f"input[{number}]: there is no stored item {printable(item.id, 80)!r}. Send the item itself.",
            "not_found",
            code="not_found",
            parameter=f"input[{number}].id",
        )
    return msgspec.convert(same[:1], list[Item])[0]


def all_items(stored: Stored) -> list[dict[str, Any]]:
    """The items of a response: those before it, and its output."""
    return [*stored.input, *stored.response["output"]]


def page(items: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A part of a list of items, as `limit`, `order` and `after` ask. Raises RequestError."""
    limit, order, after = query.get("limit", str(_LISTED)), query.get("order", "desc"), query.get("after")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MOST_LISTED):
        raise RequestError(f"limit must be a number from 1 to {_MOST_LISTED}.", parameter="limit")
    if order not in ("asc", "desc"):
        raise RequestError('order must be "asc" or "desc".', parameter="order")
    ordered = list(items) if order == "asc" else list(reversed(items))
    if after:
        places = [number for number, item in enumerate(ordered) if item.get("id") == after]
        if not places:
            raise RequestError(f"after: the list has no item {printable(after, 80)!r}.", parameter="after")
        ordered = ordered[places[0] + 1 :]
    shown = ordered[: int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0].get("id") if shown else None,
        "last_id": shown[-1].get("id") if shown else None,
        "has_more": len(ordered) > len(shown),
    }
