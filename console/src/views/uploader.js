/** Files dropped anywhere on the page, pasted or chosen are uploaded, a few at a time. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { upload } from '../api.js';
import { counted, percent, size } from '../format.js';
import { html } from '../html.js';
import { notices } from '../notices.js';
import { plain } from '../text.js';

const AT_A_TIME = 3;
const MOST_FILES = 500;

/** @typedef {{id: number, file: File, share: number, state: 'waits' | 'goes' | 'arrived' | 'failed', why?: string}} Sending */

let next = 1;

/** @param {DataTransfer | null} data @returns {boolean} */
const hasFiles = (data) => Boolean(data?.types.includes('Files'));

/** How far files are that are listed. @param {Pick<Sending, 'state'>[]} list */
export function progress(list) {
  const [arrived, failed] = [list.filter((one) => one.state === 'arrived').length, list.filter((one) => one.state === 'failed').length];
  const going = list.length - arrived - failed;
  if (going) return `${counted(going, 'file')} on the way to the bucket`;
  return arrived ? `${counted(arrived, 'file')} arrived in the bucket` : `${counted(failed, 'file')} not uploaded`;
}

/** @param {{chooser: {current: HTMLInputElement | null}, sent: () => void}} props */
export function Uploader({ chooser, sent }) {
  const [list, setList] = useState(/** @type {Sending[]} */ ([]));
  const [over, setOver] = useState(false);
  const waiting = useRef(/** @type {Sending[]} */ ([]));
  const going = useRef(0);
  /** @param {number} id @param {Partial<Sending>} change */
  const set = (id, change) => setList((before) => before.map((one) => (one.id === id ? { ...one, ...change } : one)));

  const turn = useCallback(async () => {
    if (going.current >= AT_A_TIME) return;
    const one = waiting.current.shift();
    if (!one) return;
    going.current += 1;
    set(one.id, { state: 'goes' });
    try {
      await upload(one.file, (share) => set(one.id, { share }));
      set(one.id, { state: 'arrived', share: 1 });
      sent();
      setTimeout(() => setList((before) => before.filter((other) => other.id !== one.id)), 1500);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      set(one.id, { state: 'failed', why });
      notices.say(`${plain(one.file.name, 80)} was not uploaded: ${why}`, 'bad');
    } finally {
      going.current -= 1;
      turn();
    }
  }, [sent]);

  /** @param {Iterable<File>} files */
  const add = (files) => {
    const all = [...files];
    const taken = all.slice(0, MOST_FILES).map((file) => /** @type {Sending} */ ({ id: next++, file, share: 0, state: 'waits' }));
    if (all.length > MOST_FILES) notices.say(`The first ${MOST_FILES} of ${all.length} files are uploaded; \`captions upload\` takes whole folders.`);
    setList((before) => [...before, ...taken]);
    waiting.current.push(...taken);
    taken.slice(0, AT_A_TIME).forEach(() => turn());
  };
  const latest = useRef(add);
  latest.current = add;

  useEffect(() => {
    let depth = 0;
    /** @param {DragEvent} event */
    const enter = (event) => { if (hasFiles(event.dataTransfer)) { depth += 1; setOver(true); event.preventDefault(); } };
    const leave = () => { depth = Math.max(0, depth - 1); if (!depth) setOver(false); };
    /** @param {DragEvent} event */
    const above = (event) => { if (hasFiles(event.dataTransfer)) event.preventDefault(); };
    /** @param {DragEvent} event */
    const drop = (event) => {
      depth = 0;
      setOver(false);
      if (!hasFiles(event.dataTransfer)) return;
      event.preventDefault();
      latest.current(event.dataTransfer?.files ?? []);
    };
    /** @param {ClipboardEvent} event */
    const paste = (event) => { if (event.clipboardData?.files.length) latest.current(event.clipboardData.files); };
    const pairs = /** @type {[string, any][]} */ ([['dragenter', enter], ['dragleave', leave], ['dragover', above], ['drop', drop], ['paste', paste]]);
    for (const [name, act] of pairs) document.addEventListener(name, act);
    return () => { for (const [name, act] of pairs) document.removeEventListener(name, act); };
  }, []);

  return html`
    <input ref=${chooser} type="file" multiple hidden aria-label="Files to upload" onChange=${(/** @type {any} */ event) => { add(event.target.files); event.target.value = ''; }} />
    ${over && html`<div class="drop" aria-hidden="true"><p>Drop to upload</p></div>`}
    ${list.length > 0 && html`<section class="uploads" aria-label="Uploads">
      <p role="status">${progress(list)}</p>
      <ul>${list.slice(0, 8).map((one) => html`<li key=${one.id} class=${one.state}>
        <bdi>${plain(one.file.name, 80)}</bdi> <span class="muted">${size(one.file.size)}</span>
        ${one.state === 'failed' ? html`<span class="bad">${one.why}</span> <button class="quiet" onClick=${() => setList((before) => before.filter((other) => other.id !== one.id))}>Dismiss</button>`
        : html`<progress max="1" value=${one.share} aria-label="Uploaded of ${plain(one.file.name, 40)}">${percent(one.share)}</progress>`}</li>`)}</ul>
      ${list.length > 8 && html`<p class="muted">and ${list.length - 8} more</p>`}
    </section>`}`;
}
