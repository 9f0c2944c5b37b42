"""A request on its way in: its prompt in tokens, or why it cannot be answered."""

from __future__ import annotations

from qwen_edge.engine.backend import Backend
from qwen_edge.engine.output import Output
from qwen_edge.engine.sequence import Sequence
from qwen_edge.engine.speculate import Answers, Lookup
from qwen_edge.messages import Failed, Submit


def take_in(request: Submit, backend: Backend, answers: Answers, now: float) -> Sequence | Failed:
    """In the engine's thread, before it waits for its place; it came now."""
    try:
        tokens = backend.tokenize(request.prompt)
        if not tokens:
            raise ValueError("the prompt is empty")
        if len(tokens) >= backend.context:
            return Failed(request.id, "context_too_long", "", tokens=len(tokens))
        sampler = backend.sampler(request.sampling)
    except KeyError as error:
        return Failed(request.id, "bad_request", f"the model has no token {error}")
    except ValueError as error:
        return Failed(request.id, "bad_request", str(error))
    output = Output(request.stop, request.reasoning, request.calls, reasons=request.reasons)
    lookup = Lookup(answers, len(tokens), backend.is_mark, request.caller.scope)
    return Sequence(request, tokens, sampler, output, lookup, now)
