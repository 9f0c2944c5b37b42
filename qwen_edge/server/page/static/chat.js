/** The chat's part of the page. */
import { el, icon, iconButton, announce, setLabel } from './dom.js';
import { t, onLanguage } from './i18n.js';
import { requestJson } from './api.js';
import { answer } from './answer.js';
import { ask } from './ask.js';
import { Composer } from './composer.js';
import { DEFAULTS, exportJson, exportMarkdown, newConversation, openCalls, titleOf } from './conversation.js';
import { askSettings } from './settings.js';
import { Sidebar } from './sidebar.js';
import { Store } from './store.js';
import { Thread } from './thread.js';

const SAVE_EVERY = 500; // milliseconds, while an answer is written

/** @param {HTMLElement} section */
export async function mountChat(section) {
  const chat = new Chat(section);
  await Promise.all([chat.load(), chat.loadModels()]);
}

class Chat {
  #running = new Map(); // conversation id -> AbortController
  #saved = 0;
  #model = '';

  constructor(section) {
    this.conversations = [];
    this.current = newConversation(DEFAULTS);
    this.sidebar = new Sidebar({
      open: (id) => this.open(this.#find(id)), create: () => this.create(), rename: (id) => this.rename(this.#find(id)), remove: (id) => this.remove(this.#find(id)),
    });
    this.composer = new Composer({ send: (text) => this.send(text), stop: () => this.stop(), settings: (first) => this.settings(first) });
    this.thread = new Thread({
      edit: (message, text) => this.edit(message, text), retry: (message) => this.retry(message), results: (calls, texts) => this.results(calls, texts),
      suggest: (text) => (this.composer.setText(text), this.composer.field.focus()),
    });
    this.heading = el('h2', { class: 'title' });
    this.unkept = el('p', { class: 'problem unkept', role: 'alert', hidden: true });
    section.append(this.sidebar.node, this.sidebar.shade, el('div', { class: 'talk' },
      el('div', { class: 'talk-head' }, this.sidebar.opener, this.heading, this.#exports(), iconButton('plus', 'new', () => this.create(), 'quiet opener')),
      this.unkept, this.thread.node, this.thread.toEnd, this.composer.node));
    document.addEventListener('keydown', (event) => event.key === 'Escape' && !section.hidden && !document.querySelector('dialog[open]') && this.#escape());
    onLanguage(() => (this.thread.forget(), this.#tellUnkept(), this.show()));
    document.addEventListener('pointerdown', ({ target }) => this.menu.contains(target) || (this.menu.open = false));
    addEventListener('pagehide', () => this.#save(this.current));
    this.show();
  }

  async load() {
    this.store = await Store.open();
    this.#tellUnkept();
    this.conversations = await this.store.all();
    for (const { messages } of this.conversations) {
      for (const message of messages) if (message.status === 'running') message.status = 'cut'; // the page was closed meanwhile
    }
    const last = this.conversations[0];
    if (last && this.current.messages.length === 0) this.open(last);
    else this.show();
    if (!isTouched()) this.#focus();
  }

  async loadModels() {
    const place = document.getElementById('model');
    try {
      const { data } = await requestJson('v1/models');
      const names = data.map(({ id }) => id);
      [this.#model] = names;
      const picker = el('select', { label: 'model', on: { change: () => (this.#model = picker.value) } }, ...names.map((name) => el('option', {}, name)));
      place.replaceChildren(names.length > 1 ? picker : names[0] ?? '');
      document.title = `${names[0]} · qwen-edge`;
    } catch (error) {
      place.replaceChildren(error.message);
      announce(error.message);
    }
  }

  show() {
    const { current } = this;
    this.heading.textContent = current.title || t('new.title');
    this.sidebar.show(this.conversations, current.id);
    this.composer.showSettings(current.settings);
    this.composer.setRunning(this.#running.has(current.id));
    this.menu.hidden = current.messages.length === 0;
    this.thread.show(current);
  }

  open(conversation) {
    this.current = conversation;
    this.show();
    this.thread.scrollToEnd();
  }

  create() {
    this.open(newConversation(this.current.settings));
    this.#focus();
  }

  async rename(conversation) {
    const title = await ask({ title: 'rename', ok: 'rename', value: conversation.title });
    if (!title?.trim()) return;
    Object.assign(conversation, { title: title.trim(), named: true });
    await this.#save(conversation);
    this.show();
  }

  async remove(conversation) {
    if ((await ask({ title: 'delete.title', ok: 'delete', text: conversation.title, danger: true })) === null) return;
    this.#running.get(conversation.id)?.abort();
    this.conversations = this.conversations.filter((one) => one !== conversation);
    await this.store.remove(conversation.id);
    if (conversation === this.current) this.open(this.conversations[0] ?? newConversation(conversation.settings));
    else this.show();
    announce(t('deleted'));
  }

  async settings(first) {
    const { current } = this;
    const changed = await askSettings(current.settings, first);
    if (!changed) return;
    current.settings = changed;
    if (current.messages.length) await this.#save(current);
    this.composer.showSettings(changed);
  }

  send(text) {
    this.#ask(this.current, [{ role: 'user', content: text }]);
  }

  edit(message, text) {
    this.#cutFrom(message);
    this.send(text);
  }

  retry(message) {
    this.#cutFrom(message);
    this.#ask(this.current, []);
  }

  results(calls, texts) {
    this.#ask(this.current, calls.map(({ id, name }, at) => ({ role: 'tool', callId: id, name, content: texts[at] })));
  }

  stop() {
    this.#running.get(this.current.id)?.abort();
  }

  /** A field that has the focus opens the keyboard of a phone. */
  #focus() {
    (isTouched() ? this.thread.node : this.composer.field).focus();
  }

  #escape() {
    if (this.sidebar.isOpen) this.sidebar.close();
    else if (this.menu.open) Object.assign(this.menu, { open: false }).firstElementChild.focus();
    else this.stop();
  }

  #cutFrom(message) {
    this.stop();
    this.current.messages.splice(this.current.messages.indexOf(message));
  }

  async #ask(conversation, added) {
    conversation.messages.push(...added);
    if (!conversation.named) conversation.title = titleOf(conversation);
    const question = { ...conversation, messages: [...conversation.messages] };
    const message = { role: 'assistant', content: '', status: 'running', shaped: Boolean(conversation.settings.schema) };
    conversation.messages.push(message);
    conversation.updated = Date.now();
    this.conversations = [conversation, ...this.conversations.filter((one) => one !== conversation)];
    const abort = new AbortController();
    this.#running.set(conversation.id, abort);
    this.show();
    this.thread.scrollToEnd();
    if (document.activeElement === document.body) this.#focus(); // the button that was pressed is gone
    this.#save(conversation);
    await answer(question, message, { model: this.#model, signal: abort.signal, changed: () => this.#changed(conversation, message) });
    if (this.#running.get(conversation.id) === abort) this.#running.delete(conversation.id);
    this.#ended(conversation, message);
  }

  #changed(conversation, message) {
    if (conversation === this.current) this.thread.update(message);
    if (performance.now() - this.#saved > SAVE_EVERY) this.#save(conversation);
  }

  #ended(conversation, message) {
    this.#save(conversation);
    announce(message.status === 'failed' ? `${t('error')}: ${message.error}` : t(message.status === 'stopped' ? 'end.stopped' : 'complete'));
    if (!this.#model && message.status === 'done') this.loadModels(); // there was no server or no key when the page was opened
    if (conversation !== this.current) return;
    this.composer.setRunning(this.#running.has(conversation.id));
    this.thread.update(message);
    this.thread.showResultForm(openCalls(conversation.messages));
  }

  async #save(conversation) {
    this.#saved = performance.now();
    if (!this.store || !this.conversations.includes(conversation)) return;
    try {
      await this.store.put(conversation);
      this.#tellUnkept();
    } catch (error) {
      this.#tellUnkept(error.message);
    }
  }

  /** Say it if this browser keeps no conversations, or why it has not kept one. */
  #tellUnkept(why = '') {
    this.unkept.hidden = !why && this.store?.lasting !== false;
    this.unkept.textContent = `${t(why ? 'not.kept' : 'not.lasting')} ${why}`.trim();
  }

  #find(id) {
    return this.conversations.find((one) => one.id === id);
  }

  #exports() {
    const save = (ending, type, text) => {
      const link = el('a', { href: URL.createObjectURL(new Blob([text], { type })), download: `${fileName(this.current.title)}.${ending}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      this.menu.open = false;
    };
    const summary = el('summary', { class: 'round' }, icon('download'));
    setLabel(summary, 'export');
    this.menu = el('details', { class: 'menu' }, summary, el('div', { class: 'menu-list' },
      el('button', { type: 'button', class: 'quiet', t: 'export.markdown', on: { click: () => save('md', 'text/markdown', exportMarkdown(this.current, t)) } }),
      el('button', { type: 'button', class: 'quiet', t: 'export.json', on: { click: () => save('json', 'application/json', exportJson(this.current)) } })));
    return this.menu;
  }
}

function isTouched() {
  return matchMedia('(pointer: coarse)').matches;
}

function fileName(title) {
  return title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60) || 'conversation';
}
