/** Text that others wrote: isolated from what stands around it, its control characters named, never markup. */
import { useMemo, useState } from 'preact/hooks';
import { html } from '../html.js';
import { count } from '../format.js';
import { blocks, clipped, pieces } from '../text.js';

/** Characters shown at once; of more, a button shows as many again. */
const AT_ONCE = 40_000;

/** @param {{text: string}} props */
const Pieces = ({ text }) => html`${pieces(text).map((piece) =>
  piece.control ? html`<span class="control">${piece.text}</span>` : piece.text)}`;

/**
 * A few words in a line: a key, a name, a tag.
 * @param {{text: string | null | undefined, most?: number, lang?: string | null}} props
 */
export const Inline = ({ text, most = 1500, lang }) =>
  html`<bdi class="words" lang=${known(lang)}><${Pieces} text=${clipped(text ?? '', most)} /></bdi>`;

/**
 * Text of any length in blocks, which the browser lays out only where they are looked at.
 * @param {{text: string, lang?: string | null, class?: string}} props
 */
export function Words({ text, lang, class: name = '' }) {
  const [shown, setShown] = useState(AT_ONCE);
  const parts = useMemo(() => blocks(text.slice(0, shown)), [text, shown]);
  const left = text.length - shown;
  return html`<div class="words ${name}" lang=${known(lang)}>
    ${parts.map((part, index) => html`<p key=${index} dir="auto"><${Pieces} text=${part} /></p>`)}
    ${left > 0 && html`<button class="quiet" onClick=${() => setShown(shown + AT_ONCE)}>
      Show more (${count(left)} characters are left)</button>`}
  </div>`;
}

/** @param {string | null | undefined} lang @returns {string | undefined} */
export const known = (lang) => (lang && lang !== 'und' && /^[a-z]{2,3}(-[a-z0-9]{1,8})*$/i.test(lang) ? lang : undefined);
