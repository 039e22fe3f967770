/** Caption after caption to be judged, without a mouse. */
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ApiError, asset as readAsset, assetPath, get, post, query, say } from '../api.js';
import { draftOf } from '../drafts.js';
import { count, counted, percent, words } from '../format.js';
import { html } from '../html.js';
import { useKeys } from '../keys.js';
import { useInterval } from '../loading.js';
import { notices } from '../notices.js';
import { link } from '../route.js';
import { session } from '../session.js';
import { plain } from '../text.js';
import { useVerdicts } from '../verdicts.js';
import { Difference } from '../views/difference.js';
import { Editor } from '../views/editor.js';
import { Icon } from '../views/icons.js';
import { Media } from '../views/media.js';
import { Offer } from '../views/offer.js';
import { Choice, Confidence, Empty, Failure, Loading, Segmented, Source, Thumbnail } from '../views/pieces.js';
import { Inline, Words } from '../views/words.js';

/** @typedef {import('../types').Asset} Asset */
/** @typedef {import('../types').AssetSummary} AssetSummary */

const PER_PAGE = 50;
/** Items left in the queue before the next page is read. */
const AHEAD = 15;
/** As the API forgets who has something open after a while, it is said again while it is. */
const OPEN_AGAIN_MS = 20_000;
const SAMPLE = 500;
const SHOWN_BEFORE = 3;
const SHOWN_AFTER = 8;
const CATEGORIES = ['photo', 'product', 'busy', 'document', 'chart', 'screenshot', 'code', 'drawing', 'little', 'audio', 'video', 'other'];

