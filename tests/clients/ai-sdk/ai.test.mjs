// The AI SDK, with @ai-sdk/openai, whose default is the Responses API, and with @ai-sdk/openai-compatible.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { brokenOff, demo, key, scripted } from "./daemons.mjs";

const openai = createOpenAI({ baseURL: `${scripted}/v1`, apiKey: key });
const compatible = createOpenAICompatible({
  name: "qwen-edge",
  baseURL: `${scripted}/v1`,
  apiKey: key,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const models = {
  "openai (Responses)": openai("qwen3-0.6b"),
  "openai.chat": openai.chat("qwen3-0.6b"),
  "openai-compatible": compatible("qwen3-0.6b"),
};
const schema = z.object({ room: z.string(), state: z.enum(["on", "off"]) });
const script = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.';
const said = '@say {"room":"kitchen","state":"on"}';

function lights(seen) {
  const execute = async (light) => {
    seen.push(light);
    return "done";
  };
  return { set_light: tool({ description: "Switch a light on or off.", inputSchema: schema, execute }) };
}

for (const [name, model] of Object.entries(models)) {
  test(`${name}: generateText has text, reason and usage`, async () => {
    const { text, finishReason, usage } = await generateText({ model, system: "Be brief.", prompt: "@say It is on." });
    assert.deepEqual([text, finishReason, usage.outputTokens], ["It is on.", "stop", "It is on.".length + 1]);
  });

  test(`${name}: streamText has text and usage`, async () => {
    const stream = streamText({ model, prompt: "@say It is 好 🙂", onError: ({ error }) => assert.fail(error) });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, "It is 好 🙂");
    assert.ok((await stream.usage).outputTokens > 0);
  });

  test(`${name}: generateObject keeps the schema`, async () => {
    const { object } = await generateObject({ model, schema, prompt: said });
    assert.deepEqual(object, { room: "kitchen", state: "on" });
  });

  test(`${name}: Output.object keeps the schema`, async () => {
    const { output } = await generateText({ model, prompt: said, output: Output.object({ schema }) });
    assert.deepEqual(output, { room: "kitchen", state: "on" });
  });

  test(`${name}: streamObject gives parts, and the whole`, async () => {
    const stream = streamObject({ model, schema, prompt: said });
    let last;
    for await (const part of stream.partialObjectStream) last = part;
    assert.deepEqual(last, { room: "kitchen", state: "on" });
    assert.deepEqual(await stream.object, last);
  });

  for (const toolChoice of ["auto", "required", { type: "tool", toolName: "set_light" }]) {
    test(`${name}: a tool is called (${JSON.stringify(toolChoice)})`, async () => {
      const seen = [];
      await generateText({ model, prompt: script, tools: lights(seen), toolChoice });
      assert.deepEqual(seen, [{ room: "kitchen", state: "on" }]);
    });
  }

  test(`${name}: steps go on with the tool's result`, async () => {
    const seen = [];
    const asked = { model, prompt: script, tools: lights(seen), stopWhen: stepCountIs(3) };
    assert.equal((await generateText(asked)).text, "It is on.");
    const stream = streamText({ ...asked, onError: ({ error }) => assert.fail(error) });
    assert.equal((await stream.steps).at(-1).text, "It is on.");
    assert.equal(seen.length, 2);
  });

  test(`${name}: a stream that is aborted frees its place`, async () => {
    await brokenOff(async () => {
      const controller = new AbortController();
      const stream = streamText({ model, prompt: "@words 5000", abortSignal: controller.signal });
      let pieces = 0;
      for await (const _ of stream.textStream) {
        pieces += 1;
        controller.abort();
        break;
      }
      assert.equal(pieces, 1);
    });
  });
}

test("openai (Responses): reasoning is a part of its own", async () => {
  const providerOptions = { openai: { reasoningEffort: "low", forceReasoning: true } };
  const model = openai("qwen3-0.6b");
  const { text } = await generateText({ model, prompt: "@think Hm.\n@say Yes.", providerOptions });
  assert.equal(text, "Yes.");
});

test("openai-compatible: reasoning is a part of its own", async () => {
  const providerOptions = { "qwen-edge": { reasoningEffort: "low" } };
  const model = compatible("qwen3-0.6b");
  const { text, reasoningText } = await generateText({ model, prompt: "@think Hm.\n@say Yes.", providerOptions });
  assert.deepEqual([text, reasoningText], ["Yes.", "Hm."]);
});

test("openai-compatible: a schema is sent only with supportsStructuredOutputs", async () => {
  let body;
  const spy = (url, init) => {
    body = JSON.parse(init.body);
    return fetch(url, init);
  };
  const provider = createOpenAICompatible({ name: "qwen-edge", baseURL: `${scripted}/v1`, apiKey: key, fetch: spy });
  const { object } = await generateObject({ model: provider("qwen3-0.6b"), schema, prompt: said });
  assert.deepEqual(object, { room: "kitchen", state: "on" });
  assert.deepEqual(body.response_format, { type: "json_object" });
});

test("openai-compatible: a text completion", async () => {
  const { text } = await generateText({ model: compatible.completionModel("any"), prompt: "Once" });
  assert.equal(text, "Hello!");
});

test("both embed", async () => {
  const values = ["a light", "a fan"];
  const one = createOpenAI({ baseURL: `${demo}/v1`, apiKey: "none" }).embedding("any");
  const two = createOpenAICompatible({ name: "qwen-edge", baseURL: `${demo}/v1` }).textEmbeddingModel("any");
  for (const model of [one, two]) assert.equal((await embedMany({ model, values })).embeddings.length, 2);
});
