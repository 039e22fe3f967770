/** Where in the console one is: `#/asset/ID?name=value`. The server sees one page only, whatever prefix it is under. */
import { useEffect, useState } from 'preact/hooks';

/** @typedef {{page: string, argument: string, query: URLSearchParams}} Route */

/** @param {string} hash @returns {Route | null} null for a hash that is no route */
export function parsed(hash) {
  if (hash === '' || hash === '#') return { page: '', argument: '', query: new URLSearchParams() };
  if (!hash.startsWith('#/')) return null;
  const [path, search = ''] = hash.slice(2).split('?', 2);
  const [page, ...rest] = path.split('/');
  let argument = rest.join('/');
  try {
    argument = decodeURIComponent(argument);
  } catch {
    argument = '';
  }
  return { page, argument, query: new URLSearchParams(search) };
}

/** @param {string} page @param {string} [argument] @param {Record<string, unknown>} [query] @returns {string} */
export function link(page, argument = '', query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return `#/${page}${argument ? `/${encodeURIComponent(argument)}` : ''}${text ? `?${text}` : ''}`;
}

/** @returns {Route} */
export function useRoute() {
  const [route, setRoute] = useState(() => parsed(location.hash) ?? /** @type {Route} */ (parsed('')));
  useEffect(() => {
    const changed = () => {
      const next = parsed(location.hash);
      if (next) setRoute(next);
    };
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return route;
}
