/** The messages of one conversation, and where the reader is in them. */
import { el, icon } from './dom.js';
import { openCalls } from './conversation.js';
import { resultForm, viewOf } from './messages.js';

const AT_END = 2; // pixels from the end that count as the end
const RECENT = 500; // milliseconds
const SUGGESTIONS = ['suggest.1', 'suggest.2', 'suggest.3'];

export class Thread {
  #views = new Map(); // message -> view
  #follows = true;
  #moved = 0; // when the reader last did what may scroll

  /**
   * @param {{ edit: (message: object, text: string) => void, retry: (message: object) => void,
   *   results: (calls: object[], texts: string[]) => void, suggest: (text: string) => void }} actions
   */
  constructor(actions) {
    this.actions = { ...actions, drawn: () => this.#follow() };
    this.list = el('div', { class: 'messages' });
    this.form = el('div', { class: 'messages' });
    this.node = el('div', { class: 'thread', tabIndex: 0, role: 'region', label: 'messages' }, this.list, this.form);
    this.toEnd = el('button', { type: 'button', class: 'plain to-end', hidden: true, on: { click: () => this.scrollToEnd() } }, icon('down'), el('span', { t: 'to.end' }));
    this.node.addEventListener('scroll', () => this.#look(), { passive: true });
    for (const name of ['wheel', 'touchmove', 'keydown', 'focusin']) this.node.addEventListener(name, () => (this.#moved = performance.now()), { passive: true });
    this.node.addEventListener('pointerdown', ({ target }) => target === this.node && (this.#moved = Infinity)); // the scroll bar, until it is let go
    this.node.addEventListener('pointermove', ({ buttons }) => !buttons && this.#moved === Infinity && (this.#moved = performance.now()));
    const sizes = new ResizeObserver(() => this.#follow());
    for (const node of [this.node, this.list, this.form]) sizes.observe(node);
  }

  /** @param {import('./conversation.js').Conversation} conversation */
  show({ messages }) {
    const kept = this.#views;
    const made = new Map(messages.toReversed().map((message) => [message, kept.get(message) ?? viewOf(message, this.actions)])); // the last is drawn first
    this.#views = new Map(messages.map((message) => [message, made.get(message)]));
    const nodes = [...this.#views.values()].map(({ node }) => node);
    for (const { node } of kept.values()) if (!nodes.includes(node)) node.remove();
    nodes.forEach((node, at) => this.list.children[at] !== node && this.list.insertBefore(node, this.list.children[at] ?? null));
    if (!nodes.length) this.list.replaceChildren(this.#welcome());
    else this.list.querySelector('.welcome')?.remove();
    this.showResultForm(messages.at(-1)?.status === 'running' ? [] : openCalls(messages));
    this.#follow();
  }

  /** Forget how messages were drawn: the language has changed. */
  forget() {
    this.#views.clear();
    this.list.replaceChildren();
  }

  /** @param {object} message has changed */
  update(message) {
    this.#views.get(message)?.update();
  }

  /** @param {import('./conversation.js').Call[]} calls that wait for results */
  showResultForm(calls) {
    this.form.replaceChildren(...(calls.length ? [resultForm(calls, (texts) => this.actions.results(calls, texts))] : []));
    this.#follow();
  }

  scrollToEnd() {
    this.#follows = true;
    this.#follow();
  }

  #welcome() {
    return el('div', { class: 'welcome' }, el('p', { class: 'hello', t: 'welcome' }), el('p', { class: 'muted', t: 'welcome.more' }),
      el('div', { class: 'suggestions' }, ...SUGGESTIONS.map((key) => {
        const button = el('button', { type: 'button', class: 'plain', t: key, on: { click: () => this.actions.suggest(button.textContent) } });
        return button;
      })));
  }

  #follow() {
    if (this.#follows) this.node.scrollTop = this.node.scrollHeight;
    this.#mark();
  }

  /** Only the reader leaves the end: a text that is drawn piece by piece scrolls, too. */
  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.node;
    const distance = scrollHeight - scrollTop - clientHeight;
    if (distance < AT_END || performance.now() - this.#moved < RECENT) this.#follows = distance < AT_END;
    this.#mark();
  }

  #mark() {
    this.toEnd.hidden = this.#follows;
    this.node.style.overflowAnchor = this.#follows ? 'none' : 'auto'; // the browser would hold on to what stands above the end
  }
}
