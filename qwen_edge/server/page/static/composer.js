/** Where a question is typed. */
import { el, icon, setLabel } from './dom.js';
import { t } from './i18n.js';

const HIGHEST = 240; // pixels

export class Composer {
  #running = false;

  /** @param {{ send: (text: string) => void, stop: () => void, settings: (first?: string) => void }} actions */
  constructor(actions) {
    this.actions = actions;
    this.field = el('textarea', { id: 'question', rows: 1, label: 'ask', hint: 'ask.hint', enterKeyHint: 'send', on: { input: () => this.#fit(), keydown: (event) => this.#key(event) } });
    this.button = el('button', { type: 'submit', class: 'main round' });
    this.chips = el('div', { class: 'chips' });
    const settings = el('button', { type: 'button', class: 'quiet chip', on: { click: () => actions.settings() } }, icon('sliders'), el('span', { t: 'settings' }));
    this.node = el('form', { class: 'composer', on: { submit: (event) => this.#submit(event) } },
      this.field, el('div', { class: 'composer-row' }, settings, this.chips, this.button));
    this.setRunning(false);
  }

  /** @param {boolean} running whether an answer is being written; then the button stops it */
  setRunning(running) {
    this.#running = running;
    this.button.classList.toggle('stop', running);
    this.button.replaceChildren(icon(running ? 'stop' : 'send'));
    setLabel(this.button, running ? 'stop' : 'send');
    this.#fit();
  }

  /** @param {string} text */
  setText(text) {
    this.field.value = text;
    this.#fit();
  }

  /**
   * Name the settings that change answers.
   * @param {import('./conversation.js').Settings} settings
   */
  showSettings(settings) {
    const set = ['system', 'thinking', 'schema', 'tools'].filter((name) => settings[name]);
    this.chips.replaceChildren(...set.map((name) => el('button', { type: 'button', class: 'quiet chip set', on: { click: () => this.actions.settings(name) } }, chipText(name, settings))));
  }

  #submit(event) {
    event.preventDefault();
    if (this.#running) return this.actions.stop();
    const text = this.field.value;
    if (!text.trim()) return;
    this.setText('');
    this.actions.send(text);
  }

  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return; // 229: an input method
    if (matchMedia('(pointer: coarse)').matches || this.#running) return;
    event.preventDefault();
    this.#submit(event);
  }

  #fit() {
    this.field.style.height = 'auto';
    this.field.style.height = `${Math.min(HIGHEST, this.field.scrollHeight + 2)}px`;
    this.button.disabled = !this.#running && !this.field.value.trim();
  }
}

function chipText(name, settings) {
  if (name === 'thinking') return t(`chip.thinking.${settings.thinking}`);
  return name === 'tools' ? t('chip.tools', { count: JSON.parse(settings.tools).length }) : t(`chip.${name}`);
}
