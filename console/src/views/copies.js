/** What shares a caption with an upload, the two pictures beside each other, and why they were held for the same. */
import { html } from '../html.js';
import { count, counted, moment } from '../format.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { Part } from './parts.js';
import { Thumbnail } from './pieces.js';
import { Inline } from './words.js';

/** @typedef {import('../types').Asset} Asset */
/** @typedef {import('../types').Copy} Copy */
/** @typedef {import('../types').Comparison} Comparison */

/** Bits of the perceptual hash. */
const HASH_BITS = 256;
const AT_ONCE = 24;

/** @param {Comparison | null | undefined} comparison @returns {string} */
export function why(comparison) {
  if (!comparison) return 'How they were compared was not kept.';
  if (comparison.why) {
    const bits = comparison.hash_distance === null || comparison.hash_distance === undefined ? '' : ` (${count(comparison.hash_distance)} of ${HASH_BITS} bits of their perceptual hashes differ)`;
    return `${comparison.why[0].toUpperCase()}${comparison.why.slice(1)}${bits}.`;
  }
  return comparison.kind === 'near' ? 'They look alike in every part that is compared.' : 'They hold the same.';
}

/** @param {{asset: Asset}} props */
export function Copies({ asset }) {
  const { copied_from: origin, copies = [] } = asset;
  if (!origin && !copies.length) return null;
  return html`<${Part} title="Copies">
    ${origin && html`<div class="pair">
      <figure><${Thumbnail} asset=${asset} alt="This upload" /><figcaption>This upload</figcaption></figure>
      <figure><a href=${link('asset', origin.id)}><${Thumbnail} asset=${{ kind: asset.kind, ...origin }} alt="The upload its caption is from" /></a><figcaption><a href=${link('asset', origin.id)}><${Inline} text=${origin.key} most=${120} /></a></figcaption></figure>
      <p>Its caption is a copy. ${why(origin.comparison)}</p></div>`}
    ${copies.length > 0 && html`<p>${counted(copies.length, 'upload')} took this caption:</p>
      <ul class="copies">${copies.slice(0, AT_ONCE).map((copy) => html`<li key=${copy.id}><a href=${link('asset', copy.id)} aria-label=${plain(copy.key, 80)}><${Thumbnail} asset=${{ kind: asset.kind, ...copy }} /></a><span><${Inline} text=${copy.key} most=${120} /></span><small>${copy.comparison ? why(copy.comparison) : copy.at ? moment(copy.at) : ''}</small></li>`)}</ul>
      ${copies.length > AT_ONCE && html`<p class="muted">and ${count(copies.length - AT_ONCE)} more</p>`}`}
  <//>`;
}
