/** One upload: its caption in all its parts, its way through the pipeline, its copies. */
import { useCallback, useEffect, useState } from 'preact/hooks';
import { asset as readAsset } from '../api.js';
import { duration, moment, money, percent, size, words } from '../format.js';
import { html } from '../html.js';
import { useKeys } from '../keys.js';
import { useInterval } from '../loading.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { useVerdicts } from '../verdicts.js';
import { Copies } from '../views/copies.js';
import { Difference } from '../views/difference.js';
import { Editor } from '../views/editor.js';
import { Icon } from '../views/icons.js';
import { Offer } from '../views/offer.js';
import { Media } from '../views/media.js';
import { Highlighted, Part, Parts } from '../views/parts.js';
import { Confidence, Facts, Failure, Loading, Money, Source, State } from '../views/pieces.js';
import { Inline, Words } from '../views/words.js';

/** @typedef {import('../types').Asset} Asset */
/** @typedef {import('../types').Attempt} Attempt */

/** How often an upload on its way is read again. */
const PENDING_MS = 1500;
const TERMINAL = ['captioned', 'rejected', 'blocked', 'failed', 'deleted'];

/** @param {{argument: string}} props */
export function AssetPage({ argument: id }) {
  const [asset, setAsset] = useState(/** @type {Asset | undefined} */ (undefined));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const read = useCallback(() => readAsset(id).then((found) => { setAsset(found); setError(null); }, setError), [id]);
  useEffect(() => { read(); }, [read]);
  const pending = asset !== undefined && !TERMINAL.includes(asset.state);
  useInterval(read, pending ? PENDING_MS : null);
  const verdicts = useVerdicts(asset, setAsset);
  useKeys({
    Escape: () => history.length > 1 ? history.back() : location.assign(link('')),
    a: verdicts.accept, e: verdicts.begin, r: verdicts.recaption, u: verdicts.undo,
  });
  useEffect(() => { if (asset) document.title = `${plain(asset.key, 80)} · Captions`; }, [asset?.key]);
  if (!asset) return html`<h1 tabindex="-1" class="unseen">Upload</h1><${Failure} error=${error} again=${read} />${!error && html`<${Loading} />`}`;
  const { result } = asset;
  return html`<article class="asset">
    <header class="page-head"><a class="back" href=${link('')}><${Icon} name="back" />Gallery</a>
      <h1 tabindex="-1"><${Inline} text=${asset.key} /></h1>
      <p class="about"><${State} state=${asset.state} /><${Source} asset=${asset} />${asset.opened_by && html`<span class="source">open at <bdi>${plain(asset.opened_by.by, 60)}</bdi></span>`}</p></header>
    <${Failure} error=${error} again=${read} />
    <div class="columns">
      <div class="shown"><${Media} asset=${asset} renew=${read} />
        <${Facts} items=${[['Kind', [asset.media_type, asset.category && words(asset.category)].filter(Boolean).join(', ')], ['Size', size(asset.size)], ['Received', moment(asset.received_at)], ['Cost', asset.cost || asset.attempts?.length ? html`<${Money} cost=${asset.cost} />` : 'no model was asked']]} /></div>
      <div class="told"><${Caption} asset=${asset} verdicts=${verdicts} />
        ${result && html`<${Parts} asset=${asset} result=${result} />`}
        <${Copies} asset=${asset} />
        <${Way} asset=${asset} />
        <${Attempts} attempts=${asset.attempts ?? []} />
        <${Provenance} asset=${asset} /></div>
    </div></article>`;
}

