/** A picture in, its caption word by word. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { streamedCaption } from '../api.js';
import { duration, money } from '../format.js';
import { html } from '../html.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { Icon } from '../views/icons.js';
import { Words } from '../views/words.js';

/** @typedef {{state: 'idle' | 'asked' | 'writing' | 'done' | 'failed', text: string, waits?: boolean, from?: string, why?: string, id?: string, cost?: any, model?: string, firstMs?: number, doneMs?: number}} Answer */

/** @type {Answer} */
const IDLE = { state: 'idle', text: '' };

export function Now() {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [picture, setPicture] = useState(/** @type {string | null} */ (null));
  const [answer, setAnswer] = useState(IDLE);
  const [over, setOver] = useState(false);
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));
  const stop = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => {
    if (!file) return undefined;
    const url = URL.createObjectURL(file);
    setPicture(url);
    return () => URL.revokeObjectURL(url);
  }, [file]);
  useEffect(() => () => stop.current?.abort(), []);

  /** @param {File | undefined} chosen */
  const ask = async (chosen) => {
    if (!chosen) return;
    stop.current?.abort();
    const abort = new AbortController();
    stop.current = abort;
    setFile(chosen);
    setAnswer({ state: 'asked', text: '' });
    const began = performance.now();
    const form = new FormData();
    form.append('file', chosen, chosen.name || 'pasted');
    try {
      for await (const { event, data } of streamedCaption(form, abort.signal)) {
        if (abort.signal.aborted) return;
        setAnswer((before) => taken(before, event, data, performance.now() - began));
      }
      setAnswer((before) => (before.state === 'done' || before.state === 'failed' ? before : { ...before, state: 'failed', why: 'The answer was cut off. What was paid for is kept: ask again.' }));
    } catch (error) {
      if (!abort.signal.aborted) setAnswer({ ...IDLE, state: 'failed', why: error instanceof Error ? error.message : String(error) });
    }
  };
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    /** @param {ClipboardEvent} event */
    const paste = (event) => { latest.current(event.clipboardData?.files[0]); };
    document.addEventListener('paste', paste);
    return () => document.removeEventListener('paste', paste);
  }, []);

  return html`<h1 tabindex="-1">Caption now</h1>
    <div class="now">
      <div class="place ${over ? 'over' : ''}" onDragOver=${(/** @type {DragEvent} */ event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}
        onDrop=${(/** @type {DragEvent} */ event) => { event.preventDefault(); setOver(false); ask(event.dataTransfer?.files[0]); }}>
        ${picture ? html`<img src=${picture} alt=${answer.text ? plain(answer.text, 250) : 'The picture that is asked about'} />` : html`<p>Drop or paste a picture here. It is looked up among all that was captioned; if it is new, a model is asked, and its words appear as they come.</p>`}
        <button class=${picture ? '' : 'primary'} onClick=${() => chooser.current?.click()}><${Icon} name="upload" />Choose a picture</button>
        <input ref=${chooser} type="file" accept="image/*" hidden aria-label="Picture" onChange=${(/** @type {any} */ event) => { ask(event.target.files[0]); event.target.value = ''; }} />
      </div>
      <section class="answer ${answer.state}" aria-label="Caption" aria-busy=${answer.state === 'asked' || answer.state === 'writing'}>
        ${answer.state === 'asked' && html`<p class="loading" role="status"><span class="spinner" aria-hidden="true"></span>${answer.waits ? 'Somebody else has asked about this picture: waiting for that answer' : 'Asking'} …</p>`}
        ${answer.text && html`<${Words} text=${answer.text} class="big" />`}
        ${answer.state === 'failed' && html`<p class="failure" role="alert">${answer.why}</p>${answer.id && html`<p><a href=${link('asset', answer.id)}>Open</a></p>`}`}
        ${answer.state === 'done' && html`<p class="about" role="status">${answer.from === 'hit' ? 'Copied from a picture captioned before' : `Written by ${plain(answer.model ?? 'a model', 60)}`}, first words after ${duration(answer.firstMs)}, done after ${duration(answer.doneMs)}${answer.cost ? `, ${money(answer.cost)}` : ''}.</p>
          ${answer.id && html`<p><a href=${link('asset', answer.id)}>Open</a></p>`}`}
      </section></div>`;
}

/** @param {Answer} before @param {string} event @param {any} data @param {number} ms since the request @returns {Answer} */
export function taken(before, event, data, ms) {
  const firstMs = before.firstMs ?? ms;
  if (event === 'delta') return { ...before, state: 'writing', text: before.text + (data.text ?? ''), firstMs };
  if (event === 'restart') return { ...before, state: 'writing', text: '' };
  if (event === 'hit' || event === 'done') {
    const asset = /** @type {import('../types').Asset} */ (data.asset);
    return { state: 'done', text: asset.result?.text ?? '', from: asset.source === 'cache' ? 'hit' : event, id: asset.id, cost: data.cost, model: asset.reported_model ?? asset.model ?? undefined, firstMs, doneMs: ms };
  }
  if (event === 'waiting') return { ...before, state: 'asked', waits: true };
  if (event === 'error') return { ...before, state: 'failed', why: data.detail ?? data.title, id: data.id };
  return before;
}
