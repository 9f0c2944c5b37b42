/** The device's part of the page: it asks the daemon while somebody looks, and shows what the daemon says. */
import { addStrings, number, onLanguage, t } from './i18n.js';
import { announce, el } from './dom.js';
import { ApiError, requestJson } from './api.js';
import { createPlot } from './plot.js';
import { createRemembered } from './remembered.js';
import { facts, lacking, levelOf, reasonOf, TILES, why } from './device_view.js';
import { WORDS } from './device_words.js';

const EVERY = 2000; // milliseconds between two questions
const EVERY_LOST = 5000; // while the daemon does not answer
const WINDOW = 900; // seconds that the plots show
const CLOCKS_AGREE = 10; // seconds: a smaller difference between the daemon's newest point and now is the point's age

/**
 * Show the device in `section`, live while the section and the document are visible.
 * @param {HTMLElement} section
 * @returns {Promise<void>} when the section is there, without its figures
 */
export async function mountDevice(section) {
  const words = (place) => Object.fromEntries(Object.entries(WORDS).map(([key, texts]) => [key, texts[place]]));
  addStrings({ en: words(0), zh: words(1) });
  await loadStyle();
  const view = new View(() => poll.now());
  const poll = new Poll(section, view);
  section.replaceChildren(view.node);
  onLanguage(() => view.show());
  poll.watch();
}

/** The stylesheet of this part: whoever only chats does not load it. */
function loadStyle() {
  const link = el('link', { rel: 'stylesheet', href: new URL('device.css', import.meta.url).href });
  return new Promise((resolve) => {
    for (const end of ['load', 'error']) link.addEventListener(end, () => resolve(undefined));
    document.head.append(link);
  });
}

/** Asks for the device every few seconds while somebody looks. */
class Poll {
  /** @param {HTMLElement} section @param {View} view */
  constructor(section, view) {
    Object.assign(this, { section, view, timer: 0, asking: false, fresh: false });
  }

  /** Begin, and follow whether somebody looks. */
  watch() {
    document.addEventListener('visibilitychange', () => this.now());
    new MutationObserver(() => this.now()).observe(this.section, { attributeFilter: ['hidden'] });
    this.now();
  }

  /** Ask now, unless nobody looks or a question is on its way. */
  now() {
    clearTimeout(this.timer);
    if (document.hidden || this.section.hidden) this.fresh = false; // the plots have a gap, which the history fills
    else if (!this.asking) this.ask();
  }

  async ask() {
    this.asking = true;
    let pause = EVERY;
    try {
      if (!this.fresh) this.view.trail.begin((await requestJson(`v1/device/history?seconds=${WINDOW}`)).samples);
      this.fresh = true;
      this.view.take(await requestJson('v1/device'));
    } catch (error) {
      if (!(error instanceof ApiError)) console.error(error); // a fault of this page
      this.fresh = false;
      this.view.lost(error);
      pause = error.status === 401 ? Infinity : EVERY_LOST; // who gives no key is not asked for it again and again
    }
    this.asking = false;
    if (pause < Infinity) this.timer = setTimeout(() => this.now(), pause);
  }
}

/** The points of all plots, in the daemon's time. */
class Trail {
  constructor() {
    /** @type {Map<string, Array<[number, number | null]>>} */
    this.points = new Map();
    this.ahead = 0; // seconds by which the daemon's clock is ahead of this one
  }

  now() {
    return Date.now() / 1000 + this.ahead;
  }

  /** Begin with the history, which has the time in which nobody looked. */
  begin(samples) {
    const ahead = samples.length ? samples.at(-1).at - Date.now() / 1000 : 0;
    this.ahead = Math.abs(ahead) > CLOCKS_AGREE ? ahead : 0;
    for (const { key } of TILES) this.points.set(key, samples.map((sample) => [sample.at, sample[key] ?? null]));
  }

  add(device) {
    for (const { key, of } of TILES) {
      const row = this.points.get(key);
      row.push([this.now(), of(device)]);
      while (row[0][0] < this.now() - WINDOW) row.shift();
    }
  }
}

