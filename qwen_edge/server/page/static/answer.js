/** One answer of the model, written into its message as it comes. */
import { request, errorOf, ApiError } from './api.js';
import { t } from './i18n.js';
import { readEvents } from './sse.js';
import { requestBody } from './conversation.js';

/**
 * Ask for the answer to a conversation. `message` is filled in; it ends with a status other than `running`.
 * @param {import('./conversation.js').Conversation} conversation without `message`
 * @param {import('./conversation.js').Message} message
 * @param {{ model?: string, signal: AbortSignal, changed: () => void }} options
 */
export async function answer(conversation, message, { model, signal, changed }) {
  const writer = new Writer(message);
  try {
    const response = await request('v1/chat/completions', { json: requestBody(conversation, model), signal });
    message.unenforced = response.headers.get('X-Unenforced') ?? undefined;
    const events = readEvents(response.body);
    let step = await events.next();
    for (; !step.done; step = await events.next()) {
      if (step.value.error) throw errorOf(step.value, 0);
      writer.take(step.value);
      changed();
    }
    if (!step.value) throw new ApiError(t('error.broken'), 0);
    message.status = 'done';
  } catch (error) {
    fail(message, error, signal);
  }
  writer.end();
  changed();
}

function fail(message, error, signal) {
  if (signal.aborted) {
    message.status = 'stopped';
    return;
  }
  message.status = 'failed';
  message.error = error instanceof ApiError ? error.message : t('error.broken');
  if (error.retryAfter) message.retryAt = Date.now() + 1000 * error.retryAfter;
  if (!(error instanceof ApiError)) console.error(error);
}

class Writer {
  #began = performance.now();
  #first = 0;
  #thinking = 0;
  #calls = new Map(); // by the index that the server gives them

  constructor(message) {
    this.message = message;
  }

  /** @param {any} chunk of OpenAI's API */
  take(chunk) {
    const { message } = this;
    message.model = chunk.model ?? message.model;
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    if (delta.reasoning_content || delta.content || delta.tool_calls) this.#first ||= performance.now();
    if (delta.reasoning_content) this.#think(delta.reasoning_content);
    if (delta.content) {
      this.#endThinking();
      message.content += delta.content;
    }
    for (const piece of delta.tool_calls ?? []) this.#call(piece);
    if (choice?.finish_reason) message.finish = choice.x_stopped ?? choice.finish_reason;
    if (chunk.usage) message.stats = this.#stats(chunk);
  }

  end() {
    this.#endThinking();
    if (this.#first) this.message.stats = { ...this.#times(), ...this.message.stats };
  }

  #think(text) {
    this.#thinking ||= performance.now();
    this.message.reasoning = (this.message.reasoning ?? '') + text;
    this.message.thoughtSeconds = (performance.now() - this.#thinking) / 1000;
  }

  #endThinking() {
    if (this.#thinking) this.message.thoughtSeconds = (performance.now() - this.#thinking) / 1000;
    this.#thinking = 0;
  }

  #call({ index, id, function: called }) {
    this.#endThinking();
    let call = this.#calls.get(index);
    if (!call) {
      call = { id: id ?? `call_${index}`, name: '', arguments: '' };
      this.#calls.set(index, call);
      (this.message.calls ??= []).push(call);
    }
    call.name += called?.name ?? '';
    call.arguments += called?.arguments ?? '';
  }

  #times() {
    return { firstToken: (this.#first - this.#began) / 1000, seconds: (performance.now() - this.#began) / 1000 };
  }

  #stats({ usage, timings }) {
    return {
      ...this.#times(),
      tokens: usage.completion_tokens,
      prompt: usage.prompt_tokens,
      cached: usage.prompt_tokens_details?.cached_tokens,
      rate: timings?.predicted_ms >= 20 ? timings.predicted_per_second : undefined, // a shape's tokens take no time
      joules: usage.energy_joules,
    };
  }
}