/** @param {{query: URLSearchParams}} props */
export function Review({ query: search }) {
  const order = search.get('order') ?? 'confidence';
  const category = search.get('category') ?? '';
  const seed = search.get('seed') ?? '';
  const filters = useMemo(() => (order === 'random' ? { order, n: SAMPLE, seed } : order === 'category' ? { order, category, n: PER_PAGE } : { order, n: PER_PAGE }), [order, category, seed]);
  const queue = useQueue(filters);
  /** @param {string} next */
  const choose = (next) => location.replace(link('review', '', next === 'random' ? { order: next, seed: Math.floor(Math.random() * 1e9) } : { order: next, category: next === 'category' ? CATEGORIES[0] : '' }));
  return html`
    <div class="page-head"><h1 tabindex="-1">Review</h1>
      <${Segmented} name="order" label="Order of the queue" value=${order} onChange=${choose} options=${[['confidence', 'Least sure first'], ['category', 'By category'], ['random', `Sample of ${SAMPLE}`]]} />
      ${order === 'category' && html`<${Choice} label="Category" value=${category} options=${CATEGORIES.map((name) => [name, name])} onChange=${(/** @type {string} */ name) => location.replace(link('review', '', { order, category: name }))} />`}
    </div>
    ${order === 'random' && queue.loaded && html`<${Sample} queue=${queue} />`}
    <${Failure} error=${queue.error} again=${queue.more} />
    ${!queue.loaded && html`<${Loading} what="Loading the queue" />`}
    ${queue.loaded && !queue.error && !queue.items.length && html`<${Empty} title="Nothing to review">No caption waits for a person. <a href=${link('')}>Go to the gallery</a>.<//>`}
    ${queue.items.length > 0 && html`<${Desk} queue=${queue} />`}`;
}

/** @param {Record<string, unknown>} filters of GET /v1/review */
function useQueue(filters) {
  const [state, setState] = useState(/** @type {{items: AssetSummary[], cursor: string | null, population: number | null, margin: number | null, error: Error | null, loaded: boolean}} */ ({ items: [], cursor: null, population: null, margin: null, error: null, loaded: false }));
  const busy = useRef(false);
  const key = query(filters);
  /** @param {string | null} cursor @param {AbortSignal} [signal] */
  const read = async (cursor, signal) => {
    busy.current = true;
    try {
      const page = await get(`v1/review${query({ ...filters, cursor })}`, { signal });
      setState((before) => {
        const known = new Set(cursor ? before.items.map((item) => item.id) : []);
        const items = [...(cursor ? before.items : []), ...page.items.filter((/** @type {AssetSummary} */ item) => !known.has(item.id))];
        return { items, cursor: page.cursor ?? null, population: page.population ?? before.population, margin: page.margin_of_error ?? before.margin, error: null, loaded: true };
      });
    } catch (error) {
      if (!signal?.aborted) setState((before) => ({ ...before, error: /** @type {Error} */ (error), loaded: true }));
    } finally {
      busy.current = false;
    }
  };
  useEffect(() => {
    const stop = new AbortController();
    setState({ items: [], cursor: null, population: null, margin: null, error: null, loaded: false });
    read(null, stop.signal);
    return () => stop.abort();
  }, [key]);
  return { ...state, more: () => { if (!busy.current && (state.cursor || state.error)) read(state.cursor); } };
}

/** @param {{queue: ReturnType<typeof useQueue>}} props */
function Sample({ queue }) {
  return html`<p class="note">A random sample of ${queue.population === null ? counted(queue.items.length, 'caption') : html`${count(queue.items.length)} out of ${counted(queue.population, 'caption')}`}${queue.margin === null ? '' : html`: the share that people would edit is known to within <b>± ${percent(queue.margin, 1)}</b> (95 %) once all of it is judged`}.</p>`;
}

/** @param {{queue: ReturnType<typeof useQueue>}} props */
function Desk({ queue }) {
  const { items } = queue;
  // Where somebody wrote before signing in again, if that is here.
  const [at, setAt] = useState(() => Math.max(0, items.findIndex((item) => draftOf(item.id, session().sub))));
  const [records, setRecords] = useState(/** @type {Map<string, Asset>} */ (new Map()));
  const [judged, setJudged] = useState(/** @type {Map<string, 'accepted' | 'edited'>} */ (new Map()));
  const [differs, setDiffers] = useState(true);
  const [failed, setFailed] = useState(/** @type {Error | null} */ (null));
  const item = items[Math.min(at, items.length - 1)];
  const asset = records.get(item.id);
  const put = useCallback((/** @type {Asset} */ found) => {
    setRecords((before) => new Map(before).set(found.id, found));
    setJudged((before) => {
      const after = new Map(before);
      if (found.reviewed === 'accepted' || found.reviewed === 'edited') after.set(found.id, found.reviewed);
      else after.delete(found.id);
      return after;
    });
  }, []);
  // A sample is of all captions: some were judged before.
  useEffect(() => setJudged((before) => {
    const after = new Map(before);
    for (const one of items) if ((one.reviewed === 'accepted' || one.reviewed === 'edited') && !after.has(one.id)) after.set(one.id, one.reviewed);
    return after.size === before.size ? before : after;
  }), [items]);
  const verdicts = useVerdicts(asset, put);
  const read = useCallback((/** @type {string} */ id) => readAsset(id).then((found) => {
    setRecords((before) => new Map(before).set(id, found));
    setFailed(null);
  }, setFailed), []);

  // The one that is looked at, and the next two, so that the next key finds it there.
  useEffect(() => {
    for (const near of items.slice(at, at + 3)) if (!records.has(near.id)) read(near.id);
    if (items.length - at < AHEAD) queue.more();
  }, [at, items]);

  const [holder, setHolder] = useState(/** @type {{id: string, by: string | null}} */ ({ id: '', by: null }));
  const hold = useCallback(() => {
    post(assetPath(item.id, '/open')).then((opened) => setHolder({ id: item.id, by: opened.yours ? null : opened.by }), () => {});
  }, [item.id]);
  useEffect(() => {
    hold();
    return () => { post(assetPath(item.id, '/close')).catch(() => {}); };
  }, [hold]);
  useInterval(hold, OPEN_AGAIN_MS);

  /** @param {number} step */
  const go = (step) => {
    verdicts.away();
    setAt((before) => Math.min(items.length - 1, Math.max(0, before + step)));
  };

  /** Verdicts that the API has not answered yet, by id. */
  const underWay = useRef(/** @type {Map<string, Promise<Asset | null>>} */ (new Map()));
  /** The next is shown at once; should the verdict fail, it is said, and the caption counts as not judged. */
  const accept = () => {
    if (!asset || underWay.current.has(asset.id)) return;
    const judging = asset;
    setJudged((before) => new Map(before).set(judging.id, 'accepted'));
    setAt((before) => Math.min(items.length - 1, before + 1));
    underWay.current.set(judging.id, say(judging.id, 'accept', judging.etag).then((found) => { put(found); return found; }, (error) => {
      setJudged((before) => { const after = new Map(before); after.delete(judging.id); return after; });
      read(judging.id);
      notices.say(`${plain(judging.key, 60)} was not accepted: ${error instanceof ApiError && error.status === 412 ? 'somebody changed it meanwhile' : error.message}`, 'bad');
      return null;
    }).finally(() => underWay.current.delete(judging.id)));
  };

  /** Takes back the verdict on what is shown, or else on what was judged just before, once the API has it. */
  const undo = async () => {
    const last = asset && judged.has(asset.id) ? asset.id : [...judged.keys()].at(-1);
    const index = items.findIndex((other) => other.id === last);
    if (!last || index < 0) return;
    setAt(index);
    const said = underWay.current.get(last);
    const record = said ? await said : records.get(last);
    if (record) verdicts.undoOf(record);
  };
  useKeys({
    j: () => go(1), k: () => go(-1), ArrowDown: () => go(1), ArrowUp: () => go(-1), a: accept, e: verdicts.begin, r: verdicts.recaption, u: undo, d: () => setDiffers(!differs),
  });
  const edited = [...judged.values()].filter((one) => one === 'edited').length;
  const other = holder.id === item.id ? holder.by : (asset?.opened_by ?? item.opened_by)?.by;
  return html`<div class="desk">
    <${Strip} items=${items} at=${at} judged=${judged} go=${(/** @type {number} */ index) => go(index - at)} />
    <div class="judged" role="status"><b>${count(judged.size)}</b> judged${judged.size > 0 ? html`, ${count(edited)} edited (${percent(edited / judged.size)})` : ''}; ${at + 1} of ${count(items.length)}${queue.cursor ? '+' : ''}</div>
    <article class="judging" aria-label="Caption to judge">
      <div class="shown">${asset ? html`<${Media} key=${item.id} asset=${asset} renew=${() => read(item.id)} />` : html`<figure class="picture"><${Thumbnail} asset=${item} /></figure>`}</div>
      <div class="told">
        <h2 class="name"><a href=${link('asset', item.id)}><${Inline} text=${item.key} most=${300} /></a></h2>
        ${other && html`<p class="taken"><${Icon} name="person" /><span><bdi>${plain(other, 60)}</bdi> has this open</span></p>`}
        <${Failure} error=${failed} again=${() => read(item.id)} />
        ${verdicts.editing && asset ? html`<${Editor} key=${item.id} asset=${asset} verdicts=${verdicts} />`
        : html`<div aria-live="polite"><${Words} key=${item.id} text=${asset?.result?.text ?? item.text ?? ''} lang=${item.language} class="big" /></div>
          <p class="about"><${Confidence} value=${item.confidence} /><${Source} asset=${asset ?? item} />${item.category && html`<span>${words(item.category)}</span>`}${item.task && item.task !== 'caption' && html`<span>${words(item.task)}</span>`}${judged.has(item.id) && html`<span class="verdict ${judged.get(item.id)}">${judged.get(item.id)}</span>`}</p>
          ${differs && asset && asset.model_text !== null && asset.reviewed === 'edited' && html`<h3>Against the model's words</h3><${Difference} before=${asset.model_text} after=${asset.result?.text ?? ''} lang=${asset.language} label="From the model's words to the person's" />`}`}
        <${Offer} verdicts=${verdicts} />
        ${!verdicts.editing && html`<p class="actions">
          <button class="primary" disabled=${!asset} onClick=${accept}><${Icon} name="check" />Accept <kbd>a</kbd></button>
          <button disabled=${!asset} onClick=${verdicts.begin}><${Icon} name="edit" />Edit <kbd>e</kbd></button>
          <button disabled=${!asset || verdicts.busy} onClick=${verdicts.recaption}><${Icon} name="again" />Recaption <kbd>r</kbd></button>
          <button disabled=${!judged.size} onClick=${undo}><${Icon} name="undo" />Undo <kbd>u</kbd></button></p>
        <p class="actions"><button onClick=${() => go(-1)} disabled=${at === 0}><${Icon} name="back" />Previous <kbd>k</kbd></button><button onClick=${() => go(1)} disabled=${at >= items.length - 1}>Next <kbd>j</kbd><${Icon} name="next" /></button></p>`}
      </div>
    </article></div>`;
}

/** @param {{items: AssetSummary[], at: number, judged: Map<string, string>, go: (index: number) => void}} props */
function Strip({ items, at, judged, go }) {
  const from = Math.max(0, at - SHOWN_BEFORE);
  return html`<ol class="strip" aria-label="Queue">${items.slice(from, at + SHOWN_AFTER + 1).map((item, index) => html`<li key=${item.id}>
    <button tabindex="-1" aria-current=${from + index === at ? 'true' : undefined} aria-label="${plain(item.key, 60)}${judged.has(item.id) ? `, ${judged.get(item.id)}` : ''}${item.opened_by ? `, open at ${plain(item.opened_by.by, 40)}` : ''}" onClick=${() => go(from + index)}>
      <${Thumbnail} asset=${item} />${judged.has(item.id) && html`<span class="mark ${judged.get(item.id)}"><${Icon} name=${judged.get(item.id) === 'edited' ? 'edit' : 'check'} /></span>`}${item.opened_by && !judged.has(item.id) && html`<span class="mark other"><${Icon} name="person" /></span>`}</button></li>`)}</ol>`;
}
