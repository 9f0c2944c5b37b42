"""The tests of the page rely on this: what a page must not do is seen, and axe sees a picture without a text."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.browser.axe import violations

_PAGE = """<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>A bad page</title>
<main><h1>Bad</h1><img src="data:," height="5"></main>
<script>var forbidden = 1;</script><script src="late.js"></script>"""
_SCRIPT = """
fetch("http://elsewhere.invalid/").catch(() => {});
setTimeout(() => { throw new Error("nobody catches this"); });
setTimeout(() => alert("hello"), 10);
setTimeout(() => { document.title = "over"; }, 20);
"""


async def _page(_: web.Request) -> web.Response:
    policy = {"Content-Security-Policy": "script-src 'self'"}
    return web.Response(text=_PAGE, content_type="text/html", headers=policy)


async def _script(_: web.Request) -> web.Response:
    return web.Response(text=_SCRIPT, content_type="text/javascript")


@pytest.fixture
async def site():
    app = web.Application()
    app.router.add_get("/", _page)
    app.router.add_get("/late.js", _script)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_what_a_page_must_not_do_fails_the_test_and_axe_finds_what_it_should(visit, site):
    page = await visit(site)
    await page.wait_for_function("document.title === 'over'")
    assert [name for name in await violations(page) if name.startswith("image-alt")]
    with pytest.raises(AssertionError) as seen:
        visit.check()
    for part in ("Content Security Policy", "another host: http://elsewhere", "nobody catches this", "alert dialog"):
        assert part in str(seen.value)
        visit.forgive(part)
    visit.forgive("ERR_NAME_NOT_RESOLVED")
