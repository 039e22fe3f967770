/** The upload itself: a picture, or a player whose transcript follows it. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { clock } from '../format.js';
import { html } from '../html.js';
import { plain } from '../text.js';
import { webVtt } from '../transcript.js';
import { Thumbnail, usePicture } from './pieces.js';
import { Inline } from './words.js';

/** @typedef {import('../types').Asset} Asset */
/** @typedef {import('../types').Segment} Segment */

/** Presigned addresses end after minutes; a player or picture that fails asks for a new one, at most this often. */
const RENEW_MS = 20_000;
/** Lines of a transcript drawn at once. */
const AT_ONCE = 400;

/** @param {{asset: Asset, renew: () => void}} props */
export function Media({ asset, renew }) {
  const renewed = useRef(0);
  const failed = () => {
    if (Date.now() - renewed.current < RENEW_MS) return setBroken(true);
    renewed.current = Date.now();
    renew();
    return undefined;
  };
  const [broken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [asset.media_url]);
  if (asset.kind === 'audio' || asset.kind === 'video') return html`<${Player} asset=${asset} failed=${failed} />`;
  const alt = plain(asset.alt_text ?? asset.text ?? asset.key, 250);
  if (!asset.media_url || broken) return html`<figure class="picture"><${Thumbnail} asset=${asset} alt=${alt} /></figure>`;
  return html`<figure class="picture"><img src=${asset.media_url} alt=${alt} onError=${failed} /></figure>`;
}

/** @param {{asset: Asset, failed: () => void}} props */
function Player({ asset, failed }) {
  const media = useRef(/** @type {HTMLMediaElement | null} */ (null));
  /** @type {Segment[]} */
  const segments = asset.result?.data?.segments ?? [];
  const timed = segments.some((segment) => typeof segment.start_s === 'number');
  const poster = usePicture(asset.kind === 'video' ? asset.thumbnail : null);
  const [now, setNow] = useState(-1);
  const resume = useRef(0);
  const track = useMemo(() => (timed && asset.kind === 'video' ? URL.createObjectURL(new Blob([webVtt(segments)], { type: 'text/vtt' })) : null), [asset.id, segments.length]);
  useEffect(() => () => { if (track) URL.revokeObjectURL(track); }, [track]);
  const moved = () => {
    const time = media.current?.currentTime ?? 0;
    resume.current = time;
    setNow(currentSegment(segments, time));
  };
  const loaded = () => { if (media.current && resume.current) media.current.currentTime = resume.current; };
  /** @param {number} index */
  const seek = (index) => {
    const start = segments[index].start_s;
    if (!media.current || typeof start !== 'number') return;
    media.current.currentTime = start;
    media.current.play().catch(() => {});
  };
  const common = { ref: media, src: asset.media_url ?? undefined, controls: true, preload: 'metadata', onTimeUpdate: moved, onSeeked: moved, onLoadedMetadata: loaded, onError: failed, 'aria-label': plain(asset.key, 80) };
  return html`<div class="player ${asset.kind}">
    ${asset.kind === 'video' ? html`<video ...${common} poster=${poster ?? undefined} playsinline>${track && html`<track kind="captions" src=${track} srclang=${asset.language ?? 'und'} label="Captions" default />`}</video>` : html`<audio ...${common}></audio>`}
    ${segments.length > 0 && html`<${Transcript} segments=${segments} now=${now} seek=${seek} lang=${asset.language} />`}
  </div>`;
}

/** @param {Segment[]} segments @param {number} time @returns {number} -1: none */
function currentSegment(segments, time) {
  let found = -1;
  for (let index = 0; index < segments.length; index += 1) {
    const start = segments[index].start_s;
    if (typeof start === 'number' && start <= time + 0.05) found = index;
    else if (typeof start === 'number') break;
  }
  return found;
}

/** @param {{segments: Segment[], now: number, seek: (index: number) => void, lang: string | null}} props */
function Transcript({ segments, now, seek, lang }) {
  const list = useRef(/** @type {HTMLOListElement | null} */ (null));
  const [shown, setShown] = useState(AT_ONCE);
  useEffect(() => {
    if (now >= shown) setShown(now + AT_ONCE);
    const line = /** @type {HTMLElement | null | undefined} */ (list.current?.querySelector('[aria-current]'));
    if (line && list.current) list.current.scrollTo({ top: line.offsetTop - list.current.clientHeight / 3, behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
  }, [now]);
  return html`<ol class="transcript" ref=${list} aria-label="Transcript" tabindex="0">${segments.slice(0, shown).map((segment, index) => {
    const timed = typeof segment.start_s === 'number';
    return html`<li key=${index} aria-current=${index === now ? 'true' : undefined}>
      ${timed ? html`<button class="time" aria-label="Play from ${clock(segment.start_s ?? 0)}" onClick=${() => seek(index)}>${clock(segment.start_s ?? 0)}</button>` : html`<span class="time"></span>`}
      <span>${segment.speaker && html`<b class="speaker"><${Inline} text=${segment.speaker} most=${60} /></b> `}<${Inline} text=${segment.text} most=${4000} lang=${lang} /></span></li>`;
  })}</ol>
  ${segments.length > shown && html`<button class="quiet" onClick=${() => setShown(shown + AT_ONCE)}>Show more lines (${segments.length - shown} are left)</button>`}`;
}
