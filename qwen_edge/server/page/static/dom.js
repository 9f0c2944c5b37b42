/** Building elements without HTML strings. */
import { t } from './i18n.js';

/**
 * An element. In `props`, `class` and names with a dash or `role` and `for` are attributes, `on` is a map of listeners,
 * `t`, `label` and `hint` are keys of `i18n.js` (text, accessible name, placeholder) that follow the language; all
 * others are properties.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node | string)} children texts become text nodes, never markup
 * @returns {HTMLElement}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === 'on') for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === 't') Object.assign(node.dataset, { t: value }), (node.textContent = t(value));
    else if (name === 'label') setLabel(node, value);
    else if (name === 'hint') Object.assign(node.dataset, { tPlaceholder: value }), (node.placeholder = t(value));
    else if (name === 'class' || name === 'role' || name === 'for' || name.includes('-')) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/**
 * Give `node` the accessible name of an i18n key; a button shows it as its tooltip, too.
 * @param {HTMLElement} node
 * @param {string} key
 */
export function setLabel(node, key) {
  node.dataset.tLabel = key;
  node.setAttribute('aria-label', t(key));
  if (node.tagName === 'BUTTON') node.title = t(key);
}

const SHAPES = {
  plus: 'M12 5v14M5 12h14',
  menu: 'M4 7h16M4 12h16M4 17h16',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M6 6h12v12H6z',
  copy: 'M9 9h10v11H9zM5 15V4h10',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  retry: 'M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4',
  edit: 'M5 19l1-4L16 5l3 3L9 18z',
  trash: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13',
  sliders: 'M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  close: 'M6 6l12 12M18 6L6 18',
  down: 'M12 5v14M6 13l6 6 6-6',
};

/**
 * A small drawing that takes the colour of the text; hidden from screen readers.
 * @param {keyof typeof SHAPES} name
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  for (const [key, value] of Object.entries({ viewBox: '0 0 24 24', class: 'icon', 'aria-hidden': 'true' })) svg.setAttribute(key, value);
  path.setAttribute('d', SHAPES[name]);
  svg.append(path);
  return svg;
}

/**
 * A button that shows only a drawing.
 * @param {keyof typeof SHAPES} shape
 * @param {string} label key of i18n.js
 * @param {() => void} click
 * @param {string} [kind] class
 * @returns {HTMLButtonElement}
 */
export function iconButton(shape, label, click, kind = 'quiet') {
  return /** @type {HTMLButtonElement} */ (el('button', { type: 'button', class: `${kind} round`, label, on: { click } }, icon(shape)));
}

let timer = 0;

/**
 * Have a screen reader say `text` when it is idle.
 * @param {string} text
 */
export function announce(text) {
  const live = document.getElementById('live');
  live.textContent = '';
  clearTimeout(timer);
  timer = setTimeout(() => (live.textContent = text), 60); // the same text twice is said twice
}
