"""The daemon's handle on the renderer process: starts it, sends it questions, and replaces it when a template hangs or
crashes it.

Questions are sent one at a time, each with a deadline. Whatever the template does, the question ends with an answer or
with an error for the client, and the questions behind it go to the next process.
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
from qwen_edge.renderer.messages import Answer, Open, Opened, Refused, Render, Rendered, RenderNextTurn
from qwen_edge.renderer.process import RendererProcess

_T = TypeVar("_T")

log = logging.getLogger(__name__)

RENDER_SECONDS = 5.0
_MOST_MESSAGES = 10_000  # in a request: to receive their prompt blocks the daemon's event loop for 0.05 s
_START_SECONDS = 30.0  # for a new process to start: Python may be loaded from a slow card
_NO_TEMPLATE = (
    "The model has no chat template, and qwen-edge serves only chat. A base model has no template: use its chat (or "
    "instruct) version, or put a chat_template.jinja into the checkpoint's folder and convert it again."
)
_FIX_TEMPLATE = "Correct the template (chat_template.jinja in the checkpoint's folder) and convert the model again."


def refuse_too_many_messages(count: int, context: int = _MOST_MESSAGES) -> None:
    """Raises RequestError if a request has more messages than can be rendered, or than a context of so many tokens can
    hold. Checked twice: by a dialect before it checks each message, which would block the event loop; and by the
    renderer for every dialect, with the context of the model that answers."""
    if count > (most := min(context, _MOST_MESSAGES)):
        raise too_many_messages(count, most)


class Renderer:
    """Used on the daemon's event loop until `stop`. `spawn` starts the process; without it, the first use does."""

    def __init__(
        self, *, seconds: float = RENDER_SECONDS, start: Callable[[float], RendererProcess] = RendererProcess
    ) -> None:
        """`seconds`: the deadline of a question. `start` starts the process, and gets the deadline too."""
        self._seconds, self._start = seconds, start
        self._process: RendererProcess | None = None
        self._opened: TemplateSource | None = None  # the template that the process has compiled
        self._known: tuple[TemplateSource, TemplateAbilities] | None = None
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._stopped = False

    def spawn(self) -> None:
        """Start the process; needs no event loop. If that fails, the first use tries again."""
        with contextlib.suppress(OSError):
            self._process = self._start(self._seconds)

    @property
    def pid(self) -> int | None:
        return self._process.process.pid if self._process else None

    @property
    def has_template(self) -> bool:
        """Whether a template has been compiled, so that its abilities are known."""
        return self._known is not None

    @property
    def abilities(self) -> TemplateAbilities:
        """What the template that was compiled last can do; nothing, before the first."""
        return self._known[1] if self._known else TemplateAbilities()

    async def open(self, source: TemplateSource | None) -> TemplateAbilities:
        """Compile and probe the template. Raises UnservableError if the template is unusable, EngineError if no process
        can be started."""
        try:
            answer = await self._ask(_checked(source), None)
        except RequestError as error:
            raise EngineError(f"The model's chat template cannot be tried: {error}") from None
        assert isinstance(answer, Opened)
        return answer.abilities

    async def render(self, model: Ready, request: ChatRequest) -> Rendered:
        """Render the prompt of a request. Raises RequestError."""
        refuse_too_many_messages(len(request.messages), model.context)
        return await self._rendered(model, Render(request))

    async def next_turn(self, model: Ready, request: ChatRequest, said: Sequence[Delta]) -> tuple[Segment, ...]:
        """Render the start of the next prompt, given that `said` is the answer. Raises RequestError."""
        content = "".join(piece.text for piece in said if isinstance(piece, Content))
        calls = tuple(replace(call, logprobs=()) for call in whole_calls(said))
        return (await self._rendered(model, RenderNextTurn(request, content, calls))).prompt

    async def stop(self) -> None:
        """End the process. Waiting questions fail."""
        self._stopped = True
        if self._worker:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        while not self._jobs.empty():
            self._jobs.get_nowait().fail(stopping())
        await self._end()

    async def _rendered(self, model: Ready, question: Render | RenderNextTurn) -> Rendered:
        try:
            answer = await self._ask(_checked(TemplateSource.of(model)), question)
        except UnservableError as error:  # the model file was replaced since the daemon's start
            raise unavailable(str(error), retry_after=60) from None
        if isinstance(answer, Refused):
            raise RequestError(answer.why, parameter=answer.parameter)
        assert isinstance(answer, Rendered)
        return answer

    async def _ask(self, source: TemplateSource, question: Render | RenderNextTurn | None) -> Answer:
        """Queue the question and wait for its answer. Without a question, only compile the template. A cancelled caller
        does not interrupt the process. Raises RequestError and UnservableError."""
        if self._stopped:
            raise stopping()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        job = _Job(source, question)
        self._jobs.put_nowait(job)
        return await job.answer

    async def _work(self) -> None:
        """Process the queued jobs in order."""
        while True:
            job = await self._jobs.get()
            if job.answer.done():  # the caller was cancelled
                continue
            try:
                job.succeed(await self._do(job))
            except asyncio.CancelledError:
                job.fail(stopping())
                raise
            except (RequestError, UnservableError) as error:
                job.fail(error)
            except Exception as error:  # a bug: raise it in the caller, and go on with the next job
                job.fail(error)
                await self._end()

    async def _do(self, job: _Job) -> Answer:
        """Process one job. Raises RequestError and UnservableError."""
        for _ in range(2):  # the process may have died for another reason, such as the kernel's OOM killer
            try:
                process = await self._ready_process(job.source)
                if job.question is None:
                    assert self._known
                    return Opened(self._known[1])
                answer = await _within(self._seconds, process.ask(job.question))
            except (EOFError, ConnectionError):
                log.warning("the process that renders chat templates has died, and is started again")
                await self._end()
            except asyncio.TimeoutError:
                log.warning(
                    "a chat template has taken longer than %g s; the process that renders it is replaced", self._seconds
                )
                await self._end()
                raise job.failure(f"it takes longer than {self._seconds:g} s") from None
            except RecursionError:
                raise RequestError("The messages or tools are nested too deeply.", parameter="messages") from None
            else:
                if isinstance(answer, Refused) and answer.out_of_memory:
                    await self._end()
                return answer
        raise job.failure("it crashes the process in which it is rendered")

    async def _ready_process(self, source: TemplateSource) -> RendererProcess:
        """A process that has compiled this template. Raises UnservableError and RequestError; TimeoutError if the
        template hangs, EOFError or ConnectionError if it crashes the process."""
        if self._process is None:
            try:
                self._process = self._start(self._seconds)
            except OSError as error:
                raise unavailable(
                    f"The process that renders chat templates cannot be started now: {error.strerror}. Try again.",
                    retry_after=5,
                ) from None
        try:
            await _within(_START_SECONDS, self._process.started())
        except asyncio.TimeoutError:
            await self._end()
            raise unavailable(
                f"The process that renders chat templates has not started within {_START_SECONDS:.0f} s. Try again.",
                retry_after=5,
            ) from None
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
    """A queued question and the future of its answer. Without a question, the template is only compiled."""

    def __init__(self, source: TemplateSource, question: Render | RenderNextTurn | None) -> None:
        self.source, self.question = source, question
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def succeed(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def failure(self, why: str) -> RequestError | UnservableError:
        """The error for a template that fails at this job."""
        if self.question is None:
            return _unusable(why)
        return RequestError(f"The model's chat template cannot render these messages: {why}.", parameter="messages")


async def _within(seconds: float, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result. Raises TimeoutError after `seconds`. (Python 3.11's `asyncio.wait_for` may swallow the
    cancellation of a task.)"""
    task = asyncio.ensure_future(coroutine)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise asyncio.TimeoutError
    return task.result()


def check_template(source: TemplateSource | None, *, seconds: float = RENDER_SECONDS) -> TemplateAbilities:
    """Probe a template in a process with limits, from a command without an event loop. Raises UnservableError and
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
    return UnservableError(f"The model's chat template cannot be used: {why.rstrip('.')}. {_FIX_TEMPLATE}")
