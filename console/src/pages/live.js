/** What the pipeline is doing now. */
import { ago, count, counted, dollars, percent, until, words } from '../format.js';
import { html } from '../html.js';
import { useGet } from '../loading.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { Failure, Loading, Money } from '../views/pieces.js';
import { Inline } from '../views/words.js';

const REFRESH_MS = 3000;
/** What is counted, where it is shown, and the colour of which state it has. @type {Record<string, [string, string]>} */
const COUNTED = {
  on_their_way: [link(''), 'queued'], unreviewed: [link('review'), 'captioned'], failed: [link('', '', { state: 'failed' }), 'failed'],
  blocked: [link('', '', { state: 'blocked' }), 'blocked'], rejected: [link('', '', { state: 'rejected' }), 'rejected'],
};

export function Live() {
  const { value, error, again } = useGet('v1/status', { every: REFRESH_MS });
  const alarms = value?.alarms ?? [];
  const states = value?.states ?? {};
  return html`
    <div class="page-head"><h1 tabindex="-1">Live</h1><p class="note">Read again every ${REFRESH_MS / 1000} seconds while you look.</p></div>
    <${Failure} error=${error} again=${again} />
    ${!value && !error && html`<${Loading} />`}
    ${value && html`
      ${alarms.length > 0 && html`<p class="summary bad" role="status">${counted(alarms.length, 'alarm rings', 'alarms ring')}.</p>`}
      <ul class="states" aria-label="Uploads by state">${Object.entries(COUNTED).filter(([name]) => states[name] !== undefined).map(([name, [href, colour]]) => html`<li key=${name}><a href=${href}><b>${count(states[name])}${value.states_complete === false ? '+' : ''}</b><span class="state ${colour}">${words(name)}</span></a></li>`)}</ul>
      <div class="tiles">
        <${Tile} title="Queues" head=${['Queue', 'Waiting', 'In work', 'Later', 'Dead letters']} empty="No queues." rows=${queues(value.queues ?? [])} />
        <${Tile} title="Circuits" head=${['Model or endpoint', 'Why it is open', 'Tried again']} empty="Every circuit is closed: no model and no endpoint is kept from being asked." rows=${(value.circuits ?? []).map((/** @type {any} */ circuit) => [html`<${Inline} text=${circuit.name} most=${160} />`, html`<span class="circuit open">${words(circuit.reason ?? '')}</span>`, until(circuit.open_until)])} />
        ${value.bulk && (value.bulk.waiting > 0 || value.bulk.batches.length > 0) && html`<${Bulk} bulk=${value.bulk} />`}
        <section class="tile"><h2>Budgets</h2>${(value.budgets ?? []).length === 0 ? html`<p class="muted">No budget is set.</p>` : html`<ul class="budgets">${value.budgets.map((/** @type {any} */ budget) => html`<li key=${budget.scope}><${Budget} budget=${budget} /></li>`)}</ul>`}</section>
        <${Tile} title="Alarms" head=${['Alarm', 'Why', 'Since']} empty=${value.alarms ? 'No alarm rings.' : 'Alarms are shown to those who see all uploads.'} note=${value.alarms_without_data ? `${counted(value.alarms_without_data, 'alarm')} cannot ring yet: what they watch was not measured.` : ''} rows=${alarms.map((/** @type {any} */ alarm) => [html`<${Inline} text=${alarm.name} most=${120} />`, html`<${Inline} text=${alarm.reason} most=${300} />`, ago(alarm.since)])} />
      </div>`}`;
}

/**
 * Each queue with its dead-letter queue in one row.
 * @param {{name: string, dead_letters: boolean, visible: number, in_flight: number, delayed: number}[]} list
 */
const queues = (list) => list.filter((queue) => !queue.dead_letters).map((queue) => {
  const dead = list.find((other) => other.dead_letters && other.name === queue.name)?.visible;
  return [queue.name, count(queue.visible), count(queue.in_flight), count(queue.delayed), dead ? html`<b class="bad">${count(dead)}</b>` : dead];
});

/** What waits in the bulk lane, and in which batches; the newest first. @param {{bulk: any}} props */
const Bulk = ({ bulk }) => html`<${Tile} title="Batches" head=${['Batch', 'State', 'Answered', 'Gathered', 'Cost', 'Saved']} empty="No batch is on its way."
  note=${bulk.waiting > 0 ? `${count(bulk.waiting)}${bulk.waiting_complete ? '' : '+'} wait for a batch, the first gathered ${ago(bulk.waiting_since)}.` : ''}
  rows=${[...bulk.batches].reverse().map((/** @type {any} */ batch) => [html`${batch.id.slice(0, 12)}<small><${Inline} text=${batch.model} most=${80} /></small>`,
    html`${words(batch.state)}${batch.reason && html`<small><${Inline} text=${batch.reason} most=${200} /></small>`}`, `${count(batch.taken)} of ${count(batch.lines)}`, ago(batch.gathered_at),
    batch.taken ? html`<${Money} cost=${batch.cost} />` : '–', batch.taken ? html`<${Money} cost=${batch.saved} />` : '–'])} />`;

/** @param {{title: string, head: string[], rows: any[][], empty: string, note?: string}} props */
const Tile = ({ title, head, rows, empty, note }) => html`<section class="tile"><h2>${title}</h2>${rows.length === 0 ? html`<p class="muted">${empty}</p>` : html`<div class="scroll" tabindex="0" role="region" aria-label=${title}><table>
  <thead><tr>${head.map((name, index) => html`<th key=${name} scope="col" class=${index && title === 'Queues' ? 'number' : ''}>${name}</th>`)}</tr></thead>
  <tbody>${rows.map((row, at) => html`<tr key=${at}>${row.map((cell, index) => (index ? html`<td key=${index} class=${title === 'Queues' ? 'number' : ''}>${cell ?? '–'}</td>` : html`<th key=${index} scope="row">${cell}</th>`))}</tr>`)}</tbody></table></div>`}${note && html`<p class="muted">${note}</p>`}</section>`;

/** @param {{budget: {scope: string, limit: string, spent: string}}} props */
function Budget({ budget }) {
  const share = Number(budget.limit) ? Number(budget.spent) / Number(budget.limit) : 0;
  const name = budget.scope === '*' ? 'Everything' : plain(budget.scope, 80);
  return html`<span><b>${name}</b> today: ${dollars(budget.spent)} of ${dollars(budget.limit)}</span>
    <meter min="0" max="1" low="0.7" high="0.9" optimum="0" value=${Math.min(1, share)} aria-label="Spent of the budget for ${name}">${percent(share)}</meter>`;
}
