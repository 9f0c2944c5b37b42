"""One question and its answer, for scripts: nothing but the answer is printed, or one JSON object."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import aclosing

from rich.console import Console
from rich.status import Status

from qwen_edge.talk.answer import Answer, Reply
from qwen_edge.talk.conversation import Conversation, Json, calls_as_json
from qwen_edge.talk.options import Options
from qwen_edge.talk.partner import Partner


async def ask_once(
    partner: Partner, conversation: Conversation, options: Options, write: Callable[[str], None], notes: Console
) -> Answer:
    """Ask what the conversation ends with. `write` gets the pieces of the answer's text; `notes` shows that something
    is waited for, if it is a terminal. Raises UserError."""
    reply = Reply()
    body = {"messages": conversation.to_send(), **options.body()}
    with _status(notes) as status:
        async with aclosing(partner.stream(body)) as chunks:
            async for chunk in chunks:
                for piece in reply.feed(chunk):
                    if piece.kind == "content":
                        status.stop()
                        write(piece.text)
                    else:
                        status.update("[dim]thinking[/dim]")
    return reply.answer()


def as_object(answer: Answer) -> Json:
    """The answer for programs."""
    return {
        "content": answer.content,
        "reasoning": answer.reasoning,
        "tool_calls": calls_as_json(answer.calls),
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "usage": dict(answer.usage),
        "timings": {
            "first_token_seconds": answer.first,
            "thinking_seconds": answer.thought,
            "seconds": answer.seconds,
            **answer.timings,
        },
    }


@contextlib.contextmanager
def _status(notes: Console) -> Iterator[Status]:
    status = Status("", console=notes)
    if notes.is_terminal:
        status.start()
    try:
        yield status
    finally:
        status.stop()
