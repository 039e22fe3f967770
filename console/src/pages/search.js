/** Captions by their words, whatever day they are from, out of the index that the stack keeps (docs/search.md). */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { get, query as search } from '../api.js';
import { counted } from '../format.js';
import { html } from '../html.js';
import { useKeys } from '../keys.js';
import { link } from '../route.js';
import { hasSearch } from '../session.js';
import { Icon } from '../views/icons.js';
import { Empty, Failure, Loading } from '../views/pieces.js';
import { QuickLook } from '../views/quick-look.js';
import { CATEGORIES, Grid, More, options } from './gallery.js';

/** @typedef {import('../types').AssetSummary} AssetSummary */
/** @typedef {{path: string, items: AssetSummary[], cursor: string | null, relaxed: boolean, error: Error | null}} Found */

const ASKED = ['q', 'prefix', 'category', 'tag', 'since', 'until'];
const PER_PAGE = 48;

/** The search that was shown last, so that coming back to it from an upload is immediate. @type {Found | null} */
let remembered = null;

/** @param {{query: URLSearchParams}} props */
export function Search({ query }) {
  const asked = Object.fromEntries(ASKED.map((name) => [name, query.get(name) ?? '']));
  const wanted = hasSearch() && Object.values(asked).some(Boolean);
  const path = wanted ? `v1/search${search({ limit: PER_PAGE, ...asked })}` : '';
  const [kept, setFound] = useState(remembered);
  const found = kept?.path === path ? kept : null;
  const [looking, setLooking] = useState(/** @type {AssetSummary | null} */ (null));
  useEffect(() => {
    if (found && !found.error) remembered = found;
  }, [found]);
  useEffect(() => {
    if (!path || found) return undefined;
    const stop = new AbortController();
    get(path, { signal: stop.signal }).then(
      (page) => setFound({ ...page, path, error: null }),
      (error) => !stop.signal.aborted && setFound({ path, items: [], cursor: null, relaxed: false, error }),
    );
    return () => stop.abort();
  }, [path, found === null]);
  const more = useCallback(async () => {
    if (!found?.cursor) return;
    const next = (/** @type {(before: Found) => Found} */ change) => setFound((before) => (before?.path === path ? change(before) : before));
    await get(`v1/search${search({ limit: PER_PAGE, ...asked, cursor: found.cursor })}`).then(
      (page) => next((before) => (before.cursor === found.cursor ? { ...before, items: [...before.items, ...page.items], cursor: page.cursor } : before)),
      (error) => next((before) => ({ ...before, error })),
    );
  }, [path, found?.cursor]);
  const heading = html`<div class="page-head"><h1 tabindex="-1">Search</h1></div>`;
  if (!hasSearch()) {
    return html`${heading}<${Empty} title="This stack keeps no index of captions">The parameter <code>Search=words</code> makes one: <code>captions up --parameter Search=words</code> on this machine, once <code>captions down</code> has ended the stack, or <code>captions deploy --parameter Search=words</code>. Without it the <a href=${link('', '', { q: asked.q })}>gallery</a> looks through the newest uploads.<//>`;
  }
  return html`
    ${heading}
    <${Box} key=${query.toString()} asked=${asked} />
    ${!wanted && html`<${Empty} title="What is to be found?">Words are found in any language, with or without accents; words in quotation marks stand just so, <code>-word</code> leaves out, <code>beach*</code> is a beginning.<//>`}
    ${found && html`<${Failure} error=${found.error} again=${() => setFound(null)} />`}
    ${wanted && !found && html`<${Loading} what="Searching" />`}
    <p class=${found?.relaxed ? 'note' : 'unseen'} role="status">${found && !found.error && (found.relaxed ? 'No caption has all of these words; these have some.' : `${counted(found.items.length, 'caption')}${found.cursor ? ', and there are more' : ''}`)}</p>
    ${found && !found.error && !found.items.length && !found.cursor && html`<${Empty} title="Nothing is like that">No caption has these words.<//>`}
    <${Grid} items=${found?.items ?? []} look=${setLooking} />
    ${found?.cursor && html`<${More} key=${found.cursor} more=${more} />`}
    ${looking && html`<${QuickLook} id=${looking.id} name=${looking.key} onClose=${() => setLooking(null)} />`}`;
}

/** @param {{asked: Record<string, string>}} props */
function Box({ asked }) {
  const words = useRef(/** @type {HTMLInputElement | null} */ (null));
  useKeys({ '/': () => words.current?.focus() });
  /** @param {SubmitEvent} event */
  const ask = (event) => {
    event.preventDefault();
    const given = new FormData(/** @type {HTMLFormElement} */ (event.currentTarget));
    location.hash = link('search', '', Object.fromEntries(ASKED.map((name) => [name, String(given.get(name) ?? '').trim()])));
  };
  /** @param {string} name @param {string} label @param {string} type */
  const field = (name, label, type) => html`<label class="choice"><span>${label}</span><input type=${type} name=${name} value=${asked[name]} /></label>`;
  return html`<form class="filters" role="search" onSubmit=${ask}>
    <div class="search"><${Icon} name="search" />
      <input ref=${words} type="search" name="q" maxlength="500" aria-label="Words of captions" placeholder='dog "on a beach" -night' value=${asked.q} />
      <kbd aria-hidden="true">/</kbd></div>
    <button class="primary">Search</button>
    <div class="choices">
      ${field('prefix', 'Folder', 'text')}
      <label class="choice"><span>Category</span><select name="category">${options([...CATEGORIES, 'audio', 'video', 'other']).map(([id, text]) => html`<option key=${id} value=${id} selected=${id === asked.category}>${text}</option>`)}</select></label>
      ${field('tag', 'Tag', 'text')}${field('since', 'From', 'date')}${field('until', 'To', 'date')}
    </div>
  </form>`;
}
