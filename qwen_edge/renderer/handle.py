"""The daemon's handle on the renderer process: starts it, asks it, replaces it when a template hangs or ends it.

One question is asked at a time, and each has a deadline. Whatever the template does, a question ends in an answer or in
an error that is told to the client, and those that wait behind it are asked of the next process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from qwen_edge.chat.abilities import TemplateAbilities, TemplateSource
from qwen_edge.chat.messages import ChatRequest, Content, Delta, whole_calls
from qwen_edge.core.errors import EngineError, RequestError, UnservableError, stopping, too_many_messages, unavailable
from qwen_edge.protocol.messages import Ready, Segment
from qwen_edge.renderer.messages import Answer, Foresee, Open, Opened, Refused, Render, Rendered
from qwen_edge.renderer.process import RendererProcess

_T = TypeVar("_T")

log = logging.getLogger(__name__)

RENDER_SECONDS = 5.0
MOST_MESSAGES = 10_000  # of a request: what crosses to the daemon for them holds its event loop for 0.05 s
_START_SECONDS = 30.0  # until a new process is there: Python may come from a slow card
_NO_TEMPLATE = (
    "The model has no chat template, and nothing but chat is served here. A base model has none: take its chat (or "
    "instruct) version, or put a chat_template.jinja into the checkpoint's folder and convert it again."
)
_SICK = "Mend the template (chat_template.jinja in the checkpoint's folder) and convert the model again."


class Renderer:
    """Create, `spawn`, then use on the daemon's event loop until `stop`. Without `spawn` it starts at the first use."""

    def __init__(
        self, *, seconds: float = RENDER_SECONDS, start: Callable[[float], RendererProcess] = RendererProcess
    ) -> None:
        """A question takes no longer than `seconds`, which `start` is told, too."""
        self._seconds, self._start = seconds, start
        self._process: RendererProcess | None = None
        self._opened: TemplateSource | None = None  # in this process
        self._known: tuple[TemplateSource, TemplateAbilities] | None = None
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._stopped = False

    def spawn(self) -> None:
        """Start the process; needs no event loop. If that fails, it is tried again when the process is needed."""
        with contextlib.suppress(OSError):
            self._process = self._start(self._seconds)

    @property
    def pid(self) -> int | None:
        return self._process.process.pid if self._process else None

    async def open(self, source: TemplateSource | None) -> TemplateAbilities:
        """Try the template. Raises UnservableError, saying what is wrong with it, and EngineError if no process can be
        had for that."""
        try:
            answer = await self._ask(_checked(source), None)
        except RequestError as error:
            raise EngineError(f"The model's chat template cannot be tried: {error}") from None
        assert isinstance(answer, Opened)
        return answer.abilities

    async def render(self, model: Ready, request: ChatRequest) -> Rendered:
        """The prompt of a request to this model. Raises RequestError."""
        if len(request.messages) > (most := min(model.context, MOST_MESSAGES)):
            raise too_many_messages(len(request.messages), most)
        return await self._rendered(model, Render(request))

    async def next_turn(self, model: Ready, request: ChatRequest, said: Sequence[Delta]) -> tuple[Segment, ...]:
        """What the next prompt will begin with, if `said` is the answer. Raises RequestError."""
        content = "".join(piece.text for piece in said if isinstance(piece, Content))
        calls = tuple(replace(call, logprobs=()) for call in whole_calls(said))
        return (await self._rendered(model, Foresee(request, content, calls))).prompt

    async def stop(self) -> None:
        """End the process. Questions that wait fail."""
        self._stopped = True
        if self._worker:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        while not self._jobs.empty():
            self._jobs.get_nowait().fail(stopping())
        await self._end()

    async def _rendered(self, model: Ready, question: Render | Foresee) -> Rendered:
        try:
            answer = await self._ask(_checked(TemplateSource.of(model)), question)
        except UnservableError as error:  # a file that has been exchanged since the start
            raise unavailable(str(error), retry_after=60) from None
        if isinstance(answer, Refused):
            raise RequestError(answer.why, parameter=answer.parameter)
        assert isinstance(answer, Rendered)
        return answer

    async def _ask(self, source: TemplateSource, question: Render | Foresee | None) -> Answer:
        """The answer, when it is this question's turn; without a question only the template is opened. Raises
        RequestError and UnservableError. Who leaves while a question is being answered does not disturb that."""
        if self._stopped:
            raise stopping()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        job = _Job(source, question)
        self._jobs.put_nowait(job)
        return await job.answer

    async def _work(self) -> None:
        """Do one job after the other."""
        while True:
            job = await self._jobs.get()
            if job.answer.done():  # whoever asked has gone
                continue
            try:
                job.succeed(await self._do(job))
            except asyncio.CancelledError:
                job.fail(stopping())
                raise
            except (RequestError, UnservableError) as error:
                job.fail(error)
            except Exception as error:  # a bug of ours is told where it is asked for, and keeps nobody from asking on
                job.fail(error)
                await self._end()

    async def _do(self, job: _Job) -> Answer:
        """Raises RequestError and UnservableError."""
        for _ in range(2):  # a process may have died of something else, as by the kernel's OOM killer
            try:
                process = await self._ready_process(job.source)
                if job.question is None:
                    assert self._known
                    return Opened(self._known[1])
                answer = await _within(self._seconds, process.ask(job.question))
            except (EOFError, ConnectionError):
                log.warning("the process that renders chat templates has died: another one is started")
                await self._end()
            except asyncio.TimeoutError:
                log.warning("a chat template has taken longer than %g s: its process is replaced", self._seconds)
                await self._end()
                raise job.failure(f"it takes longer than {self._seconds:g} s") from None
            except RecursionError:
                raise RequestError("The messages or tools are nested too deeply.", parameter="messages") from None
            else:
                if isinstance(answer, Refused) and answer.spent:
                    await self._end()
                return answer
        raise job.failure("it ends the process in which it is rendered")

    async def _ready_process(self, source: TemplateSource) -> RendererProcess:
        """A process that has this template open. Raises UnservableError and RequestError; TimeoutError, EOFError and
        ConnectionError if the template hangs or ends the process."""
        if self._process is None:
            try:
                self._process = self._start(self._seconds)
            except OSError as error:
                raise unavailable(f"No process can be started now: {error.strerror}.", retry_after=5) from None
        try:
            await _within(_START_SECONDS, self._process.started())
        except asyncio.TimeoutError:
            await self._end()
            raise unavailable("The process that renders chat templates does not start.", retry_after=5) from None
        if self._opened != source:
            self._opened = None
            known = self._known[1] if self._known and self._known[0] == source else None
            answer = await _within(self._seconds, self._process.ask(Open(source, known)))
            if isinstance(answer, Refused):
                await self._end()
                raise _unusable(answer.why)
            assert isinstance(answer, Opened)
            self._opened, self._known = source, (source, answer.abilities)
        return self._process

    async def _end(self) -> None:
        """Kill the process, if there is one, and reap it."""
        process, self._process, self._opened = self._process, None, None
        if process:
            process.end()
            await asyncio.get_running_loop().run_in_executor(None, process.reap)


