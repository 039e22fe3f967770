/** What the pipeline is doing now. */
import { ago, count, duration, money, percent, until, words } from '../format.js';
import { html } from '../html.js';
import { useGet } from '../loading.js';
import { link } from '../route.js';
import { Failure, Loading } from '../views/pieces.js';
import { Inline } from '../views/words.js';

const REFRESH_MS = 3000;
const STATES = ['received', 'queued', 'waiting', 'captioned', 'rejected', 'blocked', 'failed', 'deleted'];

export function Live() {
  const { value, error, again } = useGet('v1/status', { every: REFRESH_MS });
  const alarms = value?.alarms ?? [];
  const loud = alarms.filter((/** @type {any} */ alarm) => /^alarm$/i.test(alarm.state ?? ''));
  const states = value?.states ?? {};
  return html`
    <div class="page-head"><h1 tabindex="-1">Live</h1><p class="note">Read again every ${REFRESH_MS / 1000} seconds while you look.</p></div>
    <${Failure} error=${error} again=${again} />
    ${!value && !error && html`<${Loading} />`}
    ${value && html`
      ${alarms.length > 0 && html`<p class="summary ${loud.length ? 'bad' : 'good'}" role="status">${loud.length ? `${count(loud.length)} of ${count(alarms.length)} alarms ring.` : `None of ${count(alarms.length)} alarms rings.`}</p>`}
      <ul class="states" aria-label="Uploads by state">${STATES.filter((name) => states[name] !== undefined).map((name) => html`<li key=${name}><a href=${link('', '', { state: name })}><b>${count(states[name])}</b><span class="state ${name}">${name}</span></a></li>`)}</ul>
      <div class="tiles">
        <${Tile} title="Queues" head=${['Queue', 'Waiting', 'In work', 'Later', 'Dead letters']} empty="No queues." rows=${(value.queues ?? []).map((/** @type {any} */ queue) => [queue.name, queue.visible ?? queue.waiting, queue.in_flight ?? queue.in_work, queue.delayed, dead(queue.dead_letters ?? queue.dead)])} />
        <${Tile} title="Circuits" head=${['Model or endpoint', 'State', 'Since', 'Tried again']} empty="Every circuit is closed: no model and no endpoint is kept from being asked." rows=${(value.circuits ?? []).map((/** @type {any} */ circuit) => [circuit.name ?? [circuit.model, circuit.endpoint].filter(Boolean).join(' at '), html`<span class="circuit ${circuit.state}">${words(circuit.state ?? '')}</span>`, ago(circuit.since ?? circuit.opened_at), circuit.until ? until(circuit.until) : circuit.retry_in_s ? duration(circuit.retry_in_s * 1000) : '–'])} />
        <section class="tile"><h2>Budgets</h2>${(value.budgets ?? []).length === 0 ? html`<p class="muted">No budget is set, or nothing was spent of it.</p>` : html`<ul class="budgets">${value.budgets.map((/** @type {any} */ budget) => html`<li key=${budget.name}><${Budget} budget=${budget} /></li>`)}</ul>`}</section>
        <${Tile} title="Alarms" head=${['Alarm', 'State', 'Since']} empty="No alarms are set up: a deployed stack has those of monitoring.yaml." rows=${alarms.map((/** @type {any} */ alarm) => [html`<${Inline} text=${alarm.name} most=${120} />`, html`<span class="alarm ${/^alarm$/i.test(alarm.state ?? '') ? 'bad' : ''}">${words(String(alarm.state ?? '').toLowerCase())}</span>`, ago(alarm.since ?? alarm.updated_at)])} />
      </div>`}`;
}

/** @param {number | undefined} value */
const dead = (value) => (value ? html`<b class="bad">${count(value)}</b>` : value);

/** @param {{title: string, head: string[], rows: any[][], empty: string}} props */
const Tile = ({ title, head, rows, empty }) => html`<section class="tile"><h2>${title}</h2>${rows.length === 0 ? html`<p class="muted">${empty}</p>` : html`<div class="scroll" tabindex="0" role="region" aria-label=${title}><table>
  <thead><tr>${head.map((name, index) => html`<th key=${name} scope="col" class=${index && title === 'Queues' ? 'number' : ''}>${name}</th>`)}</tr></thead>
  <tbody>${rows.map((row, at) => html`<tr key=${at}>${row.map((cell, index) => (index ? html`<td key=${index} class=${title === 'Queues' ? 'number' : ''}>${cell ?? '–'}</td>` : html`<th key=${index} scope="row">${cell}</th>`))}</tr>`)}</tbody></table></div>`}</section>`;

/** @param {{budget: any}} props */
function Budget({ budget }) {
  const spent = Number(budget.spent?.dollars ?? budget.spent ?? 0);
  const limit = Number(budget.limit ?? 0);
  const share = limit ? spent / limit : 0;
  return html`<span><b><${Inline} text=${budget.name} most=${80} /></b> ${money(typeof budget.spent === 'object' ? budget.spent : { dollars: String(spent), unpriced_tokens: 0, uncounted_calls: 0, exact: true })} of ${limit ? `$${limit}` : 'no limit'}</span>
    ${limit > 0 && html`<meter min="0" max="1" low="0.7" high="0.9" optimum="0" value=${Math.min(1, share)} aria-label="Spent of ${budget.name}">${percent(share)}</meter>`}`;
}
