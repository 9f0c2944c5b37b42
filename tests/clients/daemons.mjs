// For the tests of all clients in JavaScript: the daemons' addresses, as a user would put them into a program.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";

export const key = process.env.API_KEY;
export const scripted = process.env.SCRIPTED_URL; // its model says what the message of the user tells it to say
export const demo = process.env.DEMO_URL; // with the demo model; it needs no key

async function get(path) {
  const response = await fetch(scripted + path, { headers: { authorization: `Bearer ${key}` } });
  return response.text();
}

async function completedAnswers() {
  return Number((await get("/metrics")).match(/^qwen_edge_answer_seconds_count (\S+)$/m)[1]);
}

// Run `leave`, which asks for a long answer and leaves it, and check that it was broken off and not computed to its end.
export async function brokenOff(leave) {
  const before = await completedAnswers();
  await leave();
  const end = Date.now() + 20_000;
  while (JSON.parse(await get("/health")).pending) {
    assert.ok(Date.now() < end, "the engine still computes an answer");
    await pause(20);
  }
  assert.equal(await completedAnswers(), before);
}
