/** Amounts as bars: over time side by side, else one below the other. The table beside them has the figures. */
import { html } from '../html.js';
import { dollars } from '../format.js';
import { plain } from '../text.js';
import { ticks } from './chart-figure.js';

/** @typedef {{name: string, value: number, text: string}} Row */

const HEIGHT = 200;
const LEFT = 72;
const ROW = 30;
/** Of a name above its bar, where there is no room beside it. */
const NAME = 18;
const MOST = 20;
const day = /^\d{4}-\d\d-\d\d$/;

/** How wide a chart is drawn: what is scaled down to a telephone cannot be read. @returns {{width: number, narrow: boolean}} */
const room = () => (matchMedia('(max-width: 640px)').matches ? { width: 360, narrow: true } : { width: 960, narrow: false });

/** @param {{rows: Row[], over: boolean, label: string}} props */
export const Bars = ({ rows, over, label }) => (over && rows.length > 1 ? html`<${Columns} rows=${rows} label=${label} />` : html`<${Lanes} rows=${rows} label=${label} />`);

/** @param {{rows: Row[], label: string}} props */
function Columns({ rows, label }) {
  const { width } = room();
  const ordered = [...rows].sort((a, b) => (a.name < b.name ? -1 : 1));
  const high = Math.max(...ordered.map((row) => row.value), 1e-12);
  const step = (width - LEFT - 12) / Math.max(ordered.length, 7);
  const y = (/** @type {number} */ value) => 14 + (HEIGHT - 44) * (1 - value / high);
  const every = Math.ceil(ordered.length / (width / 80));
  return html`<figure class="chart"><svg viewBox="0 0 ${width} ${HEIGHT}" role="img" aria-label="${label}; the table below has the figures">
    ${ticks(0, high).map((value) => html`<g key=${value}><line class="rule" x1=${LEFT} x2=${width - 12} y1=${y(value)} y2=${y(value)} /><text class="tick" x=${LEFT - 8} y=${y(value) + 4} text-anchor="end">${dollars(value)}</text></g>`)}
    ${ordered.map((row, index) => html`<g key=${row.name}><rect class="series s0" x=${LEFT + step * index + step * 0.15} width=${Math.min(step * 0.7, 64)} y=${y(row.value)} height=${HEIGHT - 30 - y(row.value)} rx="3"><title>${plain(row.name)}: ${row.text}</title></rect>
      ${index % every === 0 && html`<text class="tick" x=${LEFT + step * index + step * 0.15 + Math.min(step * 0.7, 64) / 2} y=${HEIGHT - 10} text-anchor="middle">${plain(day.test(row.name) ? row.name.slice(5) : row.name, 12)}</text>`}</g>`)}
  </svg></figure>`;
}

/** @param {{rows: Row[], label: string}} props */
function Lanes({ rows, label }) {
  const most = [...rows].sort((a, b) => b.value - a.value).slice(0, MOST);
  const high = Math.max(...most.map((row) => row.value), 1e-12);
  const { width, narrow } = room();
  const step = narrow ? ROW + NAME : ROW;
  const [left, longest] = narrow ? [0, 170] : [244, 520];
  return html`<figure class="chart"><svg viewBox="0 0 ${width} ${most.length * step + 8}" role="img" aria-label="${label}; the table below has the figures">
    ${most.map((row, index) => {
      const y = index * step + (narrow ? NAME : 0);
      const end = left + longest * (row.value / high);
      return html`<g key=${row.name}><text class="tick" x=${narrow ? 0 : left - 12} y=${narrow ? y : y + 20} text-anchor=${narrow ? 'start' : 'end'}>${plain(row.name, narrow ? 48 : 32)}</text>
        <rect class="series s0" x=${left} y=${y + 8} height="16" width=${Math.max(2, end - left)} rx="3" /><text class="tick" x=${end + 8} y=${y + 20}>${plain(row.text, 30)}</text></g>`;
    })}
  </svg></figure>`;
}