/** @param {{asset: Asset, verdicts: ReturnType<typeof useVerdicts>}} props */
function Caption({ asset, verdicts }) {
  const { result } = asset;
  const reviewed = Boolean(asset.reviewed);
  const newer = asset.suggestion && !asset.suggestion.replaced ? asset.suggestion.result.text : null;
  return html`<section class="part caption" aria-label="Caption">
    <h2>${result?.task ? words(result.task === 'caption' ? 'caption' : result.task) : 'Caption'}</h2>
    ${verdicts.editing ? html`<${Editor} asset=${asset} verdicts=${verdicts} />`
    : html`${result ? (result.text ? (result.task === 'code' ? html`<${Highlighted} text=${result.text} language=${result.data?.programming_language ?? ''} />` : html`<${Words} text=${result.text} lang=${result.language} class="big" />`) : html`<p class="muted">${result.task === 'alt_text' ? 'Decorative: the alt text is empty.' : 'No text.'}</p>`)
      : html`<p class="muted reason">${asset.reason?.message ?? 'No caption yet; it appears here as it ends.'}</p>`}
      <p class="about">${result && html`<${Confidence} value=${asset.confidence} /><span>${result.language}</span>${result.style && html`<span>${words(result.style)}</span>`}${result.safety && result.safety !== 'unknown' && html`<span class="safety ${result.safety}">${result.safety}</span>`}`}</p>
      ${result?.tags?.length ? html`<ul class="tags" aria-label="Tags">${result.tags.map((tag) => html`<li key=${tag}><a href=${link('', '', { q: tag })}><${Inline} text=${tag} most=${60} /></a></li>`)}</ul>` : null}
      <p class="actions">
        ${result && html`<button class=${reviewed ? '' : 'primary'} disabled=${verdicts.busy || asset.reviewed === 'accepted'} onClick=${verdicts.accept}><${Icon} name="check" />Accept <kbd>a</kbd></button>`}
        ${(result || ['failed', 'blocked'].includes(asset.state)) && html`<button disabled=${verdicts.busy} onClick=${verdicts.begin}><${Icon} name="edit" />Edit <kbd>e</kbd></button>`}
        ${result && html`<button disabled=${verdicts.busy} onClick=${verdicts.recaption}><${Icon} name="again" />Recaption <kbd>r</kbd></button>`}
        ${reviewed && html`<button disabled=${verdicts.busy} onClick=${verdicts.undo}><${Icon} name="undo" />Undo <kbd>u</kbd></button>`}
        ${['failed', 'blocked'].includes(asset.state) && html`<button disabled=${verdicts.busy} onClick=${verdicts.redrive}><${Icon} name="again" />Try again</button>`}
      </p>`}
    <${Offer} verdicts=${verdicts} />
    ${!verdicts.editing && asset.reviewed === 'edited' && asset.model_text !== null && html`<h3>Against the model's words</h3><${Difference} before=${asset.model_text} after=${result?.text ?? ''} lang=${asset.language} label="From the model's words to the person's" />`}
    ${newer !== null && html`<h3>A model's newer words</h3><${Difference} before=${result?.text ?? ''} after=${newer} label="From the caption to the suggestion" />`}
  </section>`;
}

/** @param {{asset: Asset}} props */
const Way = ({ asset }) => !asset.timeline?.length ? null : html`<${Part} title="Its way"><ol class="timeline">${asset.timeline.map((step, index) => html`<li key=${index}>
  <time datetime=${step.at}>${moment(step.at)}</time><b>${words(step.what)}</b><span><${Inline} text=${step.call ? `${step.call.model}${step.call.role && step.call.role !== 'first' ? `, ${words(step.call.role)}` : ''}: ${words(step.call.outcome ?? '')}` : step.what === 'received' ? size(asset.size) : step.detail ?? ''} most=${400} />${step.call && html`, ${step.call.batch ? '' : `${duration(step.call.latency_ms)}, `}<${Money} cost=${step.call.cost} />`}</span></li>`)}</ol><//>`;

/** @param {{attempts: Attempt[]}} props */
function Attempts({ attempts }) {
  if (!attempts.length) return null;
  const longest = Math.max(...attempts.map((attempt) => attempt.latency_ms ?? 0), 1);
  return html`<${Part} title="Calls to models"><div class="scroll" tabindex="0" role="region" aria-label="Calls to models"><table>
    <thead><tr><th scope="col">Model</th><th scope="col">For</th><th scope="col">Outcome</th><th scope="col">Time</th><th scope="col" class="number">Tokens</th><th scope="col" class="number">Cost</th></tr></thead>
    <tbody>${attempts.map((attempt, index) => html`<tr key=${index}>
      <th scope="row"><${Inline} text=${attempt.model === '-' ? 'several' : attempt.model} most=${80} />${(attempt.calls ?? 1) > 1 ? ` × ${attempt.calls}` : ''}<small><${Inline} text=${attempt.endpoint} most=${80} /></small></th>
      <td>${[attempt.role && words(attempt.role), attempt.tier].filter(Boolean).join(', ') || '–'}</td>
      <td><span class="outcome ${attempt.outcome === 'ok' ? 'good' : attempt.outcome ? 'bad' : ''}">${words(attempt.outcome ?? 'unknown')}</span>${attempt.detail && html`<small><${Inline} text=${attempt.detail} most=${200} /></small>`}</td>
      <td><svg class="length" viewBox="0 0 60 6" aria-hidden="true"><rect width=${(60 * (attempt.latency_ms ?? 0)) / longest} height="6" rx="3" /></svg>${attempt.batch ? 'in a batch' : duration(attempt.latency_ms)}</td>
      <td class="number">${attempt.prompt_tokens ?? '–'} + ${attempt.completion_tokens ?? '–'}</td>
      <td class="number"><${Money} cost=${attempt.cost} /></td></tr>`)}</tbody></table></div><//>`;
}

/** @param {{asset: Asset}} props */
function Provenance({ asset }) {
  const origin = asset.provenance ?? {};
  const code = (/** @type {any} */ value) => (value ? html`<code><${Inline} text=${String(value)} most=${200} /></code>` : null);
  return html`<${Part} title="Where it is from"><${Facts} items=${[
    ['Model asked', origin.model && html`<${Inline} text=${origin.model} />`], ['Model that answered', origin.reported_model && html`<${Inline} text=${origin.reported_model} />`],
    ['Endpoint', code(origin.endpoint)], ['Tier', origin.tier], ['Escalated', origin.escalated ? 'yes' : null], ['Prompt version', code(origin.prompt_version)], ['Answered', origin.answered_at && moment(origin.answered_at)],
    ['Score before calibration', origin.score === null || origin.score === undefined ? null : percent(origin.score)], ['Saved by the copy', origin.saved ? money({ dollars: origin.saved, unpriced_tokens: 0, uncounted_calls: 0, exact: true }) : null],
    ['Bucket', code(asset.bucket)], ['Asked as', code(origin.identity)],
  ]} /><//>`;
}
