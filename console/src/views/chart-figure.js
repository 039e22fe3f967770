/** A chart's data, drawn once more and as a table: what was read can be held against the picture. */
import { html } from '../html.js';
import { count } from '../format.js';
import { plain } from '../text.js';
import { Inline } from './words.js';

const WIDTH = 640;
const HEIGHT = 240;
const MARGIN = { top: 12, right: 12, bottom: 28, left: 52 };
const MOST_POINTS = 200;
const MOST_SERIES = 8;

/** @typedef {import('../types').Series} Series */

/** @param {number} low @param {number} high @returns {number[]} about four round values */
export function ticks(low, high) {
  if (!(high > low)) return [low];
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? rough;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

/** @param {{data: any}} props */
export function ChartFigure({ data }) {
  /** @type {Series[]} */
  const series = (data.series ?? []).slice(0, MOST_SERIES).filter((/** @type {Series} */ one) => one.points?.length);
  const values = series.flatMap((one) => one.points.slice(0, MOST_POINTS).map((point) => point.y)).filter((value) => typeof value === 'number' && Number.isFinite(value));
  if (!values.length) return null;
  const categories = [...new Set(series.flatMap((one) => one.points.slice(0, MOST_POINTS).map((point) => String(point.x))))].slice(0, MOST_POINTS);
  const bars = !/line|area|scatter/i.test(data.chart_type ?? '');
  const low = Math.min(0, .../** @type {number[]} */ (values));
  const high = Math.max(.../** @type {number[]} */ (values), low + 1e-9);
  const inner = { width: WIDTH - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const step = inner.width / categories.length;
  const y = (/** @type {number} */ value) => MARGIN.top + inner.height * (1 - (value - low) / (high - low));
  const x = (/** @type {string} */ category) => MARGIN.left + step * (categories.indexOf(category) + 0.5);
  const every = Math.ceil(categories.length / 10);
  const pointsOf = (/** @type {Series} */ one) => one.points.slice(0, MOST_POINTS).filter((point) => typeof point.y === 'number');
  return html`<figure class="chart">
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="The chart's data drawn again; the table below has the figures">
      ${ticks(low, high).map((value) => html`<g key=${value}><line class="rule" x1=${MARGIN.left} x2=${WIDTH - MARGIN.right} y1=${y(value)} y2=${y(value)} /><text class="tick" x=${MARGIN.left - 6} y=${y(value) + 4} text-anchor="end">${count(value)}</text></g>`)}
      ${categories.map((category, index) => index % every === 0 && html`<text key=${category} class="tick" x=${x(category)} y=${HEIGHT - 8} text-anchor="middle">${plain(category, 14)}</text>`)}
      ${series.map((one, index) => bars
        ? pointsOf(one).map((point) => html`<rect key=${`${index} ${point.x}`} class="series s${index}" x=${x(String(point.x)) - step * 0.4 + (step * 0.8 / series.length) * index} width=${Math.max(1, (step * 0.8) / series.length - 1)} y=${Math.min(y(Number(point.y)), y(0))} height=${Math.max(1, Math.abs(y(Number(point.y)) - y(0)))} rx="2" />`)
        : html`<polyline key=${index} class="series line s${index}" points=${pointsOf(one).map((point) => `${x(String(point.x))},${y(Number(point.y))}`).join(' ')} />`)}
    </svg>
    ${series.length > 1 && html`<figcaption class="legend">${series.map((one, index) => html`<span key=${index}><i class="swatch s${index}"></i><${Inline} text=${one.name || `Series ${index + 1}`} most=${60} /></span>`)}</figcaption>`}
    <div class="scroll" tabindex="0" role="region" aria-label="Chart data"><table><thead><tr><th scope="col"><${Inline} text=${data.x_axis?.label || 'Category'} most=${60} /></th>${series.map((one, index) => html`<th key=${index} scope="col" class="number"><${Inline} text=${one.name || data.y_axis?.label || 'Value'} most=${60} />${data.y_axis?.unit ? html` (<${Inline} text=${data.y_axis.unit} most=${20} />)` : ''}</th>`)}</tr></thead>
      <tbody>${categories.map((category) => html`<tr key=${category}><th scope="row"><${Inline} text=${category} most=${80} /></th>${series.map((one, index) => html`<td key=${index} class="number">${one.points.find((point) => String(point.x) === category)?.y ?? '–'}</td>`)}</tr>`)}</tbody></table></div>
  </figure>`;
}
