/** A list of uploads that grows at its end as one reads on, and at its start as captions arrive. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { get, query } from './api.js';
import { useInterval } from './loading.js';

/** @typedef {import('./types').AssetSummary} AssetSummary */
/** @typedef {{items: AssetSummary[], cursor: string | null, live: string | null, error: Error | null, loaded: boolean}} List */

export const LIVE_MS = 2000;
const PER_PAGE = 48;

/** The list that was shown last, so that coming back to it is immediate. @type {{path: string, list: List} | null} */
let remembered = null;

/** @type {List} */
const NOTHING = { items: [], cursor: null, live: null, error: null, loaded: false };

/**
 * Newer states of uploads take their places; what is new goes in front.
 * @param {AssetSummary[]} items @param {AssetSummary[]} changed newest first @param {boolean} front whether new ones belong in front
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
  const fresh = [...newer.values()];
  if (!fresh.length && kept.every((item, index) => item === items[index])) return items;
  return front ? [...fresh, ...kept] : kept;
}

/**
 * @param {Record<string, string>} filters of GET /v1/assets
 * @param {(fresh: AssetSummary[]) => void} arrived called with what newly ended
 */
export function useAssets(filters, arrived) {
  const path = `v1/assets${query({ order: 'newest', limit: PER_PAGE, ...filters })}`;
  const [list, setList] = useState(() => (remembered?.path === path ? remembered.list : NOTHING));
  const latest = useRef(list);
  latest.current = list;
  const busy = useRef(false);
  useEffect(() => {
    remembered = list.loaded ? { path, list } : remembered;
  }, [list]);
  useEffect(() => {
    const stop = new AbortController();
    if (remembered?.path === path) setList(remembered.list);
    else {
      setList(NOTHING);
      get(path, { signal: stop.signal }).then(
        (page) => setList({ items: page.items, cursor: page.cursor ?? null, live: page.live ?? null, error: null, loaded: true }),
        (error) => !stop.signal.aborted && setList({ ...NOTHING, error, loaded: true }),
      );
    }
    return () => stop.abort();
  }, [path]);

  const more = useCallback(async () => {
    const { cursor } = latest.current;
    if (!cursor || busy.current) return;
    busy.current = true;
    try {
      const page = await get(`v1/assets${query({ order: 'newest', limit: PER_PAGE, ...filters, cursor })}`);
      setList((before) => {
        const known = new Set(before.items.map((item) => item.id));
        const added = page.items.filter((/** @type {AssetSummary} */ item) => !known.has(item.id));
        return { ...before, items: [...before.items, ...added], cursor: page.cursor ?? null, error: null };
      });
    } catch (error) {
      setList((before) => ({ ...before, error: /** @type {Error} */ (error) }));
    } finally {
      busy.current = false;
    }
  }, [path]);

  const refresh = useCallback(async () => {
    if (!latest.current.loaded || busy.current) return;
    busy.current = true;
    try {
      const { live } = latest.current;
      const page = await get(live ? `v1/assets${query({ order: 'newest', limit: PER_PAGE, ...filters, since: live })}` : path);
      if (remembered?.path !== path) return;
      const before = new Map(latest.current.items.map((item) => [item.id, item]));
      const ended = page.items.filter((/** @type {AssetSummary} */ item) => item.completed_at && before.get(item.id)?.completed_at !== item.completed_at);
      setList((now) => ({ ...now, items: merged(now.items, page.items, true), live: page.live ?? now.live, error: null }));
      if (ended.length) arrived(ended);
    } catch {
      // The next time may be luckier; what is shown stays.
    } finally {
      busy.current = false;
    }
  }, [path, arrived]);
  useInterval(refresh, LIVE_MS);
  return { ...list, more, refresh };
}
