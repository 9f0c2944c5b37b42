/** Shows a Markdown text that grows. */
import { BlockReader } from './blocks.js';
import { renderBlock, renderItem } from './markdown.js';

const BUDGET = 8; // milliseconds of one frame, of all views together
const frame = { at: 0, began: 0 };

/** Finished blocks stay as they are; drawing many blocks is spread over frames. */
export class MarkdownView {
  #reader = new BlockReader();
  #text = '';
  #complete = false;
  #queue = [];
  #open = { nodes: [], token: null };
  #frame = 0;
  #rest = 0;

  /**
   * @param {HTMLElement} box
   * @param {() => void} [drawn] is called after each frame that changed something
   */
  constructor(box, drawn = () => {}) {
    this.box = box;
    this.drawn = drawn;
  }

  /**
   * @param {string} text all of it
   * @param {boolean} complete nothing will be added
   */
  show(text, complete) {
    if (text === this.#text && complete === this.#complete) return;
    if (this.#complete || !text.startsWith(this.#text)) this.#startAgain();
    this.#text = text;
    this.#complete = complete;
    this.#plan();
  }

  /** @returns {boolean} whether all of the text is drawn */
  get settled() {
    return this.#frame === 0;
  }

  #startAgain() {
    this.#reader = new BlockReader();
    this.#queue = [];
    this.#open = { nodes: [], token: null };
    this.box.replaceChildren();
  }

  #plan() {
    this.#frame ||= requestAnimationFrame((at) => this.#draw(at));
  }

  #draw(at) {
    this.#frame = 0;
    const began = performance.now();
    if (frame.at !== at) Object.assign(frame, { at, began });
    if (began - frame.began > BUDGET || (began < this.#rest && !this.#complete)) return this.#plan();
    const { finished, open } = this.#reader.read(this.#text, this.#complete);
    this.#queue.push(...finished);
    if (this.#queue.length) this.#finishOpen();
    while (this.#queue.length && performance.now() - frame.began < BUDGET) this.#append(this.#queue.shift());
    if (this.#queue.length) this.#plan();
    else this.#drawOpen(open);
    const cost = performance.now() - began;
    this.#rest = cost > BUDGET ? began + 5 * cost : 0; // a long block is drawn less often
    if (this.#complete && !this.#queue.length && this.#reader.definitions) this.#showDefinitions();
    this.drawn();
  }

  /** The open block stays if its last version was the finished one. */
  #finishOpen() {
    if (this.#open.token?.raw === this.#queue[0].raw) {
      this.#queue.shift();
      this.#open = { nodes: [], token: null };
    } else this.#drawOpen(null);
  }

  #drawOpen(token) {
    const { nodes, token: before } = this.#open;
    if (token && before && grow(nodes[0], before, token)) {
      this.#open.token = token;
      return;
    }
    for (const node of nodes) node.remove();
    this.#open = { nodes: token ? this.#append(token) : [], token };
  }

  #append(token) {
    const above = [...this.box.children].findLast(({ tagName }) => /^H[3-6]$/.test(tagName));
    const block = renderBlock(token, above ? Number(above.tagName[1]) : 2);
    const nodes = block.nodeType === Node.DOCUMENT_FRAGMENT_NODE ? [...block.childNodes] : [block];
    this.box.append(block);
    return nodes;
  }

  /** Blocks that refer to an address that stood behind them were drawn without it. */
  #showDefinitions() {
    this.#startAgain();
    this.#queue = this.#reader.read(this.#text, true).finished;
    this.#reader.definitions = false;
    this.#plan();
  }
}

/** Code gets more text, a list more items: long ones are not drawn again. Returns whether `node` shows `token` now. */
function grow(node, before, token) {
  if (token.raw === before.raw) return true;
  if (token.type !== before.type) return false;
  if (token.type === 'code' && token.lang === before.lang && token.text.startsWith(before.text)) {
    node.querySelector('code').firstChild.appendData(token.text.slice(before.text.length));
    return true;
  }
  if (token.type !== 'list' || token.ordered !== before.ordered || token.loose !== before.loose) return false;
  const same = before.items.findIndex(({ raw }, at) => raw !== token.items[at]?.raw);
  if (same < 0) return false;
  while (node.children.length > same) node.lastChild.remove();
  node.append(...token.items.slice(same).map(renderItem));
  return true;
}
