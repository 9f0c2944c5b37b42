/** Blocks of code, and buttons that copy. */
import { el, icon, iconButton, setLabel, announce } from './dom.js';
import { t } from './i18n.js';

/**
 * @param {string} text
 * @param {string} [name] shown above the code, such as its language
 * @returns {HTMLElement}
 */
export function codeBlock(text, name = '') {
  const code = el('code', {}, text);
  return el('div', { class: 'code' },
    el('div', { class: 'code-head' }, el('span', {}, name), copyButton('copy.code', () => code.textContent)),
    el('pre', { tabIndex: 0 }, code));
}

/**
 * A button that copies a text, and shows for a moment that it did.
 * @param {string} label key of i18n.js
 * @param {() => string} text
 * @returns {HTMLButtonElement}
 */
export function copyButton(label, text) {
  const button = iconButton('copy', label, async () => {
    const done = await copy(text());
    show(done ? 'check' : 'close', done ? 'copied' : 'copy.failed');
    announce(t(done ? 'copied' : 'copy.failed'));
    setTimeout(show, 1500, 'copy', label);
  });
  const show = (shape, key) => {
    button.replaceChildren(icon(shape));
    setLabel(button, key);
  };
  return button;
}

/** Pages that came over plain HTTP from another machine have no `navigator.clipboard`. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const before = document.activeElement;
    const area = el('textarea', { value: text, class: 'unseen', 'aria-hidden': 'true' });
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    before?.focus();
    return done;
  }
}
