"""The article's code, word for word but for the address: https://python.langchain.com's ChatOpenAI with Qwen-0.6B."""

import os

from langchain_openai import ChatOpenAI

BASE_URL = f"{os.environ['DEMO_URL']}/v1"


def article() -> ChatOpenAI:
    return ChatOpenAI(
        model="Qwen-0.6B",
        temperature=0.5,
        base_url=BASE_URL,
        api_key="none",
        streaming=True,
        extra_body={"enable_thinking": True, "return_reasoning": True},
    )


def test_the_articles_question_is_answered():
    answer = article().invoke("请简述相对论的基本原理")
    assert answer.content
    assert answer.response_metadata["finish_reason"] == "stop"


def test_the_articles_loop_prints_the_answer_as_it_comes():
    pieces = [chunk.content for chunk in article().stream("请简述相对论的基本原理")]
    assert sum(map(bool, pieces)) > 1
