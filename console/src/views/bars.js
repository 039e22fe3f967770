/** Amounts as bars: over time side by side, else one below the other. The table beside them has the figures. */
import { html } from '../html.js';
import { dollars } from '../format.js';
import { plain } from '../text.js';
import { ticks } from './chart-figure.js';

/** @typedef {{name: string, value: number, text: string}} Row */

const WIDTH = 960;
const HEIGHT = 200;
const LEFT = 72;
const ROW = 30;
const MOST = 20;
const day = /^\d{4}-\d\d-\d\d$/;

/** @param {{rows: Row[], over: boolean, label: string}} props */
export const Bars = ({ rows, over, label }) => (over ? html`<${Columns} rows=${rows} label=${label} />` : html`<${Lanes} rows=${rows} label=${label} />`);

/** @param {{rows: Row[], label: string}} props */
function Columns({ rows, label }) {
  const ordered = [...rows].sort((a, b) => (a.name < b.name ? -1 : 1));
  const high = Math.max(...ordered.map((row) => row.value), 1e-12);
  const step = (WIDTH - LEFT - 12) / Math.max(ordered.length, 7);
  const y = (/** @type {number} */ value) => 14 + (HEIGHT - 44) * (1 - value / high);
  const every = Math.ceil(ordered.length / 12);
  return html`<figure class="chart"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${label}; the table below has the figures">
    ${ticks(0, high).map((value) => html`<g key=${value}><line class="rule" x1=${LEFT} x2=${WIDTH - 12} y1=${y(value)} y2=${y(value)} /><text class="tick" x=${LEFT - 8} y=${y(value) + 4} text-anchor="end">${dollars(value)}</text></g>`)}
    ${ordered.map((row, index) => html`<g key=${row.name}><rect class="series s0" x=${LEFT + step * index + step * 0.15} width=${Math.min(step * 0.7, 64)} y=${y(row.value)} height=${HEIGHT - 30 - y(row.value)} rx="3"><title>${plain(row.name)}: ${row.text}</title></rect>
      ${index % every === 0 && html`<text class="tick" x=${LEFT + step * index + step * 0.15 + Math.min(step * 0.7, 64) / 2} y=${HEIGHT - 10} text-anchor="middle">${plain(day.test(row.name) ? row.name.slice(5) : row.name, 12)}</text>`}</g>`)}
  </svg></figure>`;
}

/** @param {{rows: Row[], label: string}} props */
function Lanes({ rows, label }) {
  const most = [...rows].sort((a, b) => b.value - a.value).slice(0, MOST);
  const high = Math.max(...most.map((row) => row.value), 1e-12);
  const height = most.length * ROW + 8;
  return html`<figure class="chart"><svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}; the table below has the figures">
    ${most.map((row, index) => html`<g key=${row.name}><text class="tick" x="232" y=${index * ROW + 20} text-anchor="end">${plain(row.name, 32)}</text>
      <rect class="series s0" x="244" y=${index * ROW + 8} height="16" width=${Math.max(2, 520 * (row.value / high))} rx="3" /><text class="tick" x=${252 + 520 * (row.value / high)} y=${index * ROW + 20}>${plain(row.text, 30)}</text></g>`)}
  </svg></figure>`;
}
