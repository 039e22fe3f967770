/** Word diff between two captions. */
import { diffWordsWithSpace } from 'diff';

/** Beyond that many characters together, or edits, texts are shown one after the other: nobody reads such a diff. */
const MOST_CHARACTERS = 40_000;
const MOST_EDITS = 2_000;

/** @typedef {{kind: 'same' | 'added' | 'removed', text: string}} Change */

const segmenter = 'Segmenter' in Intl ? new Intl.Segmenter(undefined, { granularity: 'word' }) : undefined;

/**
 * What has to be taken from `before` and added to it to get `after`, word by word, in any script.
 * @param {string} before @param {string} after
 * @returns {Change[]}
 */
export function wordDiff(before, after) {
  if (before === after) return before ? [{ kind: 'same', text: before }] : [];
  const changes = before.length + after.length > MOST_CHARACTERS
    ? undefined
    : diffWordsWithSpace(before, after, { maxEditLength: MOST_EDITS, intlSegmenter: segmenter });
  if (!changes) {
    return /** @type {Change[]} */ ([{ kind: 'removed', text: before }, { kind: 'added', text: after }]).filter((change) => change.text);
  }
  return changes.map((change) => ({ kind: change.added ? 'added' : change.removed ? 'removed' : 'same', text: change.value }));
}
