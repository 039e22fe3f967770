/** What one text has that another has not, word by word. */
import { useMemo } from 'preact/hooks';
import { wordDiff } from '../diff.js';
import { html } from '../html.js';
import { known, Inline } from './words.js';

/** @param {{before: string, after: string, lang?: string | null, label: string}} props */
export function Difference({ before, after, lang, label }) {
  const changes = useMemo(() => wordDiff(before, after), [before, after]);
  if (changes.every((change) => change.kind === 'same')) return html`<p class="muted">${label}: no difference.</p>`;
  return html`<p class="difference" dir="auto" lang=${known(lang)} aria-label=${label} role="group">${changes.map((change, index) =>
    change.kind === 'added' ? html`<ins key=${index}><${Inline} text=${change.text} most=${40_000} /></ins>`
    : change.kind === 'removed' ? html`<del key=${index}><${Inline} text=${change.text} most=${40_000} /></del>`
    : html`<span key=${index}><${Inline} text=${change.text} most=${40_000} /></span>`)}</p>`;
}
