"""Whatever a model, a user, a file or a server says is text on the page: nothing of it runs, loads, or acts."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from tests.browser.chat import Chat
from tests.browser.front import front, streamed
from tests.browser.hostile import ELSEWHERE, HUGE, MARKUP, RUN, TEXTS

PAYLOAD = f"<img src=x: onerror={RUN}><script>{RUN}</script>\"'><svg onload={RUN}>"

# what must never be in the page, however an answer is shown: `ids` are those of the page without answers
_AUDIT = """([ids, forbidden]) => {
  const found = [];
  const say = (what, node) => found.push(`${what}: ${node.outerHTML.slice(0, 200)}`);
  if (window.__pwned) found.push('something ran');
  for (const node of document.querySelectorAll(forbidden)) say('forbidden', node);
  for (const node of document.querySelectorAll('*')) {
    for (const { name, value } of node.attributes) {
      if (name.startsWith('on')) say('handler', node);
      if (/^(?:xlink:)?href$|^src$|^action$|^data$/.test(name)) {
        const { protocol } = new URL(value, document.baseURI);
        if (!['http:', 'https:', 'mailto:', 'blob:'].includes(protocol)) say('address', node);
      }
    }
    if (node.matches('article a')) {
      if (node.target !== '_blank' || !node.relList.contains('noopener')) say('link', node);
      if (!/^(https?:|mailto:)/.test(node.getAttribute('href'))) say('relative link', node);
    }
    if (node.id && document.getElementById(node.id) !== node) say('two of an id', node);
  }
  for (const id of ids) if (!document.getElementById(id)) found.push(`lost id ${id}`);
  return found;
}"""
_FORBIDDEN = """iframe, object, embed, base, style, form[action], marquee, video, audio, picture, math, template, map,
applet, [formaction], [srcdoc], [srcset], [ping], [autofocus], [contenteditable], [popover], [is], [slot],
[accesskey], meta[http-equiv], script:not([src^="page/"]), link:not([href^="page/"]), img:not([src^="page/"]),
[style*=url], x-clobber, [class*=clobber], [id*=clobber], [name*=clobber], article svg :not(path),
article input, [data-clobber]"""
_IDS = "() => [...document.querySelectorAll('[id]')].map((node) => node.id)"


class Audit:
    """Looks for what a text has brought about in the page."""

    def __init__(self, page: Page, ids: list[str]) -> None:
        self._page, self._ids = page, ids

    @classmethod
    async def of(cls, page: Page) -> Audit:
        return cls(page, await page.evaluate(_IDS))

    async def check(self, name: str) -> None:
        await self._page.evaluate("() => new Promise((done) => setTimeout(done))")  # events of what was loaded
        found = await self._page.evaluate(_AUDIT, [self._ids, _FORBIDDEN])
        assert not found, f"{name}: " + "\n".join(found)


@pytest.fixture
async def proxy(serve):
    served = await serve()
    async with front(served.address) as proxy:
        yield proxy


async def _say(proxy, chat: Chat, text: str):
    """An answer that consists of this text, in pieces that cut it everywhere."""
    pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
    proxy.instead["/v1/chat/completions"] = streamed(pieces)
    return await chat.answered("go on")


async def test_no_markup_of_an_answer_runs_or_loads_or_acts_also_after_a_reload(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    for name, text in MARKUP.items():
        answer = await _say(proxy, chat, text)
        await audit.check(name)
        await expect(answer.locator(".prose"), name).not_to_be_empty()
    await chat.page.reload()
    await expect(chat.answers).to_have_count(len(MARKUP))
    await audit.check("after a reload")
    for button in ("中文", "English"):
        await chat.page.get_by_role("button", name=button).click()
        await audit.check(button)


async def test_links_show_where_they_lead_and_do_not_leave_the_page(visit, proxy):
    chat = Chat(await visit(proxy.address))
    await _say(proxy, chat, "\n\n".join(MARKUP[name] for name in MARKUP if "javascript" in name or "data" in name))
    answer = await _say(proxy, chat, "[good](https://good.example/) [mail](mailto:a@b.example) [bad](javascript:1)")
    links = answer.get_by_role("link")
    await expect(links).to_have_text(["good", "mail"])
    address = chat.page.url
    for words in await chat.page.get_by_text("press", exact=True).all():
        await words.click()
    assert chat.page.url == address
    assert not await chat.page.evaluate("window.__pwned")


async def test_markup_is_shown_as_it_was_written(visit, proxy):
    chat = Chat(await visit(proxy.address))
    for text in (PAYLOAD, f"<b>bold</b> & <i>{RUN}</i>", "&lt;b&gt; &amp;lt; `&lt;`"):
        answer = await _say(proxy, chat, text)
        shown = text if text is not None else ""
        if text.startswith("&"):
            shown = "<b> &lt; &lt;"
        await expect(answer).to_contain_text(shown)


async def test_odd_characters_do_not_reach_beyond_their_message(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    heading = chat.page.get_by_role("heading", level=2)
    height = (await heading.bounding_box())["height"]
    for name, text in TEXTS.items():
        await chat.button("New conversation").first.click()
        proxy.instead["/v1/chat/completions"] = streamed([text])
        answer = await chat.answered(text)
        await audit.check(name)
        assert (await heading.bounding_box())["height"] == height, f"{name}: the heading has grown"
        box = await answer.get_by_role("button", name="Copy", exact=True).bounding_box()
        assert box and box["x"] < 640, f"{name}: the direction of writing has turned"
    assert await _overflow(chat.page) == 0


async def test_a_huge_answer_leaves_the_page_alive(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    for name, text in HUGE.items():
        await chat.button("New conversation").first.click()
        proxy.instead["/v1/chat/completions"] = streamed(text[at : at + 4000] for at in range(0, len(text), 4000))
        await chat.answered("go on")
        await audit.check(name)
        assert await _overflow(chat.page) == 0, name
        proxy.instead["/v1/chat/completions"] = streamed(["Still here."])
        await expect(await chat.answered("are you there?")).to_contain_text("Still here.")
        await chat.page.reload()
        await expect(chat.answers.last).to_contain_text("Still here.")


async def _overflow(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    return await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


async def test_markup_in_questions_titles_settings_and_exports_is_text(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    await chat.set(System_prompt=PAYLOAD)
    await chat.answered(PAYLOAD)
    await expect(chat.questions).to_contain_text([PAYLOAD])
    await expect(chat.page.get_by_role("heading", level=2)).to_contain_text("<img src=x:")
    listed = chat.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    await listed.get_by_role("button", name="Rename").click()
    await chat.page.get_by_role("dialog").get_by_role("textbox").fill(PAYLOAD)
    await chat.page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    await expect(listed).to_contain_text([PAYLOAD])
    await audit.check("title")
    await listed.get_by_role("button", name="Delete").click()
    await expect(chat.page.get_by_role("dialog")).to_contain_text(PAYLOAD)
    await audit.check("dialog")
    await chat.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await chat.questions.first.hover()
    await chat.questions.first.get_by_role("button", name="Edit").click()
    await expect(chat.questions.first.get_by_role("textbox")).to_have_value(PAYLOAD)
    await chat.page.get_by_label("Export").click()
    async with chat.page.expect_download() as download:
        await chat.button("As Markdown").click()
    assert "/" not in (await download.value).suggested_filename
    await audit.check("all of them")


async def test_markup_in_thoughts_calls_models_and_errors_is_text(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    called = {"index": 0, "id": f'"{PAYLOAD}', "type": "function", "function": {"name": PAYLOAD, "arguments": PAYLOAD}}
    proxy.instead["/v1/chat/completions"] = streamed([{"reasoning_content": PAYLOAD}, {"tool_calls": [called]}])
    answer = await chat.answered("go on")
    await answer.get_by_text("Thought for").click()
    await audit.check("thoughts and calls")
    assert (await answer.inner_text()).count("onerror") == 3
    await expect(chat.page.get_by_label(f"Result of {PAYLOAD}")).to_be_visible()
    await chat.page.get_by_label(f"Result of {PAYLOAD}").fill(PAYLOAD)
    await chat.button("Send results").click()
    await expect(chat.page.get_by_role("article", name="Result")).to_contain_text("onerror")
    await audit.check("results")

    async def refused(request: web.Request) -> web.Response:
        error = {"message": PAYLOAD, "type": PAYLOAD, "code": PAYLOAD, "param": PAYLOAD}
        return web.json_response({"error": error}, status=400, headers={"X-Unenforced": "<b>x</b>"})

    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: " + json.dumps({"error": {"message": PAYLOAD}}).encode() + b"\n\n")
        return response

    visit.forgive("400 (Bad Request)")
    for number, one in enumerate((refused, breaks)):
        proxy.instead["/v1/chat/completions"] = one
        await expect(await chat.answered(f"error {number}")).to_contain_text("onerror")
        await audit.check(one.__name__)

    async def models(_: web.Request) -> web.Response:
        data = [{"id": f"{PAYLOAD}{number}", "object": "model", "created": 1, "owned_by": PAYLOAD} for number in (1, 2)]
        return web.json_response({"object": "list", "data": data})

    proxy.instead["/v1/models"] = models
    await chat.page.reload()
    await expect(chat.page).to_have_title(f"{PAYLOAD}1 · qwen-edge")
    await expect(chat.page.get_by_role("combobox", name="Model")).to_contain_text("onerror")
    await audit.check("models")


_NO_STREAMS = [
    b"data: {\n\n",
    b"data: null\n\ndata: 1\n\ndata: []\n\n",
    b'data: {"choices": [{"delta": {"content": {"x": 1}}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": 4000000000}]}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": "__proto__", "id": "x"}]}}]}\n\n',
    b'data: {"choices": "x", "usage": "y"}\n\n',
    b"data: \xff\xfe\n\n",
    b": " + b"x" * 100_000 + b"\n\n",
    b"",
    b"<html><script>window.__pwned=1</script></html>",
]


async def test_a_stream_that_is_none_ends_in_an_error_and_the_next_question_is_answered(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    visit.forgive("console error")  # a stream that is broken may be named there
    for body in _NO_STREAMS:
        await chat.button("New conversation").first.click()
        proxy.instead["/v1/chat/completions"] = _fixed(body)
        await expect(await chat.answered("go on")).to_contain_text("cut off")
        await audit.check(str(body[:80]))
        proxy.instead.clear()
        await expect(await chat.answered("again")).to_contain_text("Hello!")


def _fixed(body: bytes):
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="text/event-stream")

    return answer


async def test_what_the_browser_keeps_is_not_trusted_either(visit, proxy):
    chat = Chat(await visit(proxy.address))
    audit = await Audit.of(chat.page)
    await chat.answered("hi")
    await chat.page.evaluate(
        """(payload) => new Promise((resolve, reject) => {
          localStorage.setItem('qwen-edge.language', payload);
          const opening = indexedDB.open('qwen-edge');
          opening.onerror = reject;
          opening.onsuccess = () => {
            const store = opening.result.transaction('conversations', 'readwrite').objectStore('conversations');
            store.getAll().onsuccess = ({ target }) => {
              const [one] = target.result;
              const all = { content: payload, reasoning: payload, error: payload, status: 'failed', model: payload };
              one.title = payload;
              for (const message of one.messages) Object.assign(message, all);
              one.messages[1].stats = { rate: payload, tokens: payload, firstToken: payload };
              store.put(one).onsuccess = resolve;
            };
          };
        })""",
        PAYLOAD,
    )
    await chat.page.reload()
    await expect(chat.answers).to_contain_text(["onerror"])
    await audit.check("kept")
    await expect(await chat.answered("again")).to_contain_text("Hello!")


async def test_no_other_page_can_frame_or_open_and_use_it(visit, proxy):
    async def attacker(_: web.Request) -> web.Response:
        page = f'<link rel="icon" href="data:,"><iframe src="{proxy.address}"></iframe>'
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", attacker)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    visit.forgive("frame-ancestors")
    visit.forgive("chrome-error")
    page = await visit(f"http://127.0.0.1:{runner.addresses[0][1]}", hosts=(proxy.address.split("/")[2],))
    await asyncio.sleep(0)
    assert await page.frames[1].evaluate("document.body.innerText.includes('qwen-edge')") is False
    await runner.cleanup()


async def test_the_pages_policy_forbids_what_no_answer_should_reach_anyway(visit, proxy):
    page = await visit(proxy.address)
    for part in ("Content Security Policy", "violates the following", "Refused", "Failed to fetch", "another host"):
        visit.forgive(part)
    ran = await page.evaluate(
        """async ([run, elsewhere]) => {
          document.body.insertAdjacentHTML('beforeend', `<img src="x:" onerror="${run}"><base href="${elsewhere}">
            <iframe srcdoc="<script>parent.${run}</script>"></iframe><form action="${elsewhere}" id="f"></form>`);
          const script = document.createElement('script');
          script.textContent = run;
          document.body.append(script);
          document.getElementById('f').submit();
          const sent = await fetch(elsewhere).then(() => 'sent', () => 'not sent');
          await new Promise((done) => setTimeout(done, 200));
          return [window.__pwned ?? 'nothing', sent, document.baseURI.startsWith(location.origin)];
        }""",
        [RUN, ELSEWHERE],
    )
    assert ran == ["nothing", "not sent", True]