/** The section's elements, and what they say. */
class View {
  /** @param {() => void} ask is called when the reader wants another try */
  constructor(ask) {
    Object.assign(this, { trail: new Trail(), remembered: createRemembered(), device: null, seenAt: null, trouble: null, reason: '' });
    this.level = el('span', { class: 'level' });
    this.why = el('p', { class: 'why' }, t('device.asking'));
    this.subject = el('p', { class: 'muted subject' });
    this.problem = el('p', { class: 'problem', hidden: true });
    this.again = el('button', { type: 'button', class: 'plain', t: 'device.again', hidden: true, on: { click: ask } });
    this.sensors = el('p', { class: 'sensors', hidden: true });
    this.tiles = TILES.map(createTile);
    this.list = el('dl', { class: 'facts' });
    this.figures = el('div', { class: 'figures', hidden: true },
      el('h2', { t: 'plots.title' }), el('div', { class: 'tiles' }, ...this.tiles.map(({ node }) => node)), this.sensors,
      el('section', { 'aria-labelledby': 'facts-title' }, el('h2', { id: 'facts-title', t: 'facts.title' }), this.list), this.remembered.node);
    const state = el('header', { class: 'state' }, el('h2', { class: 'unseen', t: 'device.title' }), this.level, this.why, this.subject, this.problem, this.again);
    this.node = el('div', { class: 'device' }, state, this.figures);
  }

  /** Take an answer of v1/device. */
  take(device) {
    if (this.trouble) announce(t('device.back'));
    this.refreshRemembered(this.device, device);
    Object.assign(this, { device, seenAt: new Date(), trouble: null });
    this.trail.add(device);
    this.show();
    this.tellChange();
  }

  /** The daemon did not answer, or refused. */
  lost(error) {
    if (!this.trouble) announce(error.message);
    this.trouble = error;
    this.show();
  }

  /** Other conversations may be remembered when an answer has ended, or when the engine is another one. */
  refreshRemembered(before, now) {
    if (now.engine !== 'ready') this.remembered.rest();
    else if (before?.engine !== 'ready' || before.pending > now.pending || before.restarts !== now.restarts) this.remembered.refresh();
  }

  /** Say a change of the reason to screen readers; the numbers in it change too often to be said. */
  tellChange() {
    const reason = reasonOf(this.device);
    if (this.reason && this.reason !== reason) announce(why(this.device));
    this.reason = reason;
  }

  /** Write everything again, in the present language. */
  show() {
    this.node.classList.toggle('stale', Boolean(this.trouble));
    this.problem.hidden = !this.trouble;
    this.problem.textContent = [this.trouble?.message, this.seenAt && t('device.stale', { time: clock(this.seenAt) })].filter(Boolean).join(' ');
    this.again.hidden = this.trouble?.status !== 401;
    if (this.device) this.showDevice(this.device);
    else this.why.textContent = this.trouble ? '' : t('device.asking');
  }

  showDevice(device) {
    this.figures.hidden = false;
    this.level.dataset.level = levelOf(device);
    this.level.textContent = t(`level.${levelOf(device)}`);
    this.why.textContent = why(device);
    this.subject.textContent = `${device.model} · ${t(`engine.${device.engine}`)}`;
    this.sensors.textContent = lacking(device);
    this.sensors.hidden = !this.sensors.textContent;
    for (const tile of this.tiles) tile.show(device, this.trail.points.get(tile.key), this.trail.now());
    this.list.replaceChildren(...facts(device).map(([key, text]) => el('div', {}, el('dt', { t: key }), el('dd', {}, text))));
  }
}

function clock(time) {
  return time.toLocaleTimeString(document.documentElement.lang);
}

/** A tile: name, value, a note, and the plot of the last minutes. It hides while its value was never known. */
function createTile({ key, name, of, format, scale = (value) => number(value), range, target, note }) {
  const plot = createPlot();
  const [value, remark] = [el('p', { class: 'value' }), el('p', { class: 'remark' })];
  const node = el('article', { class: `tile ${name}`, 'aria-labelledby': `tile-${name}`, hidden: true },
    el('h3', { id: `tile-${name}`, t: name }), value, plot.node, remark);

  function show(device, points, to) {
    const present = of(device);
    node.hidden = !points.some(([, one]) => one !== null);
    if (node.hidden) return;
    const [low, high] = range(points, device);
    value.textContent = present === null ? t('plot.unknown') : format(present);
    remark.textContent = note(device);
    plot.draw({ name: t(name), points, from: to - WINDOW, to, low, high, target: target?.(device) ?? null, format, scale });
  }

  return { key, node, show };
}
