/** What each message of a conversation looks like. */
import { el, icon, iconButton } from './dom.js';
import { t, number } from './i18n.js';
import { codeBlock, copyButton } from './code.js';
import { prettyJson } from './conversation.js';
import { MarkdownView } from './markdown-view.js';

/**
 * @typedef {{ edit: (message: object, text: string) => void, retry: (message: object) => void, drawn: () => void }} Actions
 * @typedef {{ node: HTMLElement, update: () => void }} View `update` shows what has changed in the message
 */

/**
 * @param {import('./conversation.js').Message} message
 * @param {Actions} actions
 * @returns {View}
 */
export function viewOf(message, actions) {
  if (message.role === 'user') return userView(message, actions);
  return message.role === 'tool' ? toolView(message) : new AnswerView(message, actions);
}

function article(role, ...children) {
  return el('article', { class: `message ${role}`, label: `role.${role}` }, ...children);
}

function userView(message, actions) {
  const text = el('div', { class: 'bubble' }, message.content);
  const tools = el('div', { class: 'actions' }, copyButton('copy', () => message.content), iconButton('edit', 'edit', edit));
  const node = article('user', text, tools);

  function edit() {
    const field = el('textarea', { value: message.content, label: 'edit', rows: Math.min(12, message.content.split('\n').length + 1) });
    const form = el('form', { class: 'edit', on: { submit: save, keydown: key } }, field, el('p', { class: 'muted note', t: 'edit.cuts' }),
      el('div', { class: 'row end' },
        el('button', { type: 'button', class: 'quiet', t: 'cancel', on: { click: close } }),
        el('button', { type: 'submit', class: 'main', t: 'edit.send' })));
    node.replaceChildren(form);
    field.focus();

    function save(event) {
      event.preventDefault();
      if (field.value.trim()) actions.edit(message, field.value);
    }
    function key(event) {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) save(event);
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      close();
    }
  }
  function close() {
    node.replaceChildren(text, tools);
    tools.lastElementChild.focus();
  }
  return { node, update() {} };
}

function toolView({ name, content }) {
  return { node: article('tool', codeBlock(prettyJson(content) ?? content, `${t('role.tool')}: ${name}`)), update() {} };
}

class AnswerView {
  #frame = 0;
  #shaped = '';

  constructor(message, actions) {
    this.message = message;
    this.thought = el('pre', { class: 'thought', tabIndex: 0 }, '');
    this.summary = el('summary');
    this.thinking = el('details', { class: 'thinking', hidden: true }, this.summary, this.thought);
    this.text = el('div', { class: 'prose' });
    this.calls = el('div', { class: 'calls' });
    this.waiting = el('div', { class: 'waiting', 'aria-hidden': 'true' }, el('i'), el('i'), el('i'));
    this.notice = el('div', { class: 'notice' });
    this.stats = el('div', { class: 'stats' });
    this.copy = copyButton('copy', () => message.content);
    this.retry = iconButton('retry', 'retry', () => actions.retry(message));
    this.foot = el('div', { class: 'actions' }, this.copy, this.retry, this.stats);
    this.node = article('assistant', this.thinking, this.text, this.calls, this.waiting, this.notice, this.foot);
    this.drawn = () => {
      this.node.setAttribute('aria-busy', String(message.status === 'running' || !this.markdown.settled));
      actions.drawn();
    };
    this.markdown = new MarkdownView(this.text, this.drawn);
    this.#draw();
  }

  update() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { message } = this;
    const running = message.status === 'running';
    this.#drawThinking(running);
    this.#drawText(!running);
    this.calls.replaceChildren(...(message.calls ?? []).map(callView));
    this.waiting.hidden = !running;
    this.foot.hidden = running;
    this.copy.hidden = !message.content;
    if (!running) this.#drawEnd();
    this.drawn();
  }

  #drawThinking(running) {
    const { reasoning = '', content, calls, thoughtSeconds = 0 } = this.message;
    if (!reasoning) return;
    this.thinking.hidden = false;
    const now = running && !content && !calls;
    this.summary.textContent = t(now ? 'thinking.now' : 'thinking.done', { seconds: number(Math.max(0.1, thoughtSeconds), thoughtSeconds < 10 ? 1 : 0) });
    this.thought.firstChild.appendData(reasoning.slice(this.thought.firstChild.length));
  }

  #drawText(complete) {
    const { content, shaped } = this.message;
    if (!shaped) return this.markdown.show(content, complete);
    if (content && content !== this.#shaped) this.text.replaceChildren(codeBlock(prettyJson(content) ?? content, 'json'));
    this.#shaped = content;
  }

  #drawEnd() {
    const { message } = this;
    this.notice.replaceChildren();
    if (message.status === 'failed') this.notice.append(problem(message));
    const word = ENDS[message.status] ?? ENDS[message.finish] ?? '';
    if (word) this.notice.append(el('p', { class: 'muted note', t: word }));
    if (message.unenforced) this.notice.append(el('p', { class: 'muted note' }, t('unenforced', { words: message.unenforced })));
    this.stats.replaceChildren(...statsOf(message.stats ?? {}).map(([key, values]) => el('span', { title: t(`${key}.why`) }, t(key, values))));
  }
}

const ENDS = { stopped: 'end.stopped', cut: 'end.cut', length: 'end.length', loop: 'end.loop' };

function callView({ name, arguments: text }) {
  return codeBlock(prettyJson(text) ?? text, `${t('call')}: ${name}`);
}

function problem({ error, retryAt }) {
  const wait = el('p', { class: 'note' });
  const box = el('div', { class: 'problem' }, el('p', {}, error), wait);
  const tick = () => {
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    wait.textContent = seconds > 0 ? t('retry.in', { seconds: number(seconds) }) : t('retry.now');
    if (seconds > 0 && (box.isConnected || !wait.dataset.shown)) setTimeout(tick, 1000);
    wait.dataset.shown = 'yes';
  };
  if (retryAt) tick();
  else wait.remove();
  return box;
}

/** The numbers that are known, as keys of i18n.js with their values. */
function statsOf({ firstToken, rate, tokens, prompt, cached, joules }) {
  const all = [];
  if (firstToken !== undefined) all.push(['stat.first', { value: number(firstToken, 2) }]);
  if (rate) all.push(['stat.rate', { value: number(rate, 1) }]);
  if (tokens !== undefined) all.push(['stat.tokens', { value: number(tokens) }]);
  if (prompt !== undefined) all.push(['stat.cached', { cached: number(cached ?? 0), prompt: number(prompt) }]);
  if (joules !== undefined) all.push(['stat.joules', { value: number(joules, joules < 10 ? 1 : 0) }]);
  return all;
}

/**
 * Fields for the results of calls, which are sent back together.
 * @param {import('./conversation.js').Call[]} calls
 * @param {(results: string[]) => void} send
 * @returns {HTMLElement}
 */
export function resultForm(calls, send) {
  const fields = calls.map(({ id, name }) => [
    el('label', { for: `result-${id}` }, t('result.of', { name })),
    el('textarea', { id: `result-${id}`, rows: 2, class: 'mono', spellcheck: false }),
  ]);
  return el('form', { class: 'results', on: { submit: (event) => {
    event.preventDefault();
    send(fields.map(([, field]) => field.value));
  } } }, ...fields.flat(), el('div', { class: 'row end' }, el('button', { type: 'submit', class: 'main' }, icon('send'), el('span', { t: 'result.send' }))));
}
