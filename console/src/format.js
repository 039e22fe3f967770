/** Figures as people read them. */

/** @typedef {import('./types').Money} Money */

const whole = new Intl.NumberFormat('en');
const plural = new Intl.PluralRules('en');

/** @param {number} value @returns {string} */
export const count = (value) => whole.format(value);

/** @param {number} value @param {string} noun in the singular @param {string} [several] @returns {string} */
export function counted(value, noun, several = `${noun}s`) {
  return `${count(value)} ${plural.select(value) === 'one' ? noun : several}`;
}

/** @param {string | number} dollars @returns {string} */
export function dollars(dollars) {
  const value = Number(dollars);
  if (value === 0) return '$0';
  if (value < 0) return `−${positive(-value)}`;
  return positive(value);
}

/** @param {number} value @param {'halfExpand' | 'floor'} [roundingMode] @returns {string} */
function positive(value, roundingMode = 'halfExpand') {
  if (value >= 1) return `$${value.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: 2, roundingMode })}`;
  return `$${value.toLocaleString('en', { maximumSignificantDigits: 2, maximumFractionDigits: 12, roundingMode })}`;
}

/**
 * A cost as far as it is known: what is known, and what has no price.
 * @param {Money | null | undefined} cost @returns {string}
 */
export function money(cost) {
  if (!cost) return 'not known';
  const tokens = cost.unpriced_tokens ?? 0;
  const calls = cost.uncounted_calls ?? 0;
  if (cost.exact || (!tokens && !calls)) return dollars(cost.dollars);
  const open = [tokens ? counted(tokens, 'token') : '', calls ? counted(calls, 'call') : ''].filter(Boolean).join(' + ');
  return Number(cost.dollars) === 0 ? `${open}, no price` : `≥ ${positive(Number(cost.dollars), 'floor')} + ${open}`;
}

/** @param {number} bytes @returns {string} */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number | null | undefined} ms @returns {string} */
export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** @param {number} seconds @returns {string} as players show it */
export function clock(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor((all % 3600) / 60), String(all % 60).padStart(2, '0')];
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

/** @param {string | null | undefined} at ISO 8601 @param {number} [now] ms @returns {string} */
export function ago(at, now = Date.now()) {
  if (!at) return '–';
  const seconds = (now - Date.parse(at)) / 1000;
  if (Number.isNaN(seconds)) return '–';
  if (seconds < 5) return 'now';
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return seconds < 604_800 ? `${Math.floor(seconds / 86_400)} d ago` : new Date(at).toLocaleDateString();
}

/** @param {string | null | undefined} at in the future @param {number} [now] ms @returns {string} */
export function until(at, now = Date.now()) {
  const seconds = Math.ceil((Date.parse(at ?? '') - now) / 1000);
  if (Number.isNaN(seconds)) return '–';
  if (seconds <= 0) return 'now';
  return seconds < 120 ? `in ${seconds} s` : `in ${Math.ceil(seconds / 60)} min`;
}

/** @param {string | null | undefined} at @returns {string} */
export const moment = (at) => (at ? new Date(at).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' }) : '–');

/** @param {number | null | undefined} share 0 to 1 @param {number} [digits] @returns {string} */
export function percent(share, digits = 0) {
  return share === null || share === undefined ? '–' : `${(share * 100).toFixed(digits)} %`;
}

/** @param {string} text an error's, which may begin in lower case and end without a full stop @returns {string} */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? '' : '.');

/** @param {string} name of a state, outcome or field @returns {string} */
export const words = (name) => name.replaceAll('_', ' ').replaceAll('-', ' ');