class _Job:
    """A question that somebody waits for. Without a question it is about the template itself."""

    def __init__(self, source: TemplateSource, question: Render | Foresee | None) -> None:
        self.source, self.question = source, question
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def succeed(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def failure(self, why: str) -> RequestError | UnservableError:
        """The error of a template that is of no use for this."""
        if self.question is None:
            return _unusable(why)
        return RequestError(f"The model's chat template cannot render these messages: {why}.", parameter="messages")


async def _within(seconds: float, thing: Coroutine[Any, Any, _T]) -> _T:
    """Its result. Raises TimeoutError. (`asyncio.wait_for` of Python 3.11 may swallow the cancellation of a task.)"""
    task = asyncio.ensure_future(thing)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise asyncio.TimeoutError
    return task.result()


def check_template(source: TemplateSource | None, *, seconds: float = RENDER_SECONDS) -> TemplateAbilities:
    """Try a template in a process with limits, from a command that has no event loop. Raises UnservableError and
    EngineError as `Renderer.open` does."""

    async def check() -> TemplateAbilities:
        renderer = Renderer(seconds=seconds)
        try:
            return await renderer.open(source)
        finally:
            await renderer.stop()

    return asyncio.run(check())


def _checked(source: TemplateSource | None) -> TemplateSource:
    if source is None:
        raise UnservableError(_NO_TEMPLATE)
    return source


def _unusable(why: str) -> UnservableError:
    return UnservableError(f"The model's chat template is of no use: {why.rstrip('.')}. {_SICK}")
