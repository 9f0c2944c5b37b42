// The ollama package of npm.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Ollama } from "ollama";
import { brokenOff, demo, key, scripted } from "./daemons.mjs";

const client = new Ollama({ host: scripted, headers: { Authorization: `Bearer ${key}` } });
const how = { model: "qwen3:0.6b" };
const user = (content) => [{ role: "user", content }];
const script = '@call set_light {"room": "kitchen", "state": "on"}\n@then\n@say It is on.';
const properties = { room: { type: "string" }, state: { type: "string", enum: ["on", "off"] } };
const required = ["room", "state"];
const description = "Switch a light on or off.";
const tools = [{ type: "function", function: { name: "set_light", description, parameters: { type: "object", properties, required } } }];

test("a chat has its text, reason and counts", async () => {
  const answer = await client.chat({ ...how, messages: user("@say It is on.") });
  assert.equal(answer.message.content, "It is on.");
  assert.equal(answer.done_reason, "stop");
  assert.equal(answer.eval_count, "It is on.".length + 1);
  assert.ok(answer.total_duration > 0);
});

test("a chat streams", async () => {
  let text = "";
  for await (const part of await client.chat({ ...how, messages: user("@say It is 好 🙂"), stream: true })) {
    text += part.message.content;
  }
  assert.equal(text, "It is 好 🙂");
});

test("thinking is a field of its own", async () => {
  const { message } = await client.chat({ ...how, messages: user("@think Hm.\n@say Yes."), think: true });
  assert.deepEqual([message.thinking.trim(), message.content], ["Hm.", "Yes."]);
});

test("a tool is called and its result is answered", async () => {
  const first = await client.chat({ ...how, messages: user(script), tools });
  assert.deepEqual(first.message.tool_calls[0].function.arguments, { room: "kitchen", state: "on" });
  const result = { role: "tool", tool_name: "set_light", content: "done" };
  const second = await client.chat({ ...how, messages: [...user(script), first.message, result], tools });
  assert.equal(second.message.content, "It is on.");
});

test("a format is kept", async () => {
  const format = { type: "object", properties, required };
  const answer = await client.chat({ ...how, messages: user('@say {"room":"bath","state":"off"}'), format });
  assert.deepEqual(JSON.parse(answer.message.content), { room: "bath", state: "off" });
});

test("a prompt is answered", async () => {
  assert.equal((await client.generate({ ...how, prompt: "@say It is on." })).response, "It is on.");
});

test("the model is listed and described", async () => {
  const { models } = await client.list();
  assert.equal(models.length, 1);
  assert.ok((await client.show({ model: models[0].model })).capabilities.includes("tools"));
});

test("texts get vectors", async () => {
  const { embeddings } = await new Ollama({ host: demo }).embed({ ...how, input: ["a light", "a fan"] });
  assert.equal(embeddings.length, 2);
  assert.ok(Math.abs(Math.hypot(...embeddings[0]) - 1) < 1e-3);
});

test("a stream that is aborted frees its place", async () => {
  await brokenOff(async () => {
    const stream = await client.chat({ ...how, messages: user("@words 5000"), stream: true });
    await assert.rejects(async () => {
      for await (const _ of stream) stream.abort();
    });
  });
});

test("errors are the package's own", async () => {
  await assert.rejects(client.chat({ ...how, messages: user("hi"), options: { temperature: -1 } }), /temperature/);
});
