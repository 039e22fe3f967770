/** Small parts that several pages show. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { address, ApiError, blobUrl } from '../api.js';
import { count, money, percent, sentence, words } from '../format.js';
import { html } from '../html.js';
import { session } from '../session.js';
import { plain } from '../text.js';
import { Icon } from './icons.js';

/** @typedef {import('../types').AssetSummary} AssetSummary */
/** @typedef {import('../types').Money} MoneyValue */

export const Brand = () => html`<span class="brand"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" /><path d="M7 9.500h18v7H7zM7 21.500h18M7 25.500h11" /></svg><span>Captions</span></span>`;

/** @param {{state: string, recaptioned?: boolean}} props */
export const State = ({ state }) => html`<span class="state ${state}">${words(state)}</span>`;

/** What has no price is shown as such, in full where the cost is pointed at or read out. @param {{cost: MoneyValue | null | undefined}} props */
export function Money({ cost }) {
  const open = cost && !cost.exact && (cost.unpriced_tokens || cost.uncounted_calls);
  return html`<span class="money ${open || !cost ? 'open' : ''}">${money(cost)}</span>`;
}

/** @param {{value: number | null | undefined}} props 0 to 1 */
export function Confidence({ value }) {
  if (value === null || value === undefined) return html`<span class="confidence unknown">confidence not known</span>`;
  const level = value < 0.5 ? 'low' : value < 0.8 ? 'middle' : 'high';
  return html`<span class="confidence ${level}">
    <svg viewBox="0 0 40 6" aria-hidden="true"><rect class="track" width="40" height="6" rx="3" /><rect class="fill" width=${40 * value} height="6" rx="3" /></svg>
    <span class="unseen">confidence </span>${percent(value)}</span>`;
}

/** Who the words are from. @param {{asset: AssetSummary}} props */
export function Source({ asset }) {
  if (asset.reviewed === 'edited' || asset.source === 'human') return html`<span class="source human"><${Icon} name="person" />edited</span>`;
  if (asset.reviewed === 'accepted') return html`<span class="source human"><${Icon} name="check" />accepted</span>`;
  if (asset.source === 'cache') return html`<span class="source">copy</span>`;
  return asset.model ? html`<span class="source"><bdi>${plain(asset.reported_model ?? asset.model, 40)}</bdi></span>` : null;
}

/** A picture of an upload, or a sign of its kind. @param {{asset: {key: string, thumbnail?: string | null, kind?: string | null}, alt?: string, size?: string}} props */
export function Thumbnail({ asset, alt = '' }) {
  const source = usePicture(asset.thumbnail ?? null);
  const [broken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [source]);
  if (!source || broken) {
    return html`<span class="thumbnail none" role=${alt ? 'img' : undefined} aria-label=${alt || undefined}><${Icon} name=${asset.kind ?? 'file'} /></span>`;
  }
  return html`<img class="thumbnail" src=${source} alt=${alt} loading="lazy" decoding="async" onError=${() => setBroken(true)} />`;
}

/** The address a picture of the API can be shown from: with a bearer token, that of a blob. @param {string | null} path */
export function usePicture(path) {
  const direct = path && session().mode === 'cookie' ? address(path) : null;
  const [blob, setBlob] = useState(/** @type {string | null} */ (null));
  useEffect(() => {
    if (!path || direct) return undefined;
    /** @type {string | null} */
    let made = null;
    let gone = false;
    blobUrl(path).then((url) => {
      if (gone) URL.revokeObjectURL(url);
      else setBlob((made = url));
    }, () => {});
    return () => {
      gone = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [path, direct]);
  return direct ?? blob;
}

/** @param {{error: Error | null, again?: () => void}} props */
export function Failure({ error, again }) {
  if (!error) return null;
  const lasts = error instanceof ApiError && error.status === 404; // another try finds it no more than this one
  return html`<div class="failure" role="alert"><p>${sentence(error.message)}</p>${again && !lasts && html`<button onClick=${again}>Try again</button>`}</div>`;
}

/** @param {{what?: string}} props */
export const Loading = ({ what = 'Loading' }) => html`<p class="loading" role="status"><span class="spinner" aria-hidden="true"></span>${what} …</p>`;

/** @param {{title: string, children?: any}} props */
export const Empty = ({ title, children }) => html`<div class="empty"><h2>${title}</h2><p>${children}</p></div>`;

/**
 * A choice of a few, as radio buttons that look like one bar.
 * @param {{name: string, label: string, options: [string, string][], value: string, onChange: (value: string) => void}} props
 */
export const Segmented = ({ name, label, options, value, onChange }) => html`<fieldset class="segmented">
  <legend class="unseen">${label}</legend>
  ${options.map(([id, text]) => html`<label key=${id}><input type="radio" name=${name} value=${id} checked=${id === value} onChange=${() => onChange(id)} /><span>${text}</span></label>`)}
</fieldset>`;

/**
 * @param {{label: string, options: [string, string][], value: string, onChange: (value: string) => void}} props
 */
export const Choice = ({ label, options, value, onChange }) => html`<label class="choice"><span>${label}</span>
  <select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
    ${options.map(([id, text]) => html`<option key=${id} value=${id} selected=${id === value}>${text}</option>`)}
  </select></label>`;

/**
 * A modal dialog; the browser keeps the focus inside and gives it back.
 * @param {{title: string, onClose: () => void, children?: any, wide?: boolean}} props
 */
export function Dialog({ title, onClose, children, wide = false }) {
  const at = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    at.current?.showModal();
  }, []);
  return html`<dialog ref=${at} class=${wide ? 'wide' : ''} aria-label=${title} onClose=${onClose}
    onClick=${(/** @type {MouseEvent} */ event) => event.target === at.current && at.current?.close()}>
    <div class="inside"><header><h2>${title}</h2>
      <button class="icon-only" aria-label="Close" onClick=${() => at.current?.close()}><${Icon} name="close" /></button></header>
      ${children}</div></dialog>`;
}

/** @param {{value: number, most?: number, noun?: string}} props */
export const Tally = ({ value, noun }) => html`<span class="tally"><b>${count(value)}</b> ${noun}</span>`;

/** @param {{items: [string, any][], long?: boolean}} props `long`: one below the other */
export const Facts = ({ items, long = false }) => html`<dl class="facts ${long ? 'long' : ''}">${items.filter(([, value]) => value !== null && value !== undefined && value !== '').map(([name, value]) =>
  html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
