/** Single-key shortcuts. They can be turned off (WCAG 2.2, 2.1.4), and never fire while something is being written. */
import { useEffect, useRef } from 'preact/hooks';

const SETTING = 'captions-keys';

/** @returns {boolean} */
export const keysOn = () => localStorage.getItem(SETTING) !== 'off';

/** @param {boolean} on */
export const setKeysOn = (on) => localStorage.setItem(SETTING, on ? 'on' : 'off');

/** @param {KeyboardEvent} event @returns {boolean} whether the key belongs to what has the focus */
function occupied(event) {
  const at = /** @type {HTMLElement | null} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return true;
  if (document.querySelector('dialog[open]')) return true;
  return Boolean(at?.closest?.('input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]'));
}

/**
 * @param {Record<string, (event: KeyboardEvent) => void>} keys by `KeyboardEvent.key`
 */
export function useKeys(keys) {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    /** @param {KeyboardEvent} event */
    const pressed = (event) => {
      if (!keysOn() || occupied(event)) return;
      const act = latest.current[event.key];
      if (!act) return;
      event.preventDefault();
      act(event);
    };
    document.addEventListener('keydown', pressed);
    return () => document.removeEventListener('keydown', pressed);
  }, []);
}
