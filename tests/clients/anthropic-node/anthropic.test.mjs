// The @anthropic-ai/sdk package of npm.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { brokenOff, key, scripted } from "./daemons.mjs";

const client = new Anthropic({ baseURL: scripted, apiKey: key });
const how = { model: "qwen3-0.6b", max_tokens: 2000 };
const user = (content) => [{ role: "user", content }];
const script = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.';
const tools = [
  {
    name: "set_light",
    description: "Switch a light on or off.",
    input_schema: {
      type: "object",
      properties: { room: { type: "string" }, state: { type: "string", enum: ["on", "off"] } },
      required: ["room", "state"],
    },
  },
];

test("a message has its text, reason, id and usage", async () => {
  const message = await client.messages.create({ ...how, messages: user("@say It is on.") });
  assert.deepEqual(message.content.map((block) => block.text), ["It is on."]);
  assert.equal(message.stop_reason, "end_turn");
  assert.match(message.id, /^msg_/);
  assert.equal(message.usage.output_tokens, "It is on.".length + 1);
});

test("a stream gives text and the whole message", async () => {
  let text = "";
  const stream = client.messages.stream({ ...how, messages: user("@say It is 好 🙂") });
  stream.on("text", (piece) => (text += piece));
  const message = await stream.finalMessage();
  assert.equal(text, "It is 好 🙂");
  assert.equal(message.content[0].text, text);
});

test("thinking is a block of its own", async () => {
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const stream = client.messages.stream({ ...how, thinking, messages: user("@think Hm.\n@say Yes.") });
  assert.deepEqual((await stream.finalMessage()).content.map((block) => block.type), ["thinking", "text"]);
});

test("a tool is used, streamed, and its result is answered", async () => {
  const first = await client.messages.stream({ ...how, messages: user(script), tools }).finalMessage();
  const use = first.content.find((block) => block.type === "tool_use");
  assert.equal(first.stop_reason, "tool_use");
  assert.deepEqual(use.input, { room: "kitchen", state: "on" });
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "done" }] };
  const messages = [...user(script), { role: "assistant", content: first.content }, result];
  const second = await client.messages.create({ ...how, messages, tools });
  assert.equal(second.content[0].text, "It is on.");
});

test("tokens are counted", async () => {
  assert.ok((await client.messages.countTokens({ model: "any", messages: user("hi") })).input_tokens > 0);
});

test("a stream that is aborted frees its place", async () => {
  await brokenOff(async () => {
    const stream = await client.messages.create({ ...how, max_tokens: 20000, messages: user("@words 5000"), stream: true });
    for await (const event of stream) if (event.type === "content_block_delta") break;
    stream.controller.abort();
  });
});

test("errors are the package's own", async () => {
  const wrong = client.messages.create({ ...how, messages: user("hi"), temperature: -1 });
  await assert.rejects(wrong, (error) => error instanceof Anthropic.BadRequestError && error.error.type === "error");
  const stranger = new Anthropic({ baseURL: scripted, apiKey: "sk-of-somebody-else" });
  await assert.rejects(stranger.messages.create({ ...how, messages: user("hi") }), Anthropic.AuthenticationError);
});
