"""Who answers: the daemon that runs if it has the model, else a private one, which is replaced when it dies."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from qwen_edge.client.server import RefusedError
from qwen_edge.core.errors import NotNowError, UserError
from qwen_edge.talk.partner import Partner, Place, _context


@dataclass
class Private:
    """A private daemon as far as a partner knows it."""

    url: str
    runner: web.AppRunner

    async def has_ended(self, _seconds: float) -> bool:
        return not self.runner.sites


class Home:
    """Servers by name, each with its models, and the private daemons that were started and are left."""

    def __init__(self) -> None:
        self.runners, self.started, self.left, self.said = [], [], [], []

    async def serve(self, *models: str, statuses=(200,)) -> str:
        answers = list(statuses)

        async def listed(_request):
            status = answers.pop(0) if len(answers) > 1 else answers[0]
            data = [{"id": name, "context_length": 64} for name in models]
            return web.json_response({"data": data, "error": {"message": "loading"}}, status=status)

        async def answer(_request):
            return web.Response(text=f'data: {{"model": "{models[0]}", "finish_reason":"stop"}}\n\n')

        app = web.Application()
        app.router.add_get("/v1/models", listed)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        self.runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    @asynccontextmanager
    async def start(self, model, *, settings, say):
        if model == "missing":
            raise NotNowError("There is no model at missing.")
        private = Private(await self.serve(f"{model}-private"), self.runners[-1])
        self.started.append(private)
        try:
            yield private
        finally:
            self.left.append(private)

    def partner(self, running: str, settings: Path | None = None) -> Partner:
        return Partner(Place(running, settings, self.start), self.said.append)


@pytest.fixture
async def home():
    home = Home()
    yield home
    for runner in home.runners:
        await runner.cleanup()


NOBODY = "http://127.0.0.1:1"


async def asked(partner: Partner) -> str:
    return "".join([chunk["model"] async for chunk in partner.stream({"messages": []})])


async def test_the_daemon_that_runs_answers(home):
    running = await home.serve("qwen")
    for wanted in (None, "qwen", "qwen.gguf", "models/qwen.gguf"):
        async with home.partner(running) as partner:
            await partner.use(wanted)
            assert (partner.url, partner.model, partner.context, partner.is_private) == (running, "qwen", 64, False)
    assert not home.started


@pytest.mark.parametrize("wanted", [None, "other"])
async def test_otherwise_a_private_one_does_and_is_left_at_the_end(home, wanted):
    running = await home.serve("qwen") if wanted else NOBODY
    async with home.partner(running) as partner:
        await partner.use(wanted)
        assert (partner.model, partner.is_private) == (f"{wanted}-private", True)
        assert not home.left
    assert home.left == home.started


async def test_a_settings_file_is_for_a_private_one(home, tmp_path):
    async with home.partner(await home.serve("qwen"), tmp_path) as partner:
        await partner.use(None)
        assert partner.is_private


async def test_a_url_is_asked_or_is_an_error(home):
    url = await home.serve("far", "further")
    async with home.partner(NOBODY) as partner:
        await partner.use(f"{url}/v1")
        assert (partner.model, await partner.others()) == ("far", ["further"])
        await partner.use(url.removeprefix("http://"))
        await partner.use("further")
        assert (partner.url, partner.model) == (url, "further")
        with pytest.raises(UserError, match="cannot be reached"):
            await partner.use(NOBODY)
        assert (await asked(partner), partner.url) == ("far", url)
    assert not home.started


async def test_a_private_daemon_that_has_died_is_started_again_for_the_next_question(home):
    async with home.partner(NOBODY) as partner:
        await partner.use("small")
        await home.started[0].runner.cleanup()
        assert await asked(partner) == "small-private"
        assert len(home.started) == 2
        assert home.left == home.started[:1]
    assert "started again" in home.said[0]


async def test_a_model_that_is_not_there_leaves_who_answered_before(home):
    async with home.partner(NOBODY) as partner:
        await partner.use("small")
        with pytest.raises(NotNowError):
            await partner.use("missing")
        assert await asked(partner) == "small-private"
        await partner.use("large")
        assert await asked(partner) == "large-private"
        assert home.left == home.started[:1]


async def test_a_server_that_loads_is_waited_for(home, monkeypatch):
    monkeypatch.setattr("qwen_edge.talk.partner._PAUSE", 0)
    running = await home.serve("qwen", statuses=[503, 503, 200])
    async with home.partner(running) as partner:
        await partner.use(None)
        assert partner.url == running
    assert home.said == [f"waiting for {running}: loading"]


async def test_a_daemon_that_wants_a_key_says_so_and_is_no_reason_for_another_one(home):
    running = await home.serve("qwen", statuses=[401])
    async with home.partner(running) as partner:
        with pytest.raises(RefusedError):
            await partner.use(None)
        await partner.use("other")
        assert partner.is_private


@pytest.mark.parametrize("status", [404, 500])
async def test_another_program_at_the_address_is_passed_over(home, status):
    async with home.partner(await home.serve(statuses=[status])) as partner:
        await partner.use(None)
        assert partner.is_private


async def test_an_address_may_be_longer_than_any_name_of_a_file(home):
    partner = home.partner("")
    with pytest.raises(UserError, match="is not the address of a server"):
        await partner.use("x" * 300 + ":80")


@pytest.mark.parametrize("told", [True, -1, 0, 10**400, "many", 5.5])
def test_what_is_no_number_of_tokens_is_no_context(told):
    assert _context({"id": "m", "context_length": told, "meta": {"n_ctx": 4096}}) == 4096
