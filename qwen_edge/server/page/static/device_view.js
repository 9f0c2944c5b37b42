/** What the device's part of the page says of an answer of v1/device: sentences, tiles and details. No requests here. */
import { number, t } from './i18n.js';
import { WORDS } from './device_words.js';

/** @typedef {Record<string, any>} Device the answer of v1/device */

const celsius = (value) => `${number(value, 1)} °C`;
const watts = (value) => `${number(value, 1)} W`;
const share = (value) => `${number(100 * value)}%`;
const joules = (value) => (value < 10 ? `${number(value, 3)} J` : `${number(value)} J`);
const speed = (value) => t('speed.unit', { number: number(value, 1) });
const requests = (value) => t(value === 1 ? 'pending.one' : 'pending.unit', { number: number(value) });
const above = (points, least = 0) => Math.max(least, ...points.map(([, value]) => value ?? 0));

/** @param {number} value @returns {string} */
export const bytes = (value) => (value < 1e9 ? `${number(value / 1e6)} MB` : `${number(value / 1e9, 1)} GB`);

/**
 * The values that have a tile and a plot. `key` is their name in v1/device/history; `range` gives the plot's lower and
 * upper end for the points that it shows.
 */
export const TILES = [
  {
    key: 'celsius', name: 'celsius', of: (device) => device.telemetry?.tj ?? null, format: celsius,
    range: (points, device) => [Math.min(30, ...points.map(([, value]) => value ?? 30)), above(points, device.governor.target + 5)],
    target: (device) => device.governor.target,
    note: ({ governor }) => t('celsius.note', { target: celsius(governor.target), pause: celsius(governor.pause) }),
  },
  { key: 'duty', name: 'duty', of: (device) => device.governor.duty, format: share, scale: share, range: () => [0, 1], note: dutyNote },
  { key: 'watts', name: 'watts', of: (device) => device.telemetry?.watts ?? null, format: watts, range: (points) => [0, above(points, 1) * 1.1], note: wattsNote },
  { key: 'tokens_per_second', name: 'speed', of: (device) => device.tokens_per_second, format: speed, range: (points) => [0, above(points, 1) * 1.1], note: () => t('speed.note') },
  { key: 'pending', name: 'pending', of: (device) => device.pending, format: requests, range: (points) => [0, above(points, 1)], note: pendingNote },
  {
    key: 'memory', name: 'memory', of: (device) => device.memory ?? null, format: bytes, scale: bytes, range: (points) => [0, above(points, 1) * 1.1],
    note: ({ telemetry }) => t(telemetry?.memory_total ? 'memory.all' : 'memory.note', { used: bytes(telemetry?.memory_used), total: bytes(telemetry?.memory_total) }),
  },
];

function dutyNote({ governor }) {
  if (governor.duty_ran === null) return t('duty.note');
  return t('duty.ran', { ran: share(governor.duty_ran), asked: share(governor.duty_asked) });
}

function wattsNote({ energy }) {
  const idle = energy?.idle_watts != null && t('watts.idle', { watts: watts(energy.idle_watts) });
  return join([idle, energy?.joules_per_token && t('watts.token', { joules: joules(energy.joules_per_token) })]);
}

function pendingNote({ sequences, pending }) {
  return t('pending.note', { running: number(Math.min(sequences, pending)), waiting: number(Math.max(0, pending - sequences)) });
}

/**
 * The governor's level; `slowed` where the level changes nothing and the duty does.
 * @param {Device} device
 * @returns {string} the end of a key `level.…` of the words
 */
export function levelOf({ governor }) {
  return governor.level === 'nominal' && governor.duty < 1 ? 'slowed' : governor.level;
}

/**
 * Why requests are slowed or refused, as the end of a key `why.…` of the words.
 * @param {Device} device
 * @returns {string}
 */
