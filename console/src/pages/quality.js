/** Which category, model or prompt people have to put right, and how sure that is. */
import { useState } from 'preact/hooks';
import { count, percent, words } from '../format.js';
import { html } from '../html.js';
import { useGet } from '../loading.js';
import { link } from '../route.js';
import { Icon } from '../views/icons.js';
import { Choice, Empty, Failure, Loading } from '../views/pieces.js';
import { Inline } from '../views/words.js';

/** @typedef {import('../types').QualityCell} Cell */

const DAYS = /** @type {[string, string][]} */ ([['', 'all time'], ['7', '7 days'], ['30', '30 days'], ['90', '90 days']]);
const REFRESH_MS = 15_000;

/** @param {{query: URLSearchParams}} props */
export function QualityPage({ query }) {
  const days = query.get('days') ?? '';
  const { value, error, again } = useGet(`v1/quality${days ? `?days=${days}` : ''}`, { every: REFRESH_MS });
  const [enough, setEnough] = useState(false);
  /** @type {Cell[]} */
  const cells = (value?.cells ?? []).filter((/** @type {Cell} */ cell) => !enough || total(cell) >= value.minimum);
  const flagged = cells.filter((cell) => cell.flagged);
  return html`
    <div class="page-head"><h1 tabindex="-1">Quality</h1><${Choice} label="Over" options=${DAYS} value=${days} onChange=${(/** @type {string} */ chosen) => location.replace(link('quality', '', { days: chosen }))} /></div>
    <${Failure} error=${error} again=${again} />
    ${!value && !error && html`<${Loading} />`}
    ${value && html`<p class="note">Share of captions that people edited, of those they edited or accepted, with its 95 % interval (Wilson). From ${count(value.minimum)} verdicts on, a cell is flagged where all of the interval lies above the line of ${percent(value.line)}.</p>`}
    ${value && !value.cells.length && html`<${Empty} title="No verdicts yet">People's verdicts are counted here as soon as there are some. <a href=${link('review')}>Review captions</a>.<//>`}
    ${value?.cells.length > 0 && html`
      <p class="summary" role="status">${flagged.length ? html`<${Icon} name="flag" /> ${count(flagged.length)} of ${count(cells.length)} cells are flagged.` : 'Nothing is flagged.'}
        <label class="check"><input type="checkbox" checked=${enough} onChange=${() => setEnough(!enough)} /> only cells with enough verdicts</label></p>
      <div class="scroll" tabindex="0" role="region" aria-label="Edited share by category, model and prompt version"><table class="quality">
        <thead><tr><th scope="col">Category</th><th scope="col">Model</th><th scope="col">Prompt</th><th scope="col" class="number">Edited</th><th scope="col" class="number">Judged</th><th scope="col">Share edited</th><th scope="col"><span class="unseen">Pictures</span></th></tr></thead>
        <tbody>${[...cells].sort(worst(value.minimum)).map((cell) => html`<tr key=${[cell.category, cell.task, cell.model, cell.prompt_version, cell.experiment, cell.arm].join(' ')} class="${cell.flagged ? 'flagged' : ''} ${total(cell) < value.minimum ? 'few' : ''}">
          <th scope="row">${cell.flagged && html`<span class="flag"><${Icon} name="flag" /><span class="unseen">flagged: </span></span>`}${words(cell.category || 'none')}${cell.task ? html`<small>${words(cell.task)}</small>` : ''}</th>
          <td><${Inline} text=${cell.model} most=${80} /></td><td><code><${Inline} text=${cell.prompt_version} most=${24} /></code>${cell.experiment && html`<small><${Inline} text=${`${cell.experiment}: ${cell.arm ?? ''}`} most=${80} /></small>`}</td>
          <td class="number">${count(cell.edited)}</td><td class="number">${count(total(cell))}</td>
          <td><${Interval} cell=${cell} line=${value.line} /></td>
          <td><a href=${link('', '', { cell: cell.id })}>Pictures<span class="unseen"> that people judged: ${cell.category}, ${cell.model}</span></a></td></tr>`)}</tbody></table></div>`}`;
}

/** @param {Cell} cell */
const total = (cell) => cell.accepted + cell.edited;

/** Flagged first, then those with enough verdicts by share. @param {number} minimum @returns {(a: Cell, b: Cell) => number} */
const worst = (minimum) => (a, b) => Number(b.flagged) - Number(a.flagged) || Number(total(b) >= minimum) - Number(total(a) >= minimum) || (b.share ?? 0) - (a.share ?? 0);

/** @param {{cell: Cell, line: number}} props */
function Interval({ cell, line }) {
  if (cell.share === null || cell.low === null || cell.high === null) return html`<span class="muted">–</span>`;
  const x = (/** @type {number} */ share) => 2 + share * 156;
  return html`<span class="interval"><svg viewBox="0 0 160 18" aria-hidden="true">
      <line class="rule" x1="2" x2="158" y1="9" y2="9" /><line class="limit" x1=${x(line)} x2=${x(line)} y1="1" y2="17" />
      <rect class="range" x=${x(cell.low)} width=${Math.max(2, x(cell.high) - x(cell.low))} y="6" height="6" rx="3" /><circle class="share" cx=${x(cell.share)} cy="9" r="4" /></svg>
    <span>${percent(cell.share)} <small>${percent(cell.low)} to ${percent(cell.high)}</small></span></span>`;
}
