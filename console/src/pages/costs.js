/** What captions cost, what was saved, and what another choice would have cost. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { get, query as search } from '../api.js';
import { count, moment, money, percent } from '../format.js';
import { html } from '../html.js';
import { useGet } from '../loading.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { Bars } from '../views/bars.js';
import { Choice, Empty, Failure, Loading, Money, Segmented } from '../views/pieces.js';
import { Inline } from '../views/words.js';

const BY = /** @type {[string, string][]} */ ([['day', 'Day'], ['model', 'Model'], ['tier', 'Tier'], ['task', 'Task'], ['prefix', 'Folder']]);
/** Answers that are added up unasked: 20,000 uploads. */
const UNASKED = 4;
const DAYS = /** @type {[string, string][]} */ ([['1', 'today'], ['7', '7 days'], ['30', '30 days'], ['90', '90 days']]);

/** @param {{query: URLSearchParams}} props */
export function Costs({ query }) {
  const chosen = { by: query.get('by') ?? 'day', days: query.get('days') ?? '30', baseline: query.get('baseline') ?? '' };
  const { value, error, counting, again, goOn } = useCosts(`v1/costs${search(chosen)}`);
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
        ${any(totals.saved_by_batches) && html`<${Card} name="Saved by batches" cost=${totals.saved_by_batches} good hint="against asking the same models at once" />`}
        ${totals.saved_by_tiers && (Number(totals.saved_by_tiers.dollars) < 0
          ? html`<${Card} name="Lost by stepping up" cost=${opposite(totals.saved_by_tiers)} hint="beyond asking the dearer tier's first model at once" />`
          : html`<${Card} name="Saved by tiers" cost=${totals.saved_by_tiers} good hint="against asking the dearer tier's first model at once" />`)}
        ${totals.cost_of_fallback && html`<${Card} name="Cost of falling back" cost=${totals.cost_of_fallback} hint="beyond the first model of each chain" />`}
        ${totals.baseline && html`<${Card} name="${plain(chosen.baseline, 60)} alone" cost=${totals.baseline} hint=${beside(totals)} />`}
      </dl>
      ${value.simulated && html`<p class="note">These sums are simulated where small models of this machine answered, at the prices of the models that were asked for. Nobody is billed for these answers.</p>`}
      ${Object.values(totals).some(partial) && html`<p class="note">≥ stands before a sum whose known part is shown. Beside it stand tokens whose price is not published, and calls of whose tokens nothing is known: these may have cost something.</p>`}
      ${value.cursor && html`<div class="note" role="status">${count(totals.uploads)} uploads are counted so far: exactly those that ended since ${moment(value.back_to)}. ${counting
        ? html`<span class="spinner" aria-hidden="true"></span> Counting on …` : html`<button onClick=${goOn}>Count the rest</button>`}</div>`}
      ${rows.length === 0 && html`<${Empty} title="Nothing was paid in this time">Costs are shown as soon as a model was asked.<//>`}
      ${rows.length > 0 && html`<${Bars} rows=${rows.map((/** @type {any} */ row) => ({ name: label(row, chosen.by), value: Number(row.paid.dollars), text: money(row.paid) }))} over=${chosen.by === 'day'} label="Paid by ${chosen.by}" />
        <div class="scroll" tabindex="0" role="region" aria-label="Costs by ${chosen.by}"><table><thead><tr><th scope="col">${(BY.find(([id]) => id === chosen.by) ?? BY[0])[1]}</th><th scope="col" class="number">Uploads</th><th scope="col" class="number">Copies</th><th scope="col" class="number">Calls</th><th scope="col" class="number">Paid</th><th scope="col" class="number">Saved by copies</th>${any(totals.saved_by_batches) && html`<th scope="col" class="number">Saved by batches</th>`}</tr></thead>
          <tbody>${rows.map((/** @type {any} */ row, /** @type {number} */ index) => html`<tr key=${index}><th scope="row"><${Inline} text=${label(row, chosen.by)} most=${120} /></th><td class="number">${whole(row.uploads)}</td><td class="number">${whole(row.copied)}</td><td class="number">${whole(row.calls)}</td><td class="number"><${Money} cost=${row.paid} /></td><td class="number"><${Money} cost=${row.saved_by_cache} /></td>${any(totals.saved_by_batches) && html`<td class="number"><${Money} cost=${row.saved_by_batches} /></td>`}</tr>`)}</tbody></table></div>`}`}`;
}

/** Costs, added up answer by answer until all are counted. @param {string} path */
function useCosts(path) {
  const [state, setState] = useState(/** @type {{path: string, value: any, error: Error | null, counting: boolean}} */ ({ path: '', value: undefined, error: null, counting: false }));
  const [turn, setTurn] = useState({ from: /** @type {any} */ (null), pages: UNASKED });
  const asked = useRef('');
  useEffect(() => {
    const stop = new AbortController();
    const begun = asked.current === path ? turn.from : null;
    asked.current = path;
    /** @param {any} value @param {number} left */
    const next = (value, left) => get(value ? `${path}&cursor=${encodeURIComponent(value.cursor)}` : path, { signal: stop.signal }).then((more) => {
      if (stop.signal.aborted) return;
      const counting = Boolean(more.cursor) && left > 1;
      setState({ path, value: more, error: null, counting });
      if (counting) next(more, left - 1);
    }, (error) => !stop.signal.aborted && setState({ path, value, error, counting: false }));
    if (begun) setState({ path, value: begun, error: null, counting: true });
    next(begun, begun ? turn.pages : UNASKED);
    return () => stop.abort();
  }, [path, turn]);
  const current = state.path === path;
  const goOn = useCallback(() => setTurn({ from: state.value, pages: Infinity }), [state.value]);
  const again = useCallback(() => setTurn({ from: state.value?.cursor ? state.value : null, pages: UNASKED }), [state.value]);
  return { value: current ? state.value : undefined, error: current ? state.error : null, counting: current && state.counting, again, goOn };
}

/** @param {any} row @param {string} by @returns {string} */
const label = (row, by) => (row.name === '*' ? 'all others' : row.name === '-' ? (by === 'model' ? 'no model: copies, and what was not captioned' : 'none') : row.name || (by === 'prefix' ? 'no folder' : 'none'));

/** What was paid as a share of what one model alone would have cost. @param {any} totals @returns {string} */
function beside({ paid, baseline }) {
  const [spent, alone] = [Number(paid.dollars), Number(baseline.dollars)];
  if (!alone || !paid.exact || !baseline.exact) return 'for the same uploads, each captioned by it';
  return `for the same uploads; what was paid is ${percent(spent / alone)} of it`;
}

/** Whether a total is a cost of which a part is not known. @param {any} total */
const partial = (total) => total?.exact === false;

/** Whether anything is known to be in a cost. @param {any} cost */
const any = (cost) => cost && (Number(cost.dollars) !== 0 || !cost.exact);

/** @param {any} cost */
const opposite = (cost) => ({ ...cost, dollars: String(-Number(cost.dollars)) });

/** @param {number | undefined} value */
const whole = (value) => (value === undefined || value === null ? '–' : count(value));

/** @param {{name: string, cost: any, good?: boolean, hint?: string}} props */
const Card = ({ name, cost, good, hint }) => html`<div class="figure ${good ? 'good' : ''}"><dt>${name}${hint && html`<small>${hint}</small>`}</dt><dd><${Money} cost=${cost} /></dd></div>`;
