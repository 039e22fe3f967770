/** A caption edited in place, and what happens when somebody else was quicker. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { characters } from '../text.js';
import { count } from '../format.js';
import { Difference } from './difference.js';
import { known, Words } from './words.js';

/** What the API takes, in bytes of UTF-8 (`captions.records.reviews.MAX_TEXT_BYTES`). */
const MOST_BYTES = 40_000;
/** Alt text: the length to aim at, and the most (docs/tasks.md). */
export const ALT_TARGET = 125;
export const ALT_MOST = 250;

/** @typedef {import('../types').Asset} Asset */

/** @param {{value: number}} props characters of an alt text */
export const AltCounter = ({ value }) => html`<span class="counter ${value > ALT_MOST ? 'bad' : value > ALT_TARGET ? 'middle' : 'good'}">
  ${count(value)} of ${value > ALT_TARGET ? `${ALT_MOST} characters at most` : `${ALT_TARGET} characters`}${value > ALT_MOST ? ': too long' : value > ALT_TARGET ? ': longer than a screen reader should have to say' : ''}</span>`;

/**
 * @param {{asset: Asset, verdicts: ReturnType<typeof import('../verdicts.js').useVerdicts>}} props
 * `verdicts.conflict` is the record as somebody else left it; `save(text, true)` writes over it, `take` keeps theirs.
 */
export function Editor({ asset, verdicts }) {
  const { conflict, busy, save, leave, take, keep } = verdicts;
  const [text, setText] = useState(verdicts.draft ?? asset.result?.text ?? '');
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const bytes = new TextEncoder().encode(text).length;
  const alt = asset.result?.task === 'alt_text';
  const problem = !text.trim() ? 'A caption cannot be empty.' : bytes > MOST_BYTES ? `At most ${count(MOST_BYTES)} bytes; these are ${count(bytes)}.` : '';
  useEffect(() => {
    const { current } = field;
    current?.focus();
    current?.setSelectionRange(current.value.length, current.value.length);
  }, []);
  useEffect(() => {
    const { current } = field;
    if (!current) return;
    // As tall as its text: measured, since not every browser has `field-sizing`.
    current.style.height = 'auto';
    current.style.height = `${Math.min(current.scrollHeight + 4, 480)}px`;
  }, [text]);
  /** @param {KeyboardEvent} event */
  const key = (event) => {
    if (event.key === 'Escape') { event.preventDefault(); event.stopPropagation(); leave(); }
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !problem && !busy) { event.preventDefault(); save(text, Boolean(conflict)); }
  };
  return html`<form class="editor" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); if (!problem && !busy) save(text, Boolean(conflict)); }}>
    ${conflict && html`<div class="conflict" role="alert">
      <h3>Somebody else changed this caption meanwhile</h3>
      <p>Theirs:</p><${Words} text=${conflict.result?.text ?? ''} lang=${conflict.language} class="theirs" />
      <p>Yours, against theirs:</p><${Difference} before=${conflict.result?.text ?? ''} after=${text} label="From theirs to yours" lang=${conflict.language} />
    </div>`}
    <label><span class=${conflict ? '' : 'unseen'}>${conflict ? 'Yours' : 'Caption'}</span>
      <textarea ref=${field} dir="auto" lang=${known(asset.language)} rows="3" value=${text} onInput=${(/** @type {any} */ event) => { setText(event.target.value); keep(event.target.value); }} onKeyDown=${key} aria-invalid=${problem ? 'true' : undefined} aria-describedby="editor-hint"></textarea></label>
    <p id="editor-hint" class="hint">${problem ? html`<span class="bad">${problem}</span>` : alt ? html`<${AltCounter} value=${characters(text)} />` : `${count(characters(text))} characters`}
      <span class="muted"> <kbd>Ctrl</kbd> <kbd>Enter</kbd> saves, <kbd>Esc</kbd> leaves it as it was</span></p>
    <p class="actions"><button class="primary" disabled=${Boolean(problem) || busy}>${conflict ? 'Save mine over theirs' : 'Save'}</button>
      ${conflict && html`<button type="button" onClick=${take}>Keep theirs</button>`}
      <button type="button" onClick=${leave}>Cancel</button></p>
  </form>`;
}
