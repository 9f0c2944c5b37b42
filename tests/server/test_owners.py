"""A key sees, pins and deletes what it has asked; an admin's key what all have; and nobody is answered sooner for what
others have asked."""

import asyncio
import json

import pytest

from qwen_edge.auth.keys import Keys
from qwen_edge.cli import main

LONG = "The lamp in the kitchen is on. " * 10
KEYS = {"key-of-one": "one", "key-of-two": "two", "key-of-both": "two", "key-of-boss": "boss"}


class Home:
    """A server with the keys above, spoken to with each."""

    def __init__(self, served) -> None:
        self.served = served

    async def call(self, key: str, method: str = "GET", path: str = "", **options):
        url = f"{self.served.address}/v1/cache{path}"
        headers = {"Authorization": f"Bearer key-of-{key}"}
        async with self.served.http.request(method, url, headers=headers, **options) as response:
            return response.status, await response.json()

    async def kept(self, key: str) -> list[dict]:
        return (await self.call(key))[1]["data"]

    async def ask(self, key: str, text: str = LONG, **body) -> int:
        """How many tokens of the prompt were cached."""
        body |= {"messages": [{"role": "user", "content": text}]}
        async with self.served.post(body, headers={"x-api-key": f"key-of-{key}"}) as response:
            assert response.status == 200
            return (await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.fixture
def home(serve):
    async def start(settings: str = "") -> Home:
        return Home(await serve(parallel=4, settings=settings, keys=Keys(KEYS, admins={"key-of-boss"})))

    return start


async def test_each_key_lists_its_own_and_an_admins_all_with_their_owners(home):
    served = await home()
    await served.ask("one", f"{LONG} first")
    await served.ask("two", f"{LONG} second")
    (mine,) = await served.kept("one")
    assert "first" in mine["ends"]
    assert "owner" not in mine
    assert [one["ends"] for one in await served.kept("both")] == [one["ends"] for one in await served.kept("two")]
    assert sorted(one["owner"] for one in await served.kept("boss")) == ["one", "two"]


async def test_the_entry_of_another_key_is_not_there(home):
    served = await home()
    await served.ask("one")
    ((key,),) = [[one["key"] for one in await served.kept("one")]]
    for method, path in (("DELETE", f"/{key}"), ("POST", f"/{key}/pin")):
        status, answer = await served.call("two", method, path)
        missing = await served.call("two", method, path.replace(key, "0123456789"))
        assert (status, answer["error"]["code"]) == (404, "not_found")
        assert answer["error"]["message"].replace(key, "0123456789") == missing[1]["error"]["message"]
    (mine,) = await served.kept("one")
    assert mine["pinned_until"] == 0
    assert (await served.call("one", "POST", f"/{key}/pin"))[0] == 200
    assert (await served.call("boss", "DELETE", f"/{key}"))[0] == 200
    assert await served.kept("one") == []


async def test_deleting_what_two_have_asked_leaves_it_to_the_other(home):
    served = await home()
    for key in ("one", "two", "one", "two"):
        await served.ask(key)
    ((key,),) = [[one["key"] for one in await served.kept("one")]]
    await served.call("one", "DELETE", f"/{key}")
    assert await served.kept("one") == []
    assert await served.ask("two") > len(LONG)
    assert await served.ask("one") == 0


async def test_cached_tokens_tell_a_key_nothing_of_what_others_have_asked(home):
    served = await home()
    await served.ask("one")
    assert await served.ask("two") == 0
    assert await served.ask("two") > len(LONG)


async def test_all_share_where_the_settings_say_so_and_entries_stay_their_owners(home):
    served = await home("  share_cache: all\n")
    await served.ask("one")
    assert await served.ask("two") > len(LONG)
    assert len(await served.kept("one")) == 1
    assert sorted(one["owner"] for one in await served.kept("boss")) == ["one", "two"]


async def test_what_an_admin_pins_is_shared_with_all_and_listed_for_nobody_else(home):
    served = await home()
    await served.ask("one")
    assert await served.ask("two") == 0
    await served.ask("boss", f"{LONG} and all that", prompt_cache_retention="24h")
    assert await served.ask("both", f"{LONG} and all this") > len(LONG)
    assert not any("that" in one["ends"] for one in [*await served.kept("one"), *await served.kept("two")])


async def test_without_keys_everybody_sees_everything_and_no_owner(serve):
    served = await serve()
    await served.ask(LONG)
    async with served.http.get(f"{served.address}/v1/cache") as response:
        (one,) = (await response.json())["data"]
    assert "owner" not in one
    _, answer = await served.ask(LONG)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > len(LONG)


async def test_the_command_shows_owners_to_an_admin(home, capsys, monkeypatch):
    served = await home()
    await served.ask("one", f"{LONG} first")
    shown = {}
    for key in ("one", "boss"):
        monkeypatch.setenv("QWEN_EDGE_API_KEY", f"key-of-{key}")
        await asyncio.to_thread(main, "cache", "--url", served.served.address, "ls")
        shown[key] = capsys.readouterr().out
    assert "owner" in shown["boss"]
    assert " one " in shown["boss"]
    assert "owner" not in shown["one"]
    await asyncio.to_thread(main, "cache", "--url", served.served.address, "ls", "--json")
    assert json.loads(capsys.readouterr().out)[0]["owner"] == "one"
