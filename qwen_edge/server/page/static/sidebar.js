/** The list of conversations; on narrow screens a drawer. */
import { el, icon, iconButton } from './dom.js';
import { t } from './i18n.js';

export class Sidebar {
  /** @param {{ open: (id: string) => void, create: () => void, rename: (id: string) => void, remove: (id: string) => void }} actions */
  constructor(actions) {
    this.actions = actions;
    this.list = el('ul', { class: 'conversations' });
    this.node = el('nav', { class: 'sidebar', id: 'sidebar', label: 'conversations' },
      el('button', { type: 'button', class: 'plain wide', on: { click: () => (this.close(), actions.create()) } }, icon('plus'), el('span', { t: 'new' })),
      this.list);
    this.shade = el('div', { class: 'shade', on: { click: () => this.close() } });
    this.opener = iconButton('menu', 'conversations', () => (this.isOpen ? this.close() : this.open()), 'quiet opener');
    this.opener.setAttribute('aria-controls', 'sidebar');
    this.opener.setAttribute('aria-expanded', 'false');
  }

  get isOpen() {
    return this.node.classList.contains('open');
  }

  open() {
    this.node.classList.add('open');
    this.opener.setAttribute('aria-expanded', 'true');
    this.node.querySelector('button').focus();
  }

  close() {
    if (!this.isOpen) return;
    this.node.classList.remove('open');
    this.opener.setAttribute('aria-expanded', 'false');
    if (this.node.contains(document.activeElement)) this.opener.focus();
  }

  /**
   * @param {import('./conversation.js').Conversation[]} conversations
   * @param {string} current id
   */
  show(conversations, current) {
    const focused = document.activeElement?.closest?.('li')?.dataset.id;
    this.list.replaceChildren(...conversations.map((one) => this.#row(one, one.id === current)));
    if (focused) this.list.querySelector(`[data-id="${focused}"] button`)?.focus();
  }

  #row({ id, title }, isCurrent) {
    const name = el('button', { type: 'button', class: 'quiet name', title, on: { click: () => (this.close(), this.actions.open(id)) } }, title || t('new.title'));
    if (isCurrent) name.setAttribute('aria-current', 'true');
    return el('li', { 'data-id': id, class: isCurrent ? 'current' : '' }, name,
      iconButton('edit', 'rename', () => this.actions.rename(id), 'quiet small-round'), iconButton('trash', 'delete', () => this.actions.remove(id), 'quiet small-round'));
  }
}
