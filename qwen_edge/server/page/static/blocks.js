/** Markdown that is still being written, block by block. Pure. */
import { Marked } from './marked.js';

/** @typedef {import('./marked.js').Token} Token a block, or one of two more types: `several` has tokens, `plain` is not Markdown */

const marked = new Marked({ gfm: true, breaks: true });

/** Blocks of a text that grows at its end. Only what is behind the last finished block is parsed again. */
export class BlockReader {
  #settled = 0;
  #broken = false; // the parser could not take what is open; more of it changes nothing
  /** Whether a link's address stands in a block of its own, so that earlier blocks may have to be shown anew. */
  definitions = false;

  /**
   * @param {string} text all of it; the text of the last call is its beginning
   * @param {boolean} complete nothing will be added
   * @returns {{ finished: Token[], open: Token | null }} the blocks finished since the last call, and the one being written
   */
  read(text, complete) {
    const tail = text.replaceAll('\r', '').slice(this.#settled);
    if (!tail.trim()) return { finished: [], open: null };
    const tokens = this.#broken ? [{ type: 'plain', raw: tail }] : lex(tail);
    this.#broken = tokens[0]?.type === 'plain';
    if (Object.keys(tokens.links ?? {}).length) this.definitions = true;
    let last = tokens.length;
    if (!complete) {
      while (last > 0 && tokens[last - 1].type === 'space') last -= 1;
      last -= 1;
    }
    const finished = tokens.slice(0, last);
    for (const token of finished) this.#settled += token.raw.length;
    return { finished: finished.filter(({ type }) => type !== 'space' && type !== 'def'), open: complete ? null : tokens[last] ?? null };
  }
}

/** What the parser cannot take, because it is nested too deep, is one block that is shown as it is written. */
function lex(text) {
  try {
    const tokens = marked.lexer(text);
    return exact(tokens, text) && !mayJoin(tokens) ? tokens : Object.assign([{ type: 'several', raw: text, tokens }], { links: tokens.links });
  } catch {
    return [{ type: 'plain', raw: text }];
  }
}

/** Whether the blocks are the text piece by piece, so that their lengths say where the next one begins. */
function exact(tokens, text) {
  let at = 0;
  return tokens.every(({ raw }) => text.startsWith(raw, (at += raw.length) - raw.length));
}

/** A list and the first characters behind it, which may become its next item. */
function mayJoin(tokens) {
  const last = tokens.at(-1);
  return last.type !== 'list' && last.raw.length < 4 && tokens.some(({ type }) => type === 'list');
}
