// The openai package of npm.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { brokenOff, demo, key, scripted } from "./daemons.mjs";

const client = new OpenAI({ baseURL: `${scripted}/v1`, apiKey: key });
const how = { model: "gpt-5-mini" }; // a name that another server has: this one answers with its own model
const user = (content) => [{ role: "user", content }];
const Command = z.object({ room: z.string(), state: z.enum(["on", "off"]) });
const parameters = {
  type: "object",
  properties: { room: { type: "string" }, state: { type: "string", enum: ["on", "off"] } },
  required: ["room", "state"],
};
const script = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.';

test("an answer has its text, reason, id and usage", async () => {
  const answer = await client.chat.completions.create({ ...how, messages: user("@say It is on.") });
  assert.equal(answer.choices[0].message.content, "It is on.");
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.match(answer.id, /^chatcmpl-/);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("a stream has the text, and the usage at its end", async () => {
  const asked = { messages: user("@say It is 好 🙂"), stream: true, stream_options: { include_usage: true } };
  let text = "";
  let usage;
  for await (const chunk of await client.chat.completions.create({ ...how, ...asked })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "It is 好 🙂");
  assert.ok(usage.completion_tokens > 0);
});

test("the stream helper gives events and the whole", async () => {
  const stream = client.chat.completions.stream({ ...how, messages: user("@say It is on.") });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  assert.equal(await stream.finalContent(), "It is on.");
  assert.equal(text, "It is on.");
});

for (const stream of [false, true]) {
  test(`runTools calls the function and answers with its result (stream: ${stream})`, async () => {
    const seen = [];
    const set_light = (light) => {
      seen.push(light);
      return "done";
    };
    const description = "Switch a light on or off.";
    // in this order: the name of a function comes last in some clients, first in others
    const tool = { type: "function", function: { name: "set_light", description, parameters, parse: JSON.parse, function: set_light } };
    const runner = client.chat.completions.runTools({ ...how, messages: user(script), tools: [tool], stream });
    assert.equal(await runner.finalContent(), "It is on.");
    assert.deepEqual(seen, [{ room: "kitchen", state: "on" }]);
  });
}

test("an answer is parsed by a zod schema", async () => {
  const asked = { messages: user('@say {"room":"kitchen","state":"on"}'), response_format: zodResponseFormat(Command, "command") };
  const answer = await client.chat.completions.parse({ ...how, ...asked });
  assert.deepEqual(answer.choices[0].message.parsed, { room: "kitchen", state: "on" });
});

test("a tool can be required", async () => {
  const tools = [{ type: "function", function: { name: "set_light", parameters } }];
  const answer = await client.chat.completions.create({ ...how, messages: user(script), tools, tool_choice: "required" });
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, "set_light");
});

test("a stream that is aborted frees its place", async () => {
  await brokenOff(async () => {
    const stream = await client.chat.completions.create({ ...how, messages: user("@words 5000"), stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
  });
});

test("a request that is aborted frees its place", async () => {
  await brokenOff(async () => {
    const signal = AbortSignal.timeout(500);
    const asked = client.chat.completions.create({ ...how, messages: user("@words 5000") }, { signal });
    await assert.rejects(asked, OpenAI.APIUserAbortError);
  });
});

test("errors are the package's own", async () => {
  const wrong = client.chat.completions.create({ ...how, messages: user("hi"), temperature: -1 });
  await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  const stranger = new OpenAI({ baseURL: `${scripted}/v1`, apiKey: "sk-of-somebody-else" });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test("a response, and a stream of its events", async () => {
  const asked = { model: "any", input: "@say It is on." };
  assert.equal((await client.responses.create(asked)).output_text, "It is on.");
  const kinds = [];
  for await (const event of await client.responses.create({ ...asked, stream: true })) kinds.push(event.type);
  assert.equal(kinds[0], "response.created");
  assert.equal(kinds.at(-1), "response.completed");
});

test("the demo model calls the tool that the command needs", async () => {
  const tools = [{ type: "function", function: { name: "set_light", description: "Switch a light on or off.", parameters } }];
  const at = new OpenAI({ baseURL: `${demo}/v1`, apiKey: "none" });
  const asked = { messages: user("Turn on the kitchen light"), tools, temperature: 0, enable_thinking: false };
  const answer = await at.chat.completions.create({ ...how, ...asked });
  const { name, arguments: given } = answer.choices[0].message.tool_calls[0].function;
  assert.deepEqual([name, JSON.parse(given)], ["set_light", { room: "kitchen", state: "on" }]);
});

test("embeddings have numbers and usage", async () => {
  const at = new OpenAI({ baseURL: `${demo}/v1`, apiKey: "none" });
  const { data, usage } = await at.embeddings.create({ model: "any", input: ["a light", "a fan"] });
  assert.equal(data.length, 2);
  assert.ok(Math.abs(Math.hypot(...data[0].embedding) - 1) < 1e-3);
  assert.ok(usage.prompt_tokens > 0);
});
