/** What a conversation is, as a request and as a text. Pure. */

/**
 * @typedef {{ id: string, name: string, arguments: string }} Call
 * @typedef {{ firstToken?: number, seconds?: number, tokens?: number, rate?: number, prompt?: number, cached?: number, joules?: number }} Stats
 * @typedef {{ role: 'user' | 'assistant' | 'tool', content: string, reasoning?: string, thoughtSeconds?: number, calls?: Call[],
 *   callId?: string, name?: string, status?: 'running' | 'done' | 'stopped' | 'cut' | 'failed', error?: string, retryAt?: number,
 *   finish?: string, unenforced?: string, shaped?: boolean, model?: string, stats?: Stats }} Message
 * @typedef {{ system: string, temperature: string, top_p: string, top_k: string, max_tokens: string, seed: string,
 *   thinking: '' | 'on' | 'off', thinking_budget: string, schema: string, tools: string }} Settings fields of text, as they were typed
 * @typedef {{ id: string, title: string, named: boolean, created: number, updated: number, settings: Settings, messages: Message[] }} Conversation
 */

/** @type {Settings} */
export const DEFAULTS = {
  system: '', temperature: '', top_p: '', top_k: '', max_tokens: '', seed: '', thinking: '', thinking_budget: '', schema: '', tools: '',
};

/** The settings that are numbers: least, most, step. An empty one leaves the choice to the model. */
export const NUMBERS = {
  temperature: [0, 5, 'any'], top_p: [0, 1, 'any'], top_k: [0, 10000, 1], max_tokens: [1, 1000000, 1], seed: [-1, 4294967295, 1], thinking_budget: [0, 1000000, 1],
};

/**
 * @param {Settings} settings of the conversation before it
 * @returns {Conversation}
 */
export function newConversation(settings) {
  const id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const now = Date.now();
  return { id, title: '', named: false, created: now, updated: now, settings: { ...DEFAULTS, ...settings }, messages: [] };
}

/**
 * A title made of the first question.
 * @param {Conversation} conversation
 * @returns {string} '' if there is no question
 */
export function titleOf({ messages }) {
  const line = messages.find(({ role }) => role === 'user')?.content.trim().split('\n', 1)[0] ?? '';
  const characters = [...line];
  return characters.length > 60 ? `${characters.slice(0, 58).join('').trimEnd()}…` : line;
}

/**
 * The body of `POST v1/chat/completions` that asks for the next answer.
 * @param {Conversation} conversation its `schema` and `tools` are JSON
 * @param {string} [model]
 * @returns {Record<string, unknown>}
 */
export function requestBody({ id, settings, messages }, model) {
  const body = { stream: true, stream_options: { include_usage: true }, prompt_cache_key: id };
  if (model) body.model = model;
  for (const name of Object.keys(NUMBERS)) if (settings[name] !== '') body[name] = Number(settings[name]);
  if (settings.thinking) body.chat_template_kwargs = { enable_thinking: settings.thinking === 'on' };
  if (settings.tools) body.tools = JSON.parse(settings.tools);
  if (settings.schema) {
    body.response_format = { type: 'json_schema', json_schema: { name: 'answer', schema: JSON.parse(settings.schema) } };
  }
  const system = settings.system.trim() ? [{ role: 'system', content: settings.system }] : [];
  return { ...body, messages: [...system, ...messages.filter(isSent).map(sent)] };
}

function isSent({ role, content, calls }) {
  return role !== 'assistant' || content !== '' || Boolean(calls?.length);
}

function sent({ role, content, reasoning, calls, callId, name }) {
  if (role === 'tool') return { role, tool_call_id: callId, name, content };
  if (role === 'user') return { role, content };
  const message = { role, content: content || null };
  if (reasoning) message.reasoning_content = reasoning;
  if (calls?.length) message.tool_calls = calls.map((call) => ({ id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments } }));
  return message;
}

/**
 * The calls of the last answer that have no result yet.
 * @param {Message[]} messages
 * @returns {Call[]}
 */
export function openCalls(messages) {
  const at = messages.findLastIndex(({ role }) => role !== 'tool');
  const answered = new Set(messages.slice(at + 1).map(({ callId }) => callId));
  return (messages[at]?.calls ?? []).filter(({ id }) => !answered.has(id));
}

/**
 * @param {string} text JSON, perhaps
 * @returns {string | null} the same, indented
 */
export function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return null;
  }
}

/**
 * @param {Conversation} conversation
 * @returns {string} JSON for a file: the messages are those of OpenAI's API
 */
export function exportJson(conversation) {
  const { messages: sentMessages, stream, stream_options, ...settings } = requestBody(conversation);
  const { title, created, updated, messages } = conversation;
  const dates = { created: new Date(created).toISOString(), updated: new Date(updated).toISOString() };
  const answers = messages.filter(({ role }) => role === 'assistant').map(({ model, status, stats }) => ({ model, status, ...stats }));
  return `${JSON.stringify({ title, ...dates, ...settings, messages: sentMessages, answers }, null, 2)}\n`;
}

/**
 * @param {Conversation} conversation
 * @param {(key: string) => string} word the page's words for `role.user` and the like
 * @returns {string} Markdown for a file
 */
export function exportMarkdown({ title, settings, messages }, word) {
  const parts = [`# ${title.replace(/\s+/g, ' ') || 'qwen-edge'}`];
  if (settings.system.trim()) parts.push(`## ${word('role.system')}`, settings.system.trim());
  for (const message of messages) parts.push(...markdownOf(message, word));
  return `${parts.join('\n\n')}\n`;
}

function markdownOf({ role, content, reasoning, calls = [], name, shaped }, word) {
  const parts = [`## ${word(`role.${role}`)}${name ? ` (${name})` : ''}`];
  if (reasoning) parts.push(`> ${reasoning.trim().replaceAll('\n', '\n> ')}`);
  if (role === 'tool') parts.push(fence(content));
  else if (shaped && prettyJson(content)) parts.push(fence(prettyJson(content), 'json'));
  else if (content) parts.push(content.trim());
  for (const call of calls) parts.push(`**${call.name}**`, fence(prettyJson(call.arguments) ?? call.arguments, 'json'));
  return parts;
}

/** A code block whose fence is longer than any in the text. */
function fence(text, language = '') {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const marks = '`'.repeat(longest + 1);
  return `${marks}${language}\n${text}\n${marks}`;
}
