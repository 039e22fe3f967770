/** A list of uploads that grows at its end as one reads on, and at its start as captions arrive. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { get, query } from './api.js';
import { useInterval } from './loading.js';

/** @typedef {import('./types').AssetSummary} AssetSummary */
/** `path` is what was asked: a cursor belongs to that. @typedef {{path: string, items: AssetSummary[], cursor: string | null, live: string | null, error: Error | null, loaded: boolean}} List */

export const LIVE_MS = 2000;
const PER_PAGE = 48;

/** @type {List} */
const NOTHING = { path: '', items: [], cursor: null, live: null, error: null, loaded: false };

/** The list that was shown last, so that coming back to it is immediate. */
let remembered = NOTHING;

/**
 * Newer states of uploads take their places; what is new goes in front.
 * @param {AssetSummary[]} items @param {AssetSummary[]} changed those that ended oldest first, as the API tells them @param {boolean} front whether new ones belong in front
 * @returns {AssetSummary[]}
 */
export function merged(items, changed, front) {
  if (!changed.length) return items;
  const newer = new Map(changed.map((item) => [item.id, item]));
  const kept = items.map((item) => {
    const other = newer.get(item.id);
    newer.delete(item.id);
    return other && (other.etag !== item.etag || other.updated_at !== item.updated_at || other.opened_by?.by !== item.opened_by?.by) ? other : item;
  });
  const fresh = [...newer.values()].reverse();
  if (!fresh.length && kept.every((item, index) => item === items[index])) return items;
  return front ? [...fresh, ...kept] : kept;
}

/**
 * @param {Record<string, string>} filters of GET /v1/assets
 * @param {(fresh: AssetSummary[]) => void} arrived called with what newly ended
 */
export function useAssets(filters, arrived) {
  const path = `v1/assets${query({ order: 'newest', limit: PER_PAGE, ...filters })}`;
  const [kept, setList] = useState(() => (remembered.path === path ? remembered : NOTHING));
  const list = kept.path === path ? kept : NOTHING;
  const latest = useRef(list);
  latest.current = list;
  const busy = useRef('');
  useEffect(() => {
    if (list.loaded) remembered = list;
  }, [list]);
  useEffect(() => {
    if (latest.current.loaded) return undefined;
    const stop = new AbortController();
    get(path, { signal: stop.signal }).then(
      (page) => setList({ path, items: page.items, cursor: page.cursor ?? null, live: page.live ?? null, error: null, loaded: true }),
      (error) => !stop.signal.aborted && setList({ ...NOTHING, path, error, loaded: true }),
    );
    return () => stop.abort();
  }, [path]);

  /** One look at a time; what another list answers is of no use. @param {string} asked @param {(page: any, before: List) => List} take */
  const look = async (asked, take) => {
    if (busy.current === path) return null;
    busy.current = path;
    try {
      const page = await get(asked);
      setList((before) => (before.path === path ? take(page, before) : before));
      return page;
    } finally {
      busy.current = '';
    }
  };

  const more = useCallback(async () => {
    const { cursor, path: asked } = latest.current;
    if (!cursor || asked !== path) return;
    await look(`v1/assets${query({ order: 'newest', limit: PER_PAGE, ...filters, cursor })}`, (page, before) => {
      const known = new Set(before.items.map((item) => item.id));
      const added = page.items.filter((/** @type {AssetSummary} */ item) => !known.has(item.id));
      return { ...before, items: [...before.items, ...added], cursor: page.cursor ?? null, error: null };
    }).catch((error) => setList((before) => ({ ...before, error })));
  }, [path]);

  const refresh = useCallback(async () => {
    const { live, loaded, items } = latest.current;
    if (!loaded) return;
    const before = new Map(items.map((item) => [item.id, item]));
    // The next time may be luckier; until then, what is shown stays.
    const page = await look(
      live ? `v1/assets${query({ order: 'newest', limit: PER_PAGE, ...filters, since: live })}` : path,
      (page, now) => ({ ...now, items: merged(now.items, page.items, true), live: page.live ?? now.live, error: null }),
    ).catch(() => null);
    const ended = (page?.items ?? []).filter((/** @type {AssetSummary} */ item) => item.completed_at && before.get(item.id)?.completed_at !== item.completed_at);
    if (ended.length && latest.current.path === path) arrived(ended);
  }, [path, arrived]);
  useInterval(refresh, LIVE_MS);
  return { ...list, more, refresh };
}
