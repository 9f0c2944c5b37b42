/** Small plots of a value over the last minutes, drawn as SVG elements. */
import { t } from './i18n.js';
import { el } from './dom.js';

const NS = 'http://www.w3.org/2000/svg';
const WIDTH = 300;
const HEIGHT = 64;
const EDGE = 2; // free space at the top and at the bottom, so that a line at a limit is not cut
const MOST_APART = 20; // seconds between two points that a line joins; the daemon keeps one every 5 s
let count = 0;

/**
 * @typedef {object} Drawing
 * @property {string} name what is shown, such as "Temperature"
 * @property {Array<[number, number | null]>} points times (seconds) and values, oldest first; null is a gap
 * @property {number} from time at the left edge, in seconds
 * @property {number} to time at the right edge
 * @property {number} low value at the bottom
 * @property {number} high value at the top
 * @property {number | null} [target] is shown as a line across
 * @property {(value: number) => string} format a value with its unit
 * @property {(value: number) => string} scale a value without its unit, for the edge of the plot
 */

/**
 * A plot without content; `draw` shows a drawing. Screen readers get its name and a sentence with the least, the
 * greatest and the last value.
 * @returns {{ node: HTMLElement, draw: (drawing: Drawing) => void }}
 */
export function createPlot() {
  const id = `plot-${(count += 1)}`;
  const [title, summary] = [svg('title', { id }), svg('desc', { id: `${id}-summary` })];
  const [area, line, target] = [svg('path', { class: 'area' }), svg('path', { class: 'line' }), svg('path', { class: 'target' })];
  const picture = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-labelledby': `${id} ${id}-summary`,
  });
  picture.append(title, summary, ...ticks(), area, line, target);
  const [high, low] = ['high', 'low'].map((name) => el('span', { class: `scale ${name}`, 'aria-hidden': 'true' }));
  const node = el('div', { class: 'plot' }, picture, high, low);

  function draw(drawing) {
    const place = placer(drawing);
    const runs = unbroken(drawing.points);
    title.textContent = drawing.name;
    summary.textContent = summaryOf(drawing);
    line.setAttribute('d', runs.map((run) => `M${run.map(place).join('L')}h.01`).join(''));
    area.setAttribute('d', runs.map((run) => areaOf(run.map(place))).join(''));
    const across = drawing.target ?? null;
    target.setAttribute('d', across === null ? '' : `M0 ${place([drawing.from, across]).split(' ')[1]}H${WIDTH}`);
    high.textContent = drawing.scale(drawing.high);
    low.textContent = drawing.scale(drawing.low);
  }

  return { node, draw };
}

/** The least, the greatest and the last known value in a sentence. */
function summaryOf({ points, target, format }) {
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  if (!values.length) return t('plot.empty');
  const last = points.at(-1)[1];
  const limits = { least: format(Math.min(...values)), most: format(Math.max(...values)), last: last === null ? t('plot.unknown') : format(last) };
  return t('plot.summary', limits) + (target === null || target === undefined ? '' : ` ${t('plot.target', { target: format(target) })}`);
}

/** Lines at five and ten minutes of fifteen. */
function ticks() {
  return [1 / 3, 2 / 3].map((share) => svg('path', { class: 'tick', d: `M${WIDTH * share} 0V${HEIGHT}` }));
}

/** Runs of points that a line joins: a null or a long silence ends one. */
function unbroken(points) {
  const runs = [];
  let before = -Infinity;
  for (const point of points) {
    if (point[1] === null) before = -Infinity;
    else {
      if (point[0] - before > MOST_APART) runs.push([]);
      runs.at(-1).push(point);
      before = point[0];
    }
  }
  return runs;
}

/** A function from a point to "x y" in the picture. */
function placer({ from, to, low, high }) {
  const [across, up] = [WIDTH / (to - from), (HEIGHT - 2 * EDGE) / (high - low || 1)];
  return ([at, value]) => {
    const y = HEIGHT - EDGE - (value - low) * up;
    return `${round((at - from) * across)} ${round(Math.max(EDGE, Math.min(HEIGHT - EDGE, y)))}`;
  };
}

function areaOf(places) {
  const [first, last] = [places[0], places.at(-1)].map((place) => place.split(' ')[0]);
  return `M${first} ${HEIGHT}L${places.join('L')}L${last} ${HEIGHT}Z`;
}

function svg(tag, attributes) {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
