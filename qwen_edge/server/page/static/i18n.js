/** The page's words in two languages. A module with words of its own adds them with `addStrings`. */
import en from './en.js';
import zh from './zh.js';

const STORED = 'qwen-edge.language';
const strings = { en: { ...en }, zh: { ...zh } };
const listeners = new Set();
let current = stored() ?? ofBrowser();
document.documentElement.lang = htmlLang(current);

/**
 * The text for `key` in the present language; `{name}` in it stands for `values.name`.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = strings[current][key] ?? strings.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/**
 * Add a module's own words, such as `addStrings({ en: { 'device.heat': 'Heat' }, zh: { 'device.heat': '温度' } })`.
 * @param {{ en: Record<string, string>, zh: Record<string, string> }} more
 */
export function addStrings(more) {
  Object.assign(strings.en, more.en);
  Object.assign(strings.zh, more.zh);
}

/** @returns {'en' | 'zh'} the present language */
export function language() {
  return current;
}

/**
 * Change the language: all `data-t` texts are written again, then the listeners are told.
 * @param {'en' | 'zh'} to
 */
export function setLanguage(to) {
  current = to;
  document.documentElement.lang = htmlLang(to);
  try {
    localStorage.setItem(STORED, to);
  } catch { /* storage is blocked: the choice holds until the page is closed */ }
  translate(document);
  for (const listener of listeners) listener(to);
}

/**
 * @param {(language: 'en' | 'zh') => void} listener is called after each change
 * @returns {() => void} forgets the listener
 */
export function onLanguage(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/**
 * Write the texts of everything below `root` that names a key: `data-t` for its text, `data-t-label` for its accessible
 * name and tooltip, `data-t-placeholder` for its placeholder.
 * @param {ParentNode} root
 */
export function translate(root) {
  for (const node of root.querySelectorAll('[data-t]')) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll('[data-t-label]')) {
    node.setAttribute('aria-label', t(node.dataset.tLabel));
    if (node.tagName === 'BUTTON') node.title = t(node.dataset.tLabel);
  }
  for (const node of root.querySelectorAll('[data-t-placeholder]')) node.placeholder = t(node.dataset.tPlaceholder);
}

/**
 * @param {number} value
 * @param {number} [digits] behind the point, at most
 * @returns {string} the number as people of the present language write it
 */
export function number(value, digits = 0) {
  return new Intl.NumberFormat(htmlLang(current), { maximumFractionDigits: digits }).format(value);
}

function htmlLang(name) {
  return name === 'zh' ? 'zh-CN' : 'en';
}

function ofBrowser() {
  const first = (navigator.languages?.length ? navigator.languages : [navigator.language]).find((tag) => /^(zh|en)\b/i.test(tag));
  return /^zh/i.test(first ?? '') ? 'zh' : 'en';
}

function stored() {
  try {
    const name = localStorage.getItem(STORED);
    return name === 'en' || name === 'zh' ? name : null;
  } catch {
    return null;
  }
}
