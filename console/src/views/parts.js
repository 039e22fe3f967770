/** The parts of an answer, by task (docs/tasks.md). */
import { useEffect, useState } from 'preact/hooks';
import { characters } from '../text.js';
import { clock, counted, percent, words } from '../format.js';
import { html } from '../html.js';
import { ChartFigure } from './chart-figure.js';
import { AltCounter } from './editor.js';
import { Facts } from './pieces.js';
import { Inline, Words } from './words.js';

/** @typedef {import('../types').Asset} Asset */
/** @typedef {import('../types').Result} Result */

/** Beyond that, code is shown plain: highlighting it would hold the page up. */
const MOST_HIGHLIGHTED = 100_000;
const AT_ONCE = 200;

/** @param {{title: string, id?: string, children?: any}} props */
export const Part = ({ title, children }) => html`<section class="part"><h2>${title}</h2>${children}</section>`;

/** @param {{asset: Asset, result: Result}} props */
export function Parts({ asset, result }) {
  const data = result.data ?? {};
  return html`
    ${result.task === 'alt_text' && html`<${AltText} result=${result} />`}
    ${result.task === 'code' && html`<${Code} text=${result.text} data=${data} />`}
    ${(data.series?.length > 0 || data.chart_type) && html`<${ChartPart} data=${data} />`}
    ${data.blocks?.length > 0 && html`<${Blocks} data=${data} />`}
    ${data.objects?.length > 0 && html`<${Objects} data=${data} />`}
    ${data.visible_text?.length > 0 && html`<${Part} title="Written in it"><${Lines} lines=${data.visible_text} /><//>`}
    ${data.scenes?.length > 0 && html`<${Scenes} scenes=${data.scenes} />`}
    <${Sound} data=${data} />
    ${asset.tracks?.length > 0 && html`<${Part} title="Subtitles"><p class="links">${asset.tracks.map((track) => html`<a key=${track.url} href=${track.url.replace(/^\//, '')} download>${trackName(track)}</a> `)}</p><//>`}
    ${result.left_out?.length ? html`<p class="muted">Left out, since a record has no room for it: ${result.left_out.map((name) => words(name)).join(', ')}.</p>` : null}`;
}

/** @param {{format: string, kind: string}} track */
const trackName = (track) => ({ vtt: 'WebVTT', srt: 'SubRip', text: 'Text' }[track.format] ?? track.format);

/** @param {{lines: string[], lang?: string}} props */
const Lines = ({ lines }) => html`<ul class="lines">${lines.slice(0, AT_ONCE).map((line, index) => html`<li key=${index}><${Inline} text=${line} most=${2000} /></li>`)}</ul>`;

/** @param {{result: Result}} props */
function AltText({ result }) {
  const data = result.data ?? {};
  return html`<${Part} title="Alt text">
    <p><${AltCounter} value=${characters(result.text)} /></p>
    <${Facts} items=${[['Purpose', data.purpose && words(data.purpose)], ['Why', data.reason && html`<${Inline} text=${data.reason} />`]]} />
    ${data.long_description && html`<h3>Long description</h3><${Words} text=${data.long_description} lang=${result.language} />`}
  <//>`;
}

/** @param {{data: any}} props */
function Blocks({ data }) {
  const [shown, setShown] = useState(AT_ONCE);
  return html`<${Part} title="Text in the picture">
    <${Facts} items=${[['Languages', data.languages?.join(', ')], ['Scripts', data.scripts?.join(', ')]]} />
    <ol class="blocks">${data.blocks.slice(0, shown).map((/** @type {any} */ block, /** @type {number} */ index) => html`<li key=${index}>
      ${block.role && html`<span class="role">${block.role}</span>`}<${Words} text=${block.text ?? ''} lang=${block.language} /></li>`)}</ol>
    ${data.blocks.length > shown && html`<button class="quiet" onClick=${() => setShown(shown + AT_ONCE)}>Show more blocks (${data.blocks.length - shown} are left)</button>`}
    ${data.unclear?.length > 0 && html`<h3>Not read for certain</h3><${Lines} lines=${data.unclear} />`}
  <//>`;
}

/** @param {{data: any}} props */
const ChartPart = ({ data }) => html`<${Part} title=${data.title ? 'Chart' : 'Chart data'}>
  ${data.title && html`<p class="chart-title"><${Inline} text=${data.title} /></p>`}
  <${ChartFigure} data=${data} />
  ${data.trends?.length > 0 && html`<h3>Trends</h3><${Lines} lines=${data.trends} />`}
  ${data.misleading?.length > 0 && html`<h3>What could mislead</h3><${Lines} lines=${data.misleading} />`}
<//>`;

/** @param {{data: any}} props */
const Objects = ({ data }) => html`<${Part} title="Objects"><div class="scroll" tabindex="0" role="region" aria-label="Objects"><table><thead><tr><th>What</th><th class="number">How many</th><th>Where</th><th>Details</th></tr></thead>
  <tbody>${data.objects.slice(0, AT_ONCE).map((/** @type {any} */ thing, /** @type {number} */ index) => html`<tr key=${index}><td><${Inline} text=${thing.name} /></td><td class="number">${thing.count ?? ''}</td><td><${Inline} text=${thing.position} /></td><td><${Inline} text=${thing.details} /></td></tr>`)}</tbody></table></div>
  ${data.brands?.length > 0 && html`<h3>Brands</h3><${Lines} lines=${data.brands} />`}
  ${data.signage?.length > 0 && html`<h3>Signs</h3><${Lines} lines=${data.signage} />`}<//>`;

/** @param {{scenes: any[]}} props */
const Scenes = ({ scenes }) => html`<${Part} title="Scenes"><ol class="scenes">${scenes.slice(0, AT_ONCE).map((scene, index) => html`<li key=${index}>
  <span class="time">${typeof scene.start_s === 'number' ? clock(scene.start_s) : ''}</span> <${Inline} text=${scene.text} most=${2000} /></li>`)}</ol><//>`;

/** @param {{data: any}} props */
function Sound({ data }) {
  const several = (/** @type {any} */ list) => (list?.length ? html`<${Inline} text=${list.join(', ')} />` : null);
  const said = (/** @type {any} */ text) => (text ? html`<${Inline} text=${String(text)} />` : null);
  const items = [
    ['Sounds', said(data.sounds)], ['Question', said(data.question)], ['Evidence', said(data.evidence)], ['Emotion', said(data.emotion)],
    ['Genres', several(data.genres)], ['Instruments', several(data.instruments)], ['Vocals', said(data.vocals)], ['Mood', said(data.mood)], ['Tempo', data.tempo_bpm ? `${data.tempo_bpm} beats a minute` : null],
    ['Speakers', data.speakers?.length ? html`<${Inline} text=${data.speakers.map((/** @type {any} */ one) => `${one.speaker}${one.emotion ? ` (${one.emotion})` : ''}`).join(', ')} />` : null],
  ];
  if (items.every(([, value]) => !value) && !data.voices?.length) return null;
  return html`<${Part} title="Sound"><${Facts} items=${items} long />
    ${data.voices?.length > 0 && html`<ul class="lines">${data.voices.slice(0, AT_ONCE).map((/** @type {any} */ voice, /** @type {number} */ index) => html`<li key=${index}><${Inline} text=${voice.speaker} />: <${Inline} text=${voice.emotion} /> ${voice.intensity === null || voice.intensity === undefined ? '' : percent(voice.intensity)}</li>`)}</ul>`}<//>`;
}

/** @param {{text: string, data: any}} props */
function Code({ text, data }) {
  const state = data.parsed === true ? 'Parses.' : data.parsed === false ? html`Does not parse: <${Inline} text=${data.error ?? ''} />` : '';
  return html`<${Part} title="About the code">
    <${Facts} items=${[['Language', data.programming_language && html`<${Inline} text=${data.programming_language} />`], ['Lines', counted(text.split('\n').length, 'line')], ['Syntax', state]]} />
    ${data.summary && html`<p><${Inline} text=${data.summary} /></p>`}
    ${data.doubts?.length > 0 && html`<h3>Could be read otherwise</h3><${Lines} lines=${data.doubts} />`}<//>`;
}

/** @param {{text: string, language: string}} props */
export function Highlighted({ text, language }) {
  const [tree, setTree] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let gone = false;
    setTree(null);
    if (text.length <= MOST_HIGHLIGHTED) import('../highlighting.js').then(({ highlighted }) => !gone && setTree(highlighted(text, language)), () => {});
    return () => { gone = true; };
  }, [text, language]);
  return html`<pre class="code" tabindex="0" dir="ltr" aria-label="Code"><code>${tree ? tree.map(Token) : html`<${Inline} text=${text} most=${MOST_HIGHLIGHTED} />`}</code></pre>`;
}

/** @param {any} node of a syntax tree (hast) @param {number} index */
function Token(node, index) {
  if (node.type === 'text') return html`<${Inline} key=${index} text=${node.value} most=${MOST_HIGHLIGHTED} />`;
  return html`<span key=${index} class=${(node.properties?.className ?? []).join(' ')}>${node.children.map(Token)}</span>`;
}
