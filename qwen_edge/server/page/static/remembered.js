/** The table of remembered conversations, with forget and pin. */
import { number, onLanguage, t } from './i18n.js';
import { announce, el } from './dom.js';
import { requestJson } from './api.js';
import { ask } from './ask.js';
import { bytes } from './device_view.js';

const DAY = 24;
const MOST_HOURS = 24 * 366; // as in config/schema.py

/** @typedef {Record<string, any>} Conversation one of v1/cache */

/**
 * The table without content. `refresh` asks what is remembered now; the question loads the model if it is unloaded, so
 * ask it only of an engine that is ready. `rest` says that the engine is not ready.
 * @returns {{ node: HTMLElement, refresh: () => Promise<void>, rest: () => void }}
 */
export function createRemembered() {
  /** @type {Conversation[] | null} */
  let kept = null;
  const heading = el('h2', { id: 'kept-title', tabIndex: -1, t: 'kept.title' });
  const state = el('p', { class: 'muted' });
  const problem = el('p', { class: 'problem', role: 'alert', hidden: true });
  const table = el('div', { class: 'sideways', role: 'group', 'aria-labelledby': 'kept-title' });
  const again = el('button', { type: 'button', class: 'plain', t: 'kept.refresh', on: { click: () => refresh() } });
  const node = el('section', { class: 'kept', 'aria-labelledby': 'kept-title' },
    el('div', { class: 'row between' }, heading, again), el('p', { class: 'muted', t: 'kept.why' }), problem, state, table);

  function show() {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.act;
    state.hidden = Boolean(kept?.length);
    state.textContent = kept ? t('kept.none') : t('kept.asleep');
    table.replaceChildren(...(kept?.length ? [tableOf(kept, forget, pin)] : []));
    table.tabIndex = table.scrollWidth > table.clientWidth ? 0 : -1; // a table that scrolls must be reachable by keyboard
    if (focused && !table.contains(document.activeElement)) (byAct(focused) ?? heading).focus();
  }

  function byAct(act) {
    return /** @type {HTMLElement | undefined} */ ([...table.querySelectorAll('button')].find((button) => button.dataset.act === act));
  }

  /** Send a request whose answer is the list, and show the list, or why there is none. */
  async function send(path, options) {
    try {
      const answer = await requestJson(path, options);
      kept = answer.data;
      tell(answer.warning ?? '');
      show();
      return true;
    } catch (error) {
      tell(error.message);
      return false;
    }
  }

  function tell(text) {
    problem.textContent = text;
    problem.hidden = !text;
  }

  async function refresh() {
    await send('v1/cache');
  }

  async function forget(one) {
    const text = `${quoted(one)} ${t('forget.what')}`;
    if ((await ask({ title: 'forget.title', ok: 'kept.forget', text, danger: true })) === null) return;
    if (await send(`v1/cache/${encodeURIComponent(one.key)}`, { method: 'DELETE' })) announce(t('forget.done'));
    heading.focus();
  }

  async function pin(one) {
    const hours = await askHours(one);
    if (hours === null || !(await send(`v1/cache/${encodeURIComponent(one.key)}/pin`, { json: { hours } }))) return;
    announce(hours ? t('pin.done', { hours: number(hours, 1) }) : t('pin.ended'));
  }

  function rest() {
    if (!kept) show();
  }

  onLanguage(show);
  return { node, refresh, rest };
}

function tableOf(kept, forget, pin) {
  const owners = kept.some((one) => 'owner' in one); // only admins are told owners
  const columns = ['ends', 'tokens', 'where', ...(owners ? ['owner'] : []), 'pinned', 'acts'];
  const head = columns.map((name) => el('th', { scope: 'col', class: name, t: `kept.${name}` }));
  const rows = kept.map((one) => el('tr', {},
    el('th', { scope: 'row', class: 'ends' }, el('bdi', {}, one.ends || one.key)),
    el('td', { class: 'tokens' }, number(one.tokens)),
    el('td', { class: 'where' }, whereOf(one)),
    ...(owners ? [el('td', { class: 'owner' }, one.owner ?? '')] : []),
    el('td', { class: 'pinned' }, pinnedOf(one)),
    el('td', { class: 'acts' }, action('pin', one, pin, 'plain'), action('forget', one, forget, 'plain danger'))));
  return el('table', { 'aria-labelledby': 'kept-title' }, el('thead', {}, el('tr', {}, ...head)), el('tbody', {}, ...rows));
}

function whereOf(one) {
  const places = [
    one.cached && t('kept.cached', { number: number(one.cached) }),
    one.copied && t('kept.copied', { number: number(one.copied) }),
    one.written && t('kept.written', { number: number(one.written), size: bytes(one.file_bytes) }),
  ];
  return places.filter(Boolean).join(' · ');
}

function pinnedOf(one) {
  const hours = hoursLeft(one);
  return hours > 0 ? t('kept.until', { hours: number(hours, 1) }) : '–';
}

function hoursLeft(one) {
  return (one.pinned_until - Date.now() / 1000) / 3600;
}

/** A button of a row; its accessible name says which row. */
function action(name, one, act, kind) {
  const words = t(`kept.${name}`);
  const button = el('button', { type: 'button', class: kind, 'aria-label': t('kept.of', { action: words, ends: one.ends || one.key }), on: { click: () => act(one) } }, words);
  button.dataset.act = `${name} ${one.key}`;
  return button;
}

/**
 * Ask how long to keep a conversation.
 * @param {Conversation} one
 * @returns {Promise<number | null>} hours, 0 to end a pin; null if the reader cancels
 */
function askHours(one) {
  const hours = el('input', { id: 'pin-hours', type: 'number', min: 0, max: MOST_HOURS, step: 'any', required: true, value: hoursLeft(one) > 0 ? 0 : DAY });
  const dialog = /** @type {HTMLDialogElement} */ (el('dialog', { class: 'small', 'aria-labelledby': 'pin-title' },
    el('form', { method: 'dialog' },
      el('h2', { id: 'pin-title', t: 'pin.title' }), el('p', {}, quoted(one)), el('label', { for: 'pin-hours', t: 'pin.hours' }), hours,
      el('div', { class: 'row end' },
        el('button', { type: 'button', class: 'plain', t: 'cancel', on: { click: () => dialog.close() } }),
        el('button', { type: 'submit', value: 'yes', class: 'main', t: 'pin.use' })))));
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes' ? hours.valueAsNumber : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** How a conversation ends, isolated from the text around it: it may be written from right to left. */
function quoted(one) {
  return `“\u2068${one.ends || one.key}\u2069”`;
}
