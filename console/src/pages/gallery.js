/** Everything that was uploaded, newest first; captions appear as they end. */
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { useAssets } from '../assets.js';
import { ago, counted, words } from '../format.js';
import { html } from '../html.js';
import { useKeys } from '../keys.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { useGet } from '../loading.js';
import { Icon } from '../views/icons.js';
import { Choice, Confidence, Empty, Failure, Loading, Source, State, Thumbnail } from '../views/pieces.js';
import { QuickLook } from '../views/quick-look.js';
import { Uploader } from '../views/uploader.js';
import { Inline } from '../views/words.js';

/** @typedef {import('../types').AssetSummary} AssetSummary */

const STATES = ['captioned', 'received', 'queued', 'waiting', 'failed', 'blocked', 'rejected', 'deleted'];
const KINDS = ['image', 'animation', 'document', 'audio', 'video'];
export const CATEGORIES = ['photo', 'product', 'busy', 'document', 'chart', 'screenshot', 'code', 'drawing', 'little'];
const TASKS = ['caption', 'alt_text', 'objects', 'ocr', 'chart', 'code', 'transcribe', 'audio_qa', 'emotion', 'music', 'video'];
/** What a link from another page asks for; no choice of the filters. */
const ABOUT = ['cell', 'copy_of'];
const FILTERS = ['q', 'state', 'kind', 'category', 'task', 'model', 'reviewed', 'max_confidence', 'prefix', ...ABOUT];
const SEARCH_AFTER_MS = 250;

/** @param {string[]} names @returns {[string, string][]} */
export const options = (names) => [['', 'any'], .../** @type {[string, string][]} */ (names.map((name) => [name, words(name)]))];

