/** Small dialogs. */
import { el } from './dom.js';
import { t } from './i18n.js';

/**
 * Ask for a text, or only whether to go on.
 * @param {{ title: string, ok: string, value?: string, text?: string, danger?: boolean }} options `title` and `ok` are keys
 *   of i18n.js; with `value` there is a field
 * @returns {Promise<string | null>} the text; null if the reader has cancelled
 */
export function ask({ title, ok, value, text, danger }) {
  return new Promise((resolve) => {
    const field = value === undefined ? null : el('input', { value, maxLength: 200, 'aria-label': t(title) });
    const dialog = el('dialog', { class: 'small', 'aria-labelledby': 'ask-title' },
      el('form', { method: 'dialog' },
        el('h2', { id: 'ask-title', t: title }),
        ...(text ? [el('p', {}, text)] : []), ...(field ? [field] : []),
        el('div', { class: 'row end' },
          el('button', { type: 'button', class: 'plain', t: 'cancel', on: { click: () => dialog.close() } }),
          el('button', { type: 'submit', class: danger ? 'main danger' : 'main', value: 'ok', t: ok }))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'ok' ? (field?.value ?? '') : null);
    });
    document.body.append(dialog);
    dialog.showModal();
    field?.select();
  });
}
