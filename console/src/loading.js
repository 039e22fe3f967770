/** Reading from the API and keeping what was read fresh. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { get } from './api.js';

/**
 * What a GET answers: `value` (undefined until then), `error`, and `again` to ask once more.
 * @param {string | null} path null: nothing is asked
 * @param {{every?: number}} [options] milliseconds after which it is asked again while the page is looked at
 * @returns {{value: any, error: Error | null, again: () => void}}
 */
export function useGet(path, { every } = {}) {
  const [state, setState] = useState(/** @type {{path: string | null, value: any, error: Error | null}} */ ({ path: null, value: undefined, error: null }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return undefined;
    const stop = new AbortController();
    get(path, { signal: stop.signal }).then(
      (value) => !stop.signal.aborted && setState({ path, value, error: null }),
      (error) => !stop.signal.aborted && setState((before) => ({ path, value: before.path === path ? before.value : undefined, error })),
    );
    return () => stop.abort();
  }, [path, turn]);
  const again = useCallback(() => setTurn((before) => before + 1), []);
  useInterval(again, every ?? null);
  const current = state.path === path;
  return { value: current ? state.value : undefined, error: current ? state.error : null, again };
}

/**
 * Call `act` every so many milliseconds while the page is looked at, and at once when it is looked at again.
 * @param {() => void} act @param {number | null} milliseconds null: never
 */
export function useInterval(act, milliseconds) {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (milliseconds === null) return undefined;
    const tick = () => document.visibilityState === 'visible' && latest.current();
    const timer = setInterval(tick, milliseconds);
    document.addEventListener('visibilitychange', tick);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', tick);
    };
  }, [milliseconds]);
}
