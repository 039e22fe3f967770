/** What captions cost, what was saved, and what another choice would have cost. */
import { count, money, percent } from '../format.js';
import { html } from '../html.js';
import { query as search } from '../api.js';
import { useGet } from '../loading.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { Bars } from '../views/bars.js';
import { Choice, Empty, Failure, Loading, Money, Segmented } from '../views/pieces.js';
import { Inline } from '../views/words.js';

const BY = /** @type {[string, string][]} */ ([['day', 'Day'], ['model', 'Model'], ['tier', 'Tier'], ['task', 'Task'], ['prefix', 'Folder']]);
const DAYS = /** @type {[string, string][]} */ ([['1', 'today'], ['7', '7 days'], ['30', '30 days'], ['90', '90 days']]);

/** @param {{query: URLSearchParams}} props */
export function Costs({ query }) {
  const chosen = { by: query.get('by') ?? 'day', days: query.get('days') ?? '30', baseline: query.get('baseline') ?? '' };
  const { value, error, again } = useGet(`v1/costs${search(chosen)}`);
  const models = useGet('v1/models').value?.models ?? [];
  /** @param {Record<string, string>} change */
  const choose = (change) => location.replace(link('costs', '', { ...chosen, ...change }));
  const rows = value?.rows ?? [];
  const totals = value?.totals ?? {};
  return html`
    <div class="page-head"><h1 tabindex="-1">Costs</h1>
      <${Segmented} name="by" label="By" options=${BY} value=${chosen.by} onChange=${(/** @type {string} */ by) => choose({ by })} />
      <${Choice} label="Over" options=${DAYS} value=${chosen.days} onChange=${(/** @type {string} */ days) => choose({ days })} />
      <${Choice} label="Compare with" value=${chosen.baseline} onChange=${(/** @type {string} */ baseline) => choose({ baseline })}
        options=${[['', 'no other model'], ...models.map((/** @type {any} */ model) => [model.name, `${model.name} alone`])]} /></div>
    <${Failure} error=${error} again=${again} />
    ${!value && !error && html`<${Loading} />`}
    ${value && html`
      <dl class="cards">
        <${Card} name="Paid" cost=${totals.paid} />
        <${Card} name="Saved by copies" cost=${totals.saved_by_cache} good />
        ${totals.saved_by_tiers && (Number(totals.saved_by_tiers.dollars) < 0
          ? html`<${Card} name="Lost by stepping up" cost=${opposite(totals.saved_by_tiers)} hint="beyond asking the dearer tier's first model at once" />`
          : html`<${Card} name="Saved by tiers" cost=${totals.saved_by_tiers} good hint="against asking the dearer tier's first model at once" />`)}
        ${totals.cost_of_fallback && html`<${Card} name="Cost of falling back" cost=${totals.cost_of_fallback} hint="beyond the first model of each chain" />`}
        ${totals.baseline && html`<${Card} name="${plain(chosen.baseline, 60)} alone" cost=${totals.baseline} hint=${beside(totals)} />`}
      </dl>
      <p class="note">Where a model's price is not published, a cost is the part that is known, and the tokens that have no price beside it.${value.complete === false ? ' Only the newest uploads of this time are counted: there are too many.' : ''}</p>
      ${rows.length === 0 && html`<${Empty} title="Nothing was paid in this time">Costs are shown as soon as a model was asked.<//>`}
      ${rows.length > 0 && html`<${Bars} rows=${rows.map((/** @type {any} */ row) => ({ name: label(row, chosen.by), value: Number(row.paid.dollars), text: money(row.paid) }))} over=${chosen.by === 'day'} label="Paid by ${chosen.by}" />
        <div class="scroll" tabindex="0" role="region" aria-label="Costs by ${chosen.by}"><table><thead><tr><th scope="col">${(BY.find(([id]) => id === chosen.by) ?? BY[0])[1]}</th><th scope="col" class="number">Uploads</th><th scope="col" class="number">Copies</th><th scope="col" class="number">Calls</th><th scope="col" class="number">Paid</th><th scope="col" class="number">Saved by copies</th></tr></thead>
          <tbody>${rows.map((/** @type {any} */ row, /** @type {number} */ index) => html`<tr key=${index}><th scope="row"><${Inline} text=${label(row, chosen.by)} most=${120} /></th><td class="number">${whole(row.uploads)}</td><td class="number">${whole(row.copied)}</td><td class="number">${whole(row.calls)}</td><td class="number"><${Money} cost=${row.paid} /></td><td class="number"><${Money} cost=${row.saved_by_cache} /></td></tr>`)}</tbody></table></div>`}`}`;
}

/** @param {any} row @param {string} by @returns {string} */
const label = (row, by) => (row.name === '-' ? (by === 'model' ? 'no model: copies, and what was not captioned' : 'none') : row.name || (by === 'prefix' ? 'no folder' : 'none'));

/** What was paid as a share of what one model alone would have cost. @param {any} totals @returns {string} */
function beside({ paid, baseline }) {
  const [spent, alone] = [Number(paid.dollars), Number(baseline.dollars)];
  if (!alone || !paid.exact || !baseline.exact) return 'for the same uploads, each captioned by it';
  return `for the same uploads; what was paid is ${percent(spent / alone)} of it`;
}

/** @param {any} cost */
const opposite = (cost) => ({ ...cost, dollars: String(-Number(cost.dollars)) });

/** @param {number | undefined} value */
const whole = (value) => (value === undefined || value === null ? '–' : count(value));

/** @param {{name: string, cost: any, good?: boolean, hint?: string}} props */
const Card = ({ name, cost, good, hint }) => html`<div class="figure ${good ? 'good' : ''}"><dt>${name}${hint && html`<small>${hint}</small>`}</dt><dd><${Money} cost=${cost} /></dd></div>`;
