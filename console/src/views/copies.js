/** What shares a caption with an upload, the two pictures beside each other, and why they were held for the same. */
import { useState } from 'preact/hooks';
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
  if (comparison.why) return `${comparison.why[0].toUpperCase()}${comparison.why.slice(1)}.`;
  return comparison.kind === 'near' ? 'They look alike in every part that is compared.' : 'They hold the same.';
}

/** How far two pictures' hashes are apart. @param {{comparison?: Comparison | null}} props */
function Distance({ comparison }) {
  const bits = comparison?.hash_distance;
  if (bits === null || bits === undefined) return null;
  return html`<span class="distance"><svg viewBox="0 0 ${HASH_BITS} 8" preserveAspectRatio="none" aria-hidden="true"><rect class="whole" width=${HASH_BITS} height="8" rx="4" /><rect class="apart" width=${bits && Math.max(6, bits)} height="8" rx="4" /></svg>
    <span>${bits ? `${count(bits)} of ${HASH_BITS} bits` : 'no bit'} of their perceptual hashes ${bits ? 'differ' : 'differs'}</span></span>`;
}

/** @param {{asset: Asset}} props */
export function Copies({ asset }) {
  const { copied_from: origin, copies = [] } = asset;
  const [chosen, choose] = useState('');
  if (!origin && !copies.length) return null;
  const copy = copies.find((one) => one.id === chosen) ?? copies[0];
  return html`<${Part} title="Copies">
    ${origin && html`<div class="pair">
      <figure><${Thumbnail} asset=${asset} alt="This upload" /><figcaption>This upload</figcaption></figure>
      <figure><a href=${link('asset', origin.id)}><${Thumbnail} asset=${{ kind: asset.kind, ...origin }} alt="The upload its caption is from" /></a><figcaption><a href=${link('asset', origin.id)}><${Inline} text=${origin.key} most=${120} /></a></figcaption></figure>
      <p>Its caption is a copy. ${why(origin.comparison)} <${Distance} comparison=${origin.comparison} /></p></div>`}
    ${copy && html`<p>${counted(copies.length, 'upload')}${asset.more_copies ? ' and more' : ''} took this caption:</p>
      <div class="pair">
        <figure><${Thumbnail} asset=${asset} alt="This upload" /><figcaption>This upload</figcaption></figure>
        <figure><a href=${link('asset', copy.id)}><${Thumbnail} asset=${{ kind: asset.kind, ...copy }} alt="The upload that took its caption" /></a><figcaption><a href=${link('asset', copy.id)}><${Inline} text=${copy.key} most=${120} /></a>${copy.at && html`<br />${moment(copy.at)}`}</figcaption></figure>
        <p role="status">${why(copy.comparison)} <${Distance} comparison=${copy.comparison} /></p></div>
      ${copies.length > 1 && html`<ul class="copies" aria-label="Choose a copy to compare">${copies.slice(0, AT_ONCE).map((one) => html`<li key=${one.id}><button aria-pressed=${one === copy} aria-label="Compare with ${plain(one.key, 80)}" onClick=${() => choose(one.id)}><${Thumbnail} asset=${{ kind: asset.kind, ...one }} /></button><${Inline} text=${one.key} most=${60} /></li>`)}</ul>`}
      ${(asset.more_copies || copies.length > AT_ONCE) && html`<p><a href=${link('', '', { copy_of: asset.id })}>Show all copies</a></p>`}`}
  <//>`;
}