/** @param {{query: URLSearchParams}} props */
export function Gallery({ query }) {
  const filters = useMemo(() => {
    /** @type {Record<string, string>} */
    const found = {};
    for (const name of FILTERS) if (query.get(name)) found[name] = /** @type {string} */ (query.get(name));
    return found;
  }, [query.toString()]);
  const [announced, announce] = useState('');
  const arrived = useCallback((/** @type {AssetSummary[]} */ fresh) =>
    announce(`${counted(fresh.length, 'upload')} ended: ${fresh.slice(0, 3).map((item) => plain(item.key, 60)).join(', ')}`), []);
  const { items, cursor, error, loaded, more, refresh } = useAssets(filters, arrived);
  const [looking, setLooking] = useState(/** @type {AssetSummary | null} */ (null));
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));
  const search = useRef(/** @type {HTMLInputElement | null} */ (null));
  useKeys({
    '/': () => search.current?.focus(),
    u: () => chooser.current?.click(),
  });
  /** @param {Record<string, string>} change */
  const filter = (change) => location.replace(link('', '', { ...filters, ...change }));
  const narrowed = Object.keys(filters).length > 0;
  return html`
    <div class="page-head"><h1 tabindex="-1">Gallery</h1>
      <button class="primary" onClick=${() => chooser.current?.click()}><${Icon} name="upload" />Upload</button></div>
    <${Filters} filters=${filters} filter=${filter} search=${search} />
    <${About} filters=${filters} filter=${filter} />
    <${Uploader} chooser=${chooser} sent=${refresh} />
    <p class="unseen" role="status">${announced}</p>
    <${Failure} error=${error} again=${more} />
    ${!loaded && html`<${Loading} what="Loading uploads" />`}
    ${loaded && !error && items.length === 0 && cursor && html`<${Loading} what="Looking further back" />`}
    ${loaded && !error && items.length === 0 && !cursor && (narrowed
      ? html`<${Empty} title="Nothing matches">No upload is like that. <a href=${link('')}>Show all</a>.<//>`
      : html`<${Empty} title="Nothing has been uploaded yet">Drop pictures, recordings or videos anywhere on this page. Their captions appear here as they end.<//>`)}
    <${Grid} items=${items} look=${setLooking} />
    ${cursor && html`<${More} key=${cursor} more=${more} />`}
    ${looking && html`<${QuickLook} id=${looking.id} name=${looking.key} onClose=${() => setLooking(null)} />`}`;
}

/** @param {{filters: Record<string, string>, filter: (change: Record<string, string>) => void, search: any}} props */
function Filters({ filters, filter, search }) {
  const models = useGet('v1/models').value?.models ?? [];
  const [text, setText] = useState(filters.q ?? '');
  const [open, setOpen] = useState(false);
  const typed = useRef(0);
  useEffect(() => setText(filters.q ?? ''), [filters.q]);
  useEffect(() => () => clearTimeout(typed.current), []);
  /** @param {string} value */
  const type = (value) => {
    setText(value);
    clearTimeout(typed.current);
    typed.current = setTimeout(() => filter({ q: value.trim() }), SEARCH_AFTER_MS);
  };
  const used = Object.keys(filters).filter((name) => name !== 'q' && !ABOUT.includes(name)).length;
  useEffect(() => { if (used) setOpen(true); }, [used > 0]);
  return html`<form class="filters" role="search" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
    <div class="search"><${Icon} name="search" />
      <input ref=${search} type="search" aria-label="Search captions, tags and names" placeholder="Search captions, tags and names" value=${text} onInput=${(/** @type {any} */ event) => type(event.target.value)} />
      <kbd aria-hidden="true">/</kbd></div>
    <button type="button" aria-expanded=${open} aria-controls="filters" onClick=${() => setOpen(!open)}>Filters${used ? html` <span class="badge">${used}</span>` : ''}</button>
    ${open && html`<div id="filters" class="choices">
      <${Choice} label="State" options=${options(STATES)} value=${filters.state ?? ''} onChange=${(/** @type {string} */ state) => filter({ state })} />
      <${Choice} label="Kind" options=${options(KINDS)} value=${filters.kind ?? ''} onChange=${(/** @type {string} */ kind) => filter({ kind })} />
      <${Choice} label="Category" options=${options(extended(CATEGORIES, filters.category))} value=${filters.category ?? ''} onChange=${(/** @type {string} */ category) => filter({ category })} />
      <${Choice} label="Task" options=${options(TASKS)} value=${filters.task ?? ''} onChange=${(/** @type {string} */ task) => filter({ task })} />
      <${Choice} label="Model" options=${options(extended(models.map((/** @type {any} */ model) => model.name), filters.model))} value=${filters.model ?? ''} onChange=${(/** @type {string} */ model) => filter({ model })} />
      <${Choice} label="Reviewed" options=${[['', 'any'], ['true', 'reviewed'], ['false', 'not yet'], ...(['', 'true', 'false'].includes(filters.reviewed ?? '') ? [] : [[filters.reviewed, filters.reviewed]])]} value=${filters.reviewed ?? ''} onChange=${(/** @type {string} */ reviewed) => filter({ reviewed })} />
      <${Choice} label="Confidence" options=${[['', 'any'], ['0.5', 'at most 50 %'], ['0.8', 'at most 80 %']]} value=${filters.max_confidence ?? ''} onChange=${(/** @type {string} */ most) => filter({ max_confidence: most })} />
      ${used > 0 && html`<a class="quiet" href=${link('', '', { q: filters.q })}>Clear filters</a>`}
    </div>`}
  </form>`;
}

/** Which uploads are shown where a link from another page chose them, and the way back to all. @param {{filters: Record<string, string>, filter: (change: Record<string, string>) => void}} props */
function About({ filters, filter }) {
  const { cell, copy_of: origin } = filters;
  const cells = useGet(cell ? 'v1/quality?days=90' : null).value?.cells ?? [];
  if (!cell && !origin) return null;
  const behind = cells.find((/** @type {import('../types').QualityCell} */ one) => one.id === cell);
  const asked = behind ? [words(behind.category), behind.model, words(behind.task ?? '')].filter(Boolean).map((part) => plain(part, 60)).join(', ') : 'one row of Quality';
  return html`<p class="chosen" role="status">${cell ? html`Captions that people judged: ${asked}; the edited ones first.` : html`Uploads that took the caption of <a href=${link('asset', origin)}>one upload</a>.`}
    <button class="quiet" onClick=${() => filter({ cell: '', copy_of: '' })}>Show all uploads</button></p>`;
}

/** @param {string[]} names @param {string | undefined} chosen @returns {string[]} */
const extended = (names, chosen) => (!chosen || names.includes(chosen) ? names : [...names, chosen]);

/** Where the focus was, so that coming back from an upload ends on its card. */
let lastOpened = '';

/** @param {{items: AssetSummary[], look: (item: AssetSummary) => void}} props */
export function Grid({ items, look }) {
  const grid = useRef(/** @type {HTMLUListElement | null} */ (null));
  const [at, setAt] = useState(lastOpened);
  useEffect(() => {
    if (lastOpened && items.length) {
      /** @type {HTMLElement | null | undefined} */ (grid.current?.querySelector(`a[data-id="${CSS.escape(lastOpened)}"]`))?.focus();
      lastOpened = '';
    }
  }, [items.length > 0]);
  const current = items.some((item) => item.id === at) ? at : items[0]?.id;
  /** @param {KeyboardEvent} event */
  const move = (event) => {
    const cards = /** @type {HTMLElement[]} */ ([...(grid.current?.querySelectorAll('a.card') ?? [])]);
    const index = cards.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    if (index < 0) return;
    const columns = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -index, End: cards.length - 1 - index }[event.key];
    if (event.key === ' ') {
      event.preventDefault();
      look(items[index]);
    }
    if (step === undefined) return;
    event.preventDefault();
    cards[Math.min(cards.length - 1, Math.max(0, index + step))].focus();
  };
  return html`<ul class="grid" ref=${grid} onKeyDown=${move}>${items.map((item) => html`<${Card} key=${item.id} item=${item} reached=${item.id === current} focused=${() => setAt(item.id)} look=${look} />`)}</ul>`;
}

const PENDING = ['received', 'queued', 'waiting'];

/** @param {{item: AssetSummary, reached: boolean, focused: () => void, look: (item: AssetSummary) => void}} props */
function Card({ item, reached, focused, look }) {
  const pending = PENDING.includes(item.state);
  const plays = item.kind === 'audio' || item.kind === 'video';
  return html`<li class="cell ${pending ? 'pending' : ''}">
    <a class="card" href=${link('asset', item.id)} data-id=${item.id} tabindex=${reached ? 0 : -1} onFocus=${focused} onClick=${() => { lastOpened = item.id; }}>
      <span class="frame"><${Thumbnail} asset=${item} />${plays && !item.thumbnail && html`<span class="wave" aria-hidden="true"></span>`}</span>
      <span class="said">${item.text ? html`<${Inline} text=${item.text} lang=${item.language} most=${220} />`
        : item.reason ? html`<span class="why">${item.reason.message}</span>`
        : item.alt_text === '' && item.state === 'captioned' ? html`<span class="why">Decorative: no alt text</span>`
        : pending ? html`<span class="why">${item.state === 'waiting' ? 'Waits for the caption of a copy' : 'On its way'} …</span>` : html`<span class="why">No text</span>`}</span>
      <span class="name"><${Inline} text=${item.key} most=${160} /></span>
      <span class="about">${item.state === 'captioned' ? html`<${Source} asset=${item} /><${Confidence} value=${item.confidence} />` : html`<${State} state=${item.state} />`}
        <time datetime=${item.received_at}>${ago(item.completed_at ?? item.received_at).replace(' ago', '')}</time></span>
    </a>
    ${item.opened_by && html`<span class="opened"><${Icon} name="person" /><span class="unseen">open at </span><bdi>${plain(item.opened_by.by, 40)}</bdi></span>`}
    ${plays && html`<button class="play" tabindex=${reached ? 0 : -1} aria-label="Play ${plain(item.key, 60)}" onClick=${() => look(item)}><${Icon} name="play" /></button>`}
  </li>`;
}

/** Reads on by itself as its place comes into view; the button is for the keyboard. @param {{more: () => Promise<void>}} props */
export function More({ more }) {
  const place = useRef(/** @type {HTMLDivElement | null} */ (null));
  useEffect(() => {
    const watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { rootMargin: '600px' });
    if (place.current) watch.observe(place.current);
    return () => watch.disconnect();
  }, [more]);
  return html`<div class="more" ref=${place}><button onClick=${more}>Show more</button></div>`;
}
