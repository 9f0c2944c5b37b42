/**
 * Markdown as elements. Only the elements below are ever made, and texts only become text nodes: nothing that a model
 * writes is parsed as HTML. HTML in an answer is shown as it is written; images are links, because nothing is loaded.
 */
import { el } from './dom.js';
import { codeBlock } from './code.js';

const ENTITY = /&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z]\w{1,31});/gi;
const WRAPS = { paragraph: 'p', blockquote: 'blockquote', strong: 'strong', em: 'em', del: 'del' };
const DEEPEST = 60;

/**
 * A block as elements.
 * @param {import('./blocks.js').Token} token
 * @param {number} [above] the level of the heading before it; a level is never left out, h1 and h2 are the page's
 * @returns {Node}
 */
export function renderBlock(token, above = 2) {
  if (token.type !== 'heading') return render(token, 0);
  return wrap(`h${Math.min(6, token.depth + 2, above + 1)}`, token.tokens, 0);
}

/**
 * @param {import('./blocks.js').Token} item of a list
 * @returns {HTMLElement}
 */
export function renderItem(item) {
  return wrap('li', item.tokens, 1);
}

function render(token, depth) {
  const make = RENDER[token.type];
  if (depth > DEEPEST || (!make && !WRAPS[token.type])) return document.createTextNode(token.raw);
  return make ? make(token, depth) : wrap(WRAPS[token.type], token.tokens, depth);
}

function wrap(tag, tokens, depth, props = {}) {
  return el(tag, props, ...tokens.map((token) => render(token, depth + 1)));
}

const RENDER = {
  plain: ({ raw }) => el('p', {}, raw),
  several: ({ tokens }, depth) => fragment(tokens, depth),
  space: () => document.createTextNode(''),
  def: () => document.createTextNode(''),
  hr: () => el('hr'),
  br: () => el('br'),
  code: ({ text, lang }) => codeBlock(text, (lang ?? '').split(/\s/, 1)[0]),
  codespan: ({ text }) => el('code', {}, text),
  escape: ({ text }) => document.createTextNode(text),
  text: ({ tokens, text }, depth) => (tokens ? fragment(tokens, depth) : document.createTextNode(decode(text))),
  html: ({ raw, block }) => (/^<br *\/?>$/i.test(raw) ? el('br') : block ? el('p', {}, raw.trim()) : document.createTextNode(raw)),
  checkbox: ({ checked }) => document.createTextNode(checked ? '☑ ' : '☐ '),
  heading: ({ tokens }, depth) => el('p', {}, wrap('strong', tokens, depth)), // within a list or a quotation
  list({ ordered, start, items }, depth) {
    const list = el(ordered ? 'ol' : 'ul', {}, ...items.map(({ tokens }) => wrap('li', tokens, depth + 1)));
    if (ordered && start > 1) list.setAttribute('start', String(start));
    return list;
  },
  table({ header, rows, align }, depth) {
    const cells = (row, tag) => el('tr', {}, ...row.map(({ tokens }, at) => wrap(tag, tokens, depth + 2, { align: align[at] ?? undefined })));
    const table = el('table', {}, el('thead', {}, cells(header, 'th')), el('tbody', {}, ...rows.map((row) => cells(row, 'td'))));
    return el('div', { class: 'table', tabIndex: 0 }, table);
  },
  link: ({ href, title, tokens }, depth) => link(href, title, tokens.map((token) => render(token, depth + 1))),
  image: ({ href, title, text }) => link(href, title, [decode(text) || href]),
};

function fragment(tokens, depth) {
  const all = document.createDocumentFragment();
  all.append(...tokens.map((token) => render(token, depth + 1)));
  return all;
}

/** Only addresses of the web and of mail are links; all others are their texts. */
function link(href, title, children) {
  const url = parseUrl(decode(href));
  if (!url || !['http:', 'https:', 'mailto:'].includes(url.protocol)) return el('span', {}, ...children);
  return el('a', { href: url.href, title: title || undefined, target: '_blank', rel: 'noopener noreferrer nofollow' }, ...children);
}

/** Character references such as `&copy;` as characters. A match of ENTITY holds no markup. */
function decode(text) {
  return text.replace(ENTITY, (entity) => new DOMParser().parseFromString(entity, 'text/html').body.textContent);
}

function parseUrl(text) {
  try {
    return new URL(text);
  } catch {
    return null; // relative, or none
  }
}
