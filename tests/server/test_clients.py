"""The clients people really use: the openai package, and LangChain with extra_body."""

import pytest

from tests.server.test_chat import CALL, THOUGHT, TOOLS

MESSAGES = [{"role": "user", "content": "hi"}]


async def test_the_openai_client_streams_reasoning_and_answer(serve):
    openai = pytest.importorskip("openai")
    served = await serve(lambda prompt: THOUGHT)
    async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        reasoning, content, usage = "", "", None
        async for chunk in stream:
            for choice in chunk.choices:
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                content += choice.delta.content or ""
            usage = chunk.usage or usage
        assert (reasoning, content) == ("Hm.", "Yes.")
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_openai_client_goes_through_a_tool_call_and_back(serve):
    openai = pytest.importorskip("openai")
    served = await serve(lambda prompt: "It is on." if "<|im_start|>tool\ndone" in prompt else CALL)
    async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none") as client:
        asked = await client.chat.completions.create(model="fake", messages=MESSAGES, tools=TOOLS)
        message = asked.choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
        history = [*MESSAGES, message, result]
        answer = await client.chat.completions.create(model="fake", messages=history, tools=TOOLS)
        assert answer.choices[0].message.content == "It is on."


async def test_the_openai_client_raises_its_own_errors(serve):
    openai = pytest.importorskip("openai")
    served = await serve(context=64, settings="  model_names: listed\n")
    async with openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none") as client:
        with pytest.raises(openai.BadRequestError) as error:
            await client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "x" * 99}])
        assert error.value.code == "context_length_exceeded"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="gpt-x", messages=MESSAGES)
        assert [model.id async for model in client.models.list()] == ["fake"]


async def test_the_articles_langchain_code_is_answered(serve):
    """https://python.langchain.com's ChatOpenAI with the model name and the options that the article on Qwen3-0.6B
    uses."""
    openai = pytest.importorskip("openai")
    langchain = pytest.importorskip("langchain_openai")
    served = await serve(lambda prompt: THOUGHT)
    async with openai.DefaultAsyncHttpxClient() as http:
        chat = langchain.ChatOpenAI(
            model="Qwen-0.6B",
            base_url=f"{served.address}/v1",
            api_key="none",
            temperature=0.5,
            streaming=True,
            extra_body={"enable_thinking": True, "return_reasoning": True},
            http_async_client=http,
        )
        answer = await chat.ainvoke("请简述相对论的基本原理")
        assert (answer.content, answer.response_metadata["model_name"]) == ("Yes.", "fake")


async def test_langchain_switches_thinking_with_extra_body(serve):
    openai = pytest.importorskip("openai")
    langchain = pytest.importorskip("langchain_openai")
    served = await serve(lambda prompt: "brief" if prompt.endswith("</think>\n\n") else THOUGHT)
    async with openai.DefaultAsyncHttpxClient() as http:

        def chat(**extra_body):
            return langchain.ChatOpenAI(
                model="fake",
                base_url=f"{served.address}/v1",
                api_key="none",
                http_async_client=http,
                extra_body=extra_body or None,
            )

        assert (await chat(enable_thinking=False).ainvoke("hi")).content == "brief"
        assert (await chat(enable_thinking=True, return_reasoning=True).ainvoke("hi")).content == "Yes."
        assert "".join([piece.content async for piece in chat().astream("hi")]) == "Yes."
