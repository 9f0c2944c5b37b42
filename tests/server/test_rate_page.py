"""The page for raters over HTTP: what is sent names no model, and each rating is kept."""

import json

import aiohttp
import pytest

from qwen_edge.core.errors import NotNowError
from qwen_edge.rate.answers import Answer, load
from qwen_edge.rate.blind import Session
from qwen_edge.rate.ratings import LONGEST_REMARK, Rater, Scores, raters_of
from qwen_edge.rate.serve import serving
from tests.unit.rate.samples import MODELS, answers_in

SCORES = {"relevance": 5, "fluency": 4, "accuracy": 3, "coherence": 2}


class Browser:
    """Asks the page's server, and keeps all that it has sent."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self.http = url, http
        self.seen = ""

    async def get(self, path: str, status: int = 200, **options):
        return await self._ask("GET", path, status, **options)

    async def rate(self, status: int = 200, headers=None, **body):
        body = {"rater": "Ann", "scores": SCORES, **body}
        return await self._ask("POST", "api/rating", status, json=body, headers=headers or {})

    async def items(self, rater: str):
        of = (await self.get(f"api/standing?rater={rater}"))["of"]
        return [await self.get(f"api/item?rater={rater}&number={number}") for number in range(of)]

    async def _ask(self, method, path, status, **options):
        async with self.http.request(method, self.url + path, **options) as response:
            text = await response.text()
            self.seen += f"{response.headers}{text}"
            assert response.status == status, text
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            return json.loads(text) if "json" in response.content_type else text


@pytest.fixture
def answers(tmp_path):
    return answers_in(tmp_path)


@pytest.fixture
async def browser(answers):
    async with serving(answers, "127.0.0.1", 0) as (url,), aiohttp.ClientSession() as http:
        yield Browser(url, http)


async def test_nothing_that_the_browser_gets_tells_the_model(answers, browser):
    for file in ("", "page.js", "words.js", "page.css"):
        await browser.get(file)
    for rater in ("Ann", "Bob"):
        for item in await browser.items(rater):
            await browser.rate(rater=rater, answer=item["answer"], remark="hm")
        await browser.items(rater)
    assert (await browser.get("api/item?rater=Ann&number=99", 400))["error"]
    for secret in (*MODELS, "served-", ".example", answers.header.seed, str(answers.path)):
        assert secret not in browser.seen
    assert "tokens" not in browser.seen and "seconds" not in browser.seen


async def test_answers_come_in_the_raters_order_as_in_the_terminal(answers, browser):
    for rater in ("Ann", "Bob"):
        session = Session(answers, Rater(answers.path, rater))
        found = await browser.items(rater)
        assert [item["answer"] for item in found] == [item.code for item in session.items]
        assert [item["text"] for item in found] == [item.text for item in session.items]
    one, other = await browser.items("Ann"), await browser.items("Bob")
    assert {item["answer"] for item in one}.isdisjoint(item["answer"] for item in other)


async def test_a_rating_is_on_the_disk_when_it_is_answered_and_shown_again(answers, browser):
    first = (await browser.items("Ann"))[0]
    assert (first["number"], first["of"], first["place"], first["places"], first["scores"]) == (0, 12, 1, 3, None)
    assert await browser.rate(answer=first["answer"], remark=" 好\n") == {"of": 12, "rated": 1, "skipped": 0, "next": 1}
    ((rater, ratings),) = raters_of(answers.path)
    assert (rater.name, rater.judge) == ("Ann", False)
    (rating,) = ratings.values()
    assert (rating.scores, rating.remark) == (Scores(5, 4, 3, 2), "好")
    again = await browser.get("api/item?rater=Ann&number=0")
    assert (again["scores"], again["remark"], again["skipped"]) == (SCORES, "好", False)
    assert await browser.rate(answer=first["answer"], scores=None) == {"of": 12, "rated": 0, "skipped": 1, "next": 1}
    assert (await browser.get("api/item?rater=Ann&number=0"))["skipped"]


async def test_two_raters_at_once_and_two_sessions_of_one_do_not_disturb_each_other(answers, browser):
    terminal = Session(load(answers.path), Rater(answers.path, "Ann"))
    ann, bob = await browser.items("Ann"), await browser.items("Bob")
    for number in range(4):
        await browser.rate(rater="Ann", answer=ann[2 * number]["answer"])
        await browser.rate(rater=" Bob ", answer=bob[number]["answer"])
        terminal.rate(terminal.items[2 * number + 1].code, Scores(1, 1, 1, 1))
    assert (await browser.get("api/standing?rater=Ann"))["next"] == 8
    assert (await browser.get("api/standing?rater=Bob"))["next"] == 4
    assert terminal.standing().rated == 8


async def test_a_hostile_answer_arrives_as_text_in_json(answers, browser):
    hostile = "</script><img src=x onerror=alert(1)>\x1b[31m\u2028\x00"
    answers.add(Answer("q0", MODELS[0], hostile))
    assert hostile in [item["text"] for item in await browser.items("Ann")]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"answer": "0" * 24}, "no such answer"),
        ({"answer": ""}, "no such answer"),
        ({"scores": {**SCORES, "relevance": 6}}, "`int` <= 5"),
        ({"scores": {**SCORES, "relevance": 0}}, "`int` >= 1"),
        ({"scores": {**SCORES, "relevance": 4.5}}, "Expected `int`"),
        ({"scores": {**SCORES, "relevance": True}}, "Expected `int`"),
        ({"scores": {"relevance": 5}}, "missing required field"),
        ({"scores": {**SCORES, "beauty": 5}}, "unknown field"),
        ({"model": "alpha-model"}, "unknown field"),
        ({"rater": ""}, "needs a name"),
        ({"rater": "judge: me"}, "is that of a model"),
        ({"rater": "a\u202eb"}, "cannot be seen"),
        ({"remark": "x" * (LONGEST_REMARK + 1)}, "length"),
    ],
)
async def test_what_is_no_rating_is_refused_and_not_written(answers, browser, body, told):
    code = (await browser.items("Ann"))[0]["answer"]
    assert told in (await browser.rate(400, **{"answer": code, **body}))["error"]
    assert raters_of(answers.path) == []


@pytest.mark.parametrize(
    "query", ["", "rater=", "rater=judge:%20x", "rater=Ann&number=-1", "rater=Ann&number=²", "rater=Ann"]
)
async def test_a_wrong_question_is_told(browser, query):
    assert (await browser.get(f"api/item?{query}", 400))["error"]


async def test_other_paths_and_methods_are_refused(browser):
    for path in ("answers.jsonl", "../answers.jsonl", "page", "api/", "api/rating", "%2e%2e/serve.py"):
        await browser.get(path, 405 if path == "api/rating" else 404)


async def test_a_page_of_another_site_can_neither_read_nor_rate(answers, browser):
    code = (await browser.items("Ann"))[0]["answer"]
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"):
        await browser.get("api/standing?rater=Ann", 403, headers={"Host": host})
    await browser.rate(403, answer=code, headers={"Origin": "http://evil.example"})
    await browser.rate(403, answer=code, headers={"Origin": "null"})
    async with browser.http.post(browser.url + "api/rating", data=json.dumps({"rater": "Ann"})) as response:
        assert response.status == 415  # what a form can send without asking
    assert raters_of(answers.path) == []
    port = browser.url.rpartition(":")[2].strip("/")
    for host in (f"localhost:{port}", f"192.168.1.7:{port}", f"[fe80::1]:{port}"):
        await browser.get("api/standing?rater=Ann", headers={"Host": host})
    await browser.rate(answer=code, headers={"Origin": browser.url.rstrip("/")})


async def test_a_body_that_is_too_large_or_no_json_is_refused(browser):
    headers = {"Content-Type": "application/json"}
    for data, status in ((b"x" * 100_000, 413), (b"{", 400), (b"\xff", 400), (b"[" * 50_000, 400)):
        async with browser.http.post(browser.url + "api/rating", data=data, headers=headers) as response:
            assert response.status == status, data[:10]
            assert (await response.json())["error"]


async def test_a_port_that_is_taken_is_told(answers, browser):
    with pytest.raises(NotNowError, match="Address already in use"):
        async with serving(answers, "127.0.0.1", int(browser.url.rpartition(":")[2].strip("/"))):
            pass


async def test_a_server_for_all_addresses_tells_those_that_others_can_use(answers):
    async with serving(answers, "0.0.0.0", 0) as urls:
        assert urls[-1].startswith("http://127.0.0.1:")
        async with aiohttp.ClientSession() as http, http.get(urls[0]) as response:
            assert response.status == 200


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "", "http://evil.example"])
async def test_an_origin_that_is_none_is_refused_and_no_fault_of_the_server(browser, origin):
    await browser.get("api/standing?rater=Ann", 403, headers={"Origin": origin})
