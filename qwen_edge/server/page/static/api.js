/** Requests to the daemon that served this page. The key is kept in this tab's session only. */
import { t } from './i18n.js';
import { el } from './dom.js';

const STORED = 'qwen-edge.key';
let asking = null;

/** A request that the daemon refused, with its own sentence. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status HTTP's, 0 where no answer came
   * @param {string | null} code the server's
   * @param {number | null} retryAfter seconds
   */
  constructor(message, status, code = null, retryAfter = null) {
    super(message);
    Object.assign(this, { name: 'ApiError', status, code, retryAfter });
  }
}

/**
 * Like fetch, with the key if there is one. On 401 the reader is asked for a key, and the request is sent again.
 * @param {string} path relative to the page, such as `v1/models`
 * @param {RequestInit & { json?: unknown }} [options] `json` is sent as the body
 * @returns {Promise<Response>} with a status below 400
 * @throws {ApiError | DOMException} an AbortError if `options.signal` aborts
 */
export async function request(path, options = {}) {
  let used = key();
  let response = await send(path, options, used);
  while (response.status === 401) {
    const message = used ? t('key.wrong') : '';
    const given = key() !== used ? key() : await askForKey(message);
    if (!given) throw new ApiError(message || t('key.needed'), 401, 'invalid_api_key');
    used = given;
    response = await send(path, options, used);
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/**
 * @param {string} path
 * @param {RequestInit & { json?: unknown }} [options]
 * @returns {Promise<any>} the answer's JSON
 */
export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

/**
 * The error object of a refusal, or of an event in the middle of a stream.
 * @param {any} body JSON with `error`
 * @param {number} status
 * @param {number | null} [retryAfter]
 * @returns {ApiError}
 */
export function errorOf(body, status, retryAfter = null) {
  const error = body?.error ?? body;
  const message = typeof error === 'string' ? error : error?.message;
  return new ApiError(String(message || t('error.status', { status })), status, error?.code ?? null, retryAfter);
}

async function send(path, { json, headers, ...options }, secret) {
  const all = new Headers(headers);
  if (secret) all.set('Authorization', `Bearer ${secret}`);
  if (json !== undefined) {
    all.set('Content-Type', 'application/json');
    Object.assign(options, { method: options.method ?? 'POST', body: JSON.stringify(json) });
  }
  try {
    return await fetch(new URL(path, document.baseURI), { cache: 'no-store', credentials: 'omit', ...options, headers: all });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(t('error.network'), 0);
  }
}

async function failure(response) {
  const seconds = Number.parseInt(response.headers.get('Retry-After') ?? '', 10);
  const body = await response.json().catch(() => null);
  return errorOf(body, response.status, Number.isNaN(seconds) ? null : seconds);
}

function key() {
  try {
    return sessionStorage.getItem(STORED) ?? '';
  } catch {
    return memory;
  }
}

let memory = '';

function keep(secret) {
  memory = secret;
  try {
    sessionStorage.setItem(STORED, secret);
  } catch { /* storage is blocked: the key holds until the page is closed */ }
}

/** All requests that need a key wait for one dialog. Resolves to '' if the reader gives none. */
function askForKey(message) {
  asking ??= new Promise((resolve) => {
    const field = el('input', { type: 'password', id: 'key', autocomplete: 'off', required: true, spellcheck: false });
    const dialog = el('dialog', { class: 'small', 'aria-labelledby': 'key-title' },
      el('form', { method: 'dialog' },
        el('h2', { id: 'key-title', t: 'key.title' }),
        el('p', { t: 'key.why' }),
        ...(message ? [el('p', { class: 'problem', role: 'alert' }, message)] : []),
        el('label', { for: 'key', t: 'key.label' }), field,
        el('div', { class: 'row end' },
          el('button', { type: 'button', class: 'quiet', t: 'cancel', on: { click: () => dialog.close() } }),
          el('button', { type: 'submit', class: 'main', value: 'use', t: 'key.use' }))));
    dialog.addEventListener('close', () => {
      const secret = dialog.returnValue === 'use' ? field.value.trim() : '';
      if (secret) keep(secret);
      dialog.remove();
      asking = null;
      resolve(secret);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
