/** What a person can say about an upload, with what becomes of it: used by the upload's page and the review. */
import { useCallback, useEffect, useState } from 'preact/hooks';
import { ApiError, asset as readAsset, assetPath, edit, post, say } from './api.js';
import { draftOf, dropDraft, keepDraft } from './drafts.js';
import { notices } from './notices.js';
import { session } from './session.js';

/** @typedef {import('./types').Asset} Asset */

const CHANGED = 412;

/**
 * @param {Asset | undefined} asset @param {(asset: Asset) => void} put takes the record as it is after a verdict
 */
export function useVerdicts(asset, put) {
  const [editing, setEditing] = useState(false);
  const [conflict, setConflict] = useState(/** @type {Asset | null} */ (null));
  const [busy, setBusy] = useState(false);
  const [offer, setOffer] = useState(/** @type {import('./types').Offer | null} */ (null));
  const draft = asset ? draftOf(asset.id, session().sub) : null;
  /** Of the record that the words are written upon, though it may have been read again since. */
  const etag = draft?.etag ?? asset?.etag ?? '';
  useEffect(() => {
    if (!asset || !draft) return;
    setEditing(true);
    if (draft.etag !== asset.etag) setConflict(asset);
  }, [asset?.id]);
  const keep = (/** @type {string} */ text) => { if (asset) keepDraft(asset.id, { text, etag, by: session().sub }); };
  const close = () => {
    if (asset) dropDraft(asset.id);
    setEditing(false);
    setConflict(null);
  };
  const during = useCallback(async (/** @type {() => Promise<void>} */ act) => {
    setBusy(true);
    try {
      await act();
    } catch (error) {
      notices.say(error instanceof Error ? error.message : String(error), 'bad');
    } finally {
      setBusy(false);
    }
  }, []);

  /** @param {string} text @param {boolean} [over] whether theirs was seen and is to be replaced */
  const save = (text, over = false) => during(async () => {
    if (!asset) return;
    try {
      put(await edit(asset.id, text, over && conflict ? conflict.etag : etag));
      close();
      notices.say('Saved. A model will not write over your words.', 'good');
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== CHANGED) throw error;
      setConflict(await readAsset(asset.id));
    }
  });

  /** @param {'accept' | 'undo'} verdict @param {Asset | undefined} [about] */
  const verdict = (verdict, about = asset) => during(async () => {
    if (!about) return;
    try {
      put(await say(about.id, verdict, about.etag));
      notices.say(verdict === 'accept' ? 'Accepted.' : 'Undone.', 'good');
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== CHANGED) throw error;
      put(await readAsset(about.id));
      notices.say('It changed meanwhile: this is how it is now. Look again.', 'bad');
    }
  });

  /** Once to learn the cost, once more to have it done. */
  const recaption = () => during(async () => {
    if (!asset) return;
    const dry = offer?.id !== asset.id;
    const answer = await post(assetPath(asset.id, '/recaption'), { dry_run: dry });
    setOffer(dry ? { ...answer, id: asset.id } : null);
    if (!dry) notices.say('It is captioned again; the present caption stays until then.', 'good');
  });

  const redrive = () => during(async () => {
    if (!asset) return;
    await post(assetPath(asset.id, '/redrive'));
    notices.say('It gets another try.');
  });

  return {
    editing, conflict, busy, save, recaption, redrive, offer: asset && offer?.id === asset.id ? offer : null,
    decline: () => setOffer(null),
    /** From here on the words are about the record as it is shown now, though it may be read again before the first. */
    begin: () => { keep(draft?.text ?? asset?.result?.text ?? ''); setEditing(true); },
    /** Another upload is looked at: what was written stays until its author comes back to this one. */
    away: () => {
      const written = asset ? draftOf(asset.id, session().sub)?.text : undefined;
      if (written === undefined || written === (asset?.result?.text ?? '')) return close();
      setEditing(false);
      return setConflict(null);
    },
    draft: draft?.text,
    keep,
    leave: close,
    take: () => { if (conflict) put(conflict); close(); },
    accept: () => verdict('accept'),
    undo: () => verdict('undo'),
    undoOf: (/** @type {Asset} */ other) => verdict('undo', other),
  };
}
