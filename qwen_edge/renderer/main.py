"""The renderer process. Its arguments are the number of its end of a socket pair, and its limits.

It answers one question after the other and ends when the daemon closes the socket. It runs untrusted code, so the
kernel limits its memory and its processor time; the daemon enforces a deadline and kills the process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from qwen_edge.chat.jinja import error_line
from qwen_edge.chat.messages import ChatRequest
from qwen_edge.chat.template import ChatTemplate, closes_reasoning, opens_reasoning
from qwen_edge.core.errors import RequestError
from qwen_edge.renderer.messages import (
    Answer,
    Open,
    Opened,
    Question,
    Refused,
    Rendered,
    RenderNextTurn,
    decode_question,
    encode,
)


def main(arguments: list[str]) -> None:
    """`arguments`: the socket's number, bytes of memory beyond what the process has at its start, and seconds of
    computing for each question."""
    # The daemon decides when this process ends. A signal to the whole process group (Ctrl-C, a service manager's stop)
    # is meant for the daemon, which lets running answers finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    descriptor, memory, seconds = map(int, arguments)
    _limit_memory(memory)
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(ConnectionError):
        serve(connection, lambda: _limit_cpu_time(seconds))
    os._exit(0)


def serve(connection: socket.socket, before: Callable[[], None]) -> None:
    """Answer questions until the daemon closes its end. `before` is called before each question."""
    worker = _Worker()
    connection.sendall(b"\n")  # tells the daemon that the process has started
    with connection.makefile("rb") as lines:
        for line in lines:
            before()
            try:
                answer = worker.answer(decode_question(line))
                data = encode(answer)
            except (MemoryError, RecursionError) as error:
                answer = _refusal(error)
                data = encode(answer)
            connection.sendall(data)
            if isinstance(answer, Refused) and answer.out_of_memory:
                return


class _Worker:
    """Answers questions with the template that the first one, Open, has sent."""

    def __init__(self) -> None:
        self._template: ChatTemplate | None = None

    def answer(self, question: Question) -> Answer:
        if isinstance(question, Open):
            return self._open(question)
        assert self._template, "the first question opens a template"
        try:
            if isinstance(question, RenderNextTurn):
                return Rendered(self._template.next_turn(question.request, question.content, question.calls))
            return self._render(self._template, question.request)
        except RequestError as error:
            return Refused(error.message, error.parameter, out_of_memory=isinstance(error.__context__, MemoryError))

    def _render(self, template: ChatTemplate, request: ChatRequest) -> Rendered:
        prompt = template.render(request)
        reasons, reasoned = opens_reasoning(prompt), closes_reasoning(prompt)
        if request.begun:
            prompt, reasons, reasoned = template.with_beginning(prompt, request.begun), False, True
        return Rendered(prompt, template.reasoning, reasons, reasoned)

    def _open(self, question: Open) -> Answer:
        try:
            template = ChatTemplate.of(question.source, question.abilities)
            fault = "" if question.abilities else template.findings.fault
        except Exception as error:  # the template is untrusted code: compiling it may raise anything
            return _refusal(error)
        self._template = template
        return Refused(fault) if fault else Opened(template.abilities)


def _refusal(error: Exception) -> Refused:
    return Refused(error_line(error), "messages", out_of_memory=isinstance(error, MemoryError))


def _limit_memory(more: int) -> None:
    """Limit the memory of this process: beyond the limit, an allocation raises MemoryError. A crash writes no core
    file."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _set_limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)
    _set_limit(resource.RLIMIT_CORE, 0)


def _limit_cpu_time(seconds: int) -> None:
    """Let the kernel end this process after this much processor time from now. The daemon may be gone or stopped, and
    this process notices that only after its answer."""
    _set_limit(resource.RLIMIT_CPU, int(time.process_time()) + seconds + 1)


def _set_limit(what: int, limit: int) -> None:
    """Set the soft limit, which can be changed again; at most the present hard limit."""
    _, most = resource.getrlimit(what)
    resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
