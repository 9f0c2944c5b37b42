"""Asks the models and writes down their answers, one after another; what is in the file already is not asked again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from qwen_edge.client.private_daemon import private_daemon
from qwen_edge.client.server import Server, UnreachableError, server_url, servers_at
from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import printable
from qwen_edge.rate.answers import Answer, Answers, Model
from qwen_edge.rate.questions import Question

_LONGEST_NAME = 60  # characters
_THOUGHT = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)  # of a server that does not separate the reasoning

Say = Callable[[str], None]
Stage = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]  # title, number of answers -> advance


@dataclass(frozen=True)
class Target:
    """What answers under a name: the server at a URL, or a model file, for which a daemon is started."""

    name: str
    where: str | Path

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read NAME=URL, NAME=FILE, URL or FILE. Raises UserError."""
        name, _, where = ("", "", text) if server_url(text) or Path(text).is_file() else text.rpartition("=")
        if "://" in name:  # in NAME=http://host/?a=b, the last = is part of the URL
            name, _, where = text.partition("=")
        target = server_url(where) or Path(where).expanduser()
        known = target.is_file() if isinstance(target, Path) else target.startswith(("http://", "https://"))
        if not known:
            raise UserError(
                f"{printable(text)} is neither the address of a server (http://...) nor a file. Write NAME=URL, URL, "
                "NAME=FILE.gguf or FILE.gguf."
            )
        name = name.strip() or (urlsplit(target).netloc if isinstance(target, str) else target.stem)
        if len(name) > _LONGEST_NAME:
            raise UserError(f"The name {printable(name)} has more than {_LONGEST_NAME} characters. Write NAME=TARGET.")
        return cls(name, target)


def parse_targets(texts: Sequence[str]) -> list[Target]:
    """Targets with different names. Raises UserError."""
    targets = [Target.parse(text) for text in texts]
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two targets have the name {printable(name)}. Write NAME=TARGET to name them.")
    return targets


@dataclass(frozen=True)
class Collector:
    """Asks targets the questions that they have not answered yet, and writes each answer at once. `stage` shows the
    progress of a target; `say` gets a line for each error. `answer_seconds`: the longest time for one answer."""

    answers: Answers
    stage: Stage
    say: Say
    answer_seconds: float = 600.0

    async def collect(self, targets: Sequence[Target]) -> int:
        """Returns how many answers are missing: errors are written to the file, and the next run asks again. Call it
        in the main thread, because daemons are started. Raises UserError if the file cannot be written."""
        missing = 0
        for target in targets:
            questions = [one for one in self.answers.questions if not self.answers.find(one.id, target.name)]
            if questions:
                missing += await self._ask(target, questions)
            else:
                self.say(f"{target.name} has answered all {len(self.answers.questions)} questions")
        return missing

    async def _ask(self, target: Target, questions: Sequence[Question]) -> int:
        async with AsyncExitStack() as stack:
            try:
                server = await stack.enter_async_context(_server_of(target, self.say))
                served = await server.model()
            except UserError as error:
                self.say(f"{target.name}: {error}")
                return len(questions)
            self._register(Model(target.name, str(target.where), served))
            with self.stage(target.name, len(questions)) as advance:
                return await self._ask_all(target, server, questions, advance)

    def _register(self, model: Model) -> None:
        known = self.answers.models.get(model.name)
        if known and known.served != model.served:
            raise UserError(
                f"In {self.answers.path}, {printable(model.name)} is {printable(known.served)}, but {model.target} "
                f"serves {printable(model.served)}. Write NAME=TARGET with another name."
            )
        if known != model:
            self.answers.add(model)

    async def _ask_all(
        self, target: Target, server: Server, questions: Sequence[Question], advance: Callable[[float], None]
    ) -> int:
        answered = 0
        for question in questions:
            try:
                self.answers.add(await self._answer(target.name, server, question))
                answered += 1
            except UserError as error:
                self.answers.add(Answer(question.id, target.name, error=str(error)[:1000]))
                self.say(f"{target.name}, {question.id}: {error}")
                if isinstance(error, UnreachableError):
                    break  # the other questions would only wait for the same
            advance(1)
        return len(questions) - answered

    async def _answer(self, name: str, server: Server, question: Question) -> Answer:
        sampling = self.answers.header.sampling
        asking = server.ask(
            question.question,
            max_tokens=sampling.max_tokens,
            required={"temperature": sampling.temperature},
            chat_template_kwargs={"enable_thinking": sampling.thinking},
        )
        try:
            found = await asyncio.wait_for(asking, self.answer_seconds)
        except asyncio.TimeoutError:
            raise UserError(
                f"{server.url} has not answered within {self.answer_seconds:g} s (--answer-seconds)."
            ) from None
        text = _THOUGHT.sub("", found.text, count=1).strip()
        if not text:
            raise UserError(
                f"{server.url} has only thought: its {found.tokens} tokens ended before an answer (--max-tokens)."
            )
        seconds = round(found.at[-1], 3)
        return Answer(question.id, name, text, found.tokens, seconds, cut=found.finish == "length")


@asynccontextmanager
async def _server_of(target: Target, say: Say) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        url = target.where
        if isinstance(url, Path):
            url = (await stack.enter_async_context(private_daemon(url, say=say))).url
        (server,) = await stack.enter_async_context(servers_at([url]))
        yield server
