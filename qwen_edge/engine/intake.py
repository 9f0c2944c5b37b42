"""A request on its way in: its prompt in tokens, or why it cannot be answered."""

from __future__ import annotations

from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.engine.backend import Backend
from qwen_edge.engine.output import Output
from qwen_edge.engine.sequence import Sequence
from qwen_edge.engine.speculate import Answers, Lookup
from qwen_edge.engine.tokenizing import Tokens
from qwen_edge.protocol.messages import Failed, Submit


def take_in(request: Submit, tokens: Tokens, backend: Backend, answers: Answers, now: float) -> Sequence | Failed:
    """The sequence of a request that came at `now`, or why there is none. In the engine's thread."""
    if isinstance(tokens, PromptTooLongError):
        return Failed(request.id, "context_too_long", "at least", tokens=tokens.tokens)
    if isinstance(tokens, KeyError):
        return Failed(request.id, "bad_request", f"the model has no token {tokens}")
    if not tokens:
        return Failed(request.id, "bad_request", "the prompt is empty")
    if len(tokens) >= backend.context:
        return Failed(request.id, "context_too_long", "", tokens=len(tokens))
    try:
        sampler = backend.sampler(request.sampling)
    except ValueError as error:
        return Failed(request.id, "bad_request", str(error))
    output = Output(request.stop, request.reasoning, request.calls, reasons=request.reasons)
    lookup = Lookup(answers, len(tokens), backend.is_mark, request.caller.scope)
    return Sequence(request, tokens, sampler, output, lookup, now)