export function reasonOf({ engine, governor }) {
  if (engine === 'asleep') return 'asleep';
  if (['restarting', 'reaping', 'loading'].includes(engine)) return 'restarting';
  if (['critical', 'hot'].includes(governor.level)) return governor.level;
  if (governor.refused.length) return 'low_battery';
  if (governor.duty < 1 && `why.${governor.reason}` in WORDS) return governor.reason;
  return governor.level === 'warm' ? 'warm' : 'calm';
}

/**
 * Why requests are slowed or refused, in one sentence.
 * @param {Device} device
 * @returns {string}
 */
export function why(device) {
  const { duty, target, pause, retry_after: wait } = device.governor;
  return t(`why.${reasonOf(device)}`, { duty: share(duty), target: celsius(target), pause: celsius(pause), wait: duration(wait) });
}

/**
 * A sentence on the sensors that this machine lacks; empty if it has them.
 * @param {Device} device
 * @returns {string}
 */
export function lacking({ telemetry }) {
  const missing = [['celsius', telemetry?.tj], ['watts', telemetry?.watts]].filter(([, value]) => value == null);
  return missing.length ? t(`none.${missing.length === 2 ? 'both' : missing[0][0]}`) : '';
}

/**
 * The details: pairs of a word's key and a text; what is not known is left out.
 * @param {Device} device
 * @returns {Array<[string, string]>}
 */
export function facts(device) {
  const sample = device.telemetry ?? {};
  const { energy, cache } = device;
  /** @type {Array<[string, string | false | null | undefined]>} */
  const all = [
    ['fact.restarts', device.last_death ? t('fact.death', { number: number(device.restarts), reason: device.last_death }) : number(device.restarts)],
    ['fact.clocks', named(sample.clocks, (clock) => `${number(clock.hertz / 1e6)} MHz`)],
    ['fact.load', join([sample.cpu_load != null && `CPU ${share(sample.cpu_load)}`, sample.gpu_load != null && `GPU ${share(sample.gpu_load)}`])],
    ['fact.token', energy?.joules_per_token && joules(energy.joules_per_token)],
    ['fact.today', energy && `${number(sum(energy.today) / 3600, 2)} Wh`],
    ['fact.energy', energy && join(Object.entries(energy.joules).filter(([, value]) => value).map(([phase, value]) => `${t(`phase.${phase}`)} ${joules(value)}`))],
    ['fact.cache', cache.prompt_tokens > 0 && t('fact.share', { share: share(cache.cached_tokens / cache.prompt_tokens), number: number(cache.prompt_tokens) })],
    ['fact.zones', named(sample.temperatures, celsius)],
    ['fact.rails', named(sample.rails, watts)],
    ['fact.board', boardOf(sample)],
    ['fact.throttled', sample.throttled?.join(' · ')],
    ['fact.missing', sample.missing?.join(' · ')],
    ['fact.trouble', device.trouble],
    ['fact.source', device.age === null ? device.source : t('fact.age', { source: device.source, age: number(device.age, 1) })],
  ];
  return /** @type {Array<[string, string]>} */ (all.filter(([, text]) => text));
}

function boardOf({ mode, fan, battery }) {
  return join([
    mode && t('fact.mode', { mode }), fan != null && t('fact.fan', { share: share(fan) }),
    battery && t('fact.battery', { share: share(battery.level) }), battery?.discharging && t('fact.discharging'),
  ]);
}

function named(values, format) {
  return join(Object.entries(values ?? {}).map(([name, value]) => `${name} ${format(value)}`));
}

function join(parts) {
  return parts.filter(Boolean).join(' · ');
}

function sum(values) {
  return Object.values(values).reduce((all, value) => all + value, 0);
}

/** @param {number} seconds @returns {string} a time as people say it, in the present language */
function duration(seconds) {
  const [value, unit] = seconds < 90 ? [Math.ceil(seconds), 'second'] : [seconds / 60, 'minute'];
  const written = new Intl.NumberFormat(document.documentElement.lang, { style: 'unit', unit, unitDisplay: 'long', maximumFractionDigits: 0 });
  return written.format(value);
}
