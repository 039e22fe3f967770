/** What somebody is writing, kept in this tab until it is saved or given up: a sign-in in between loads the page anew. */
const PREFIX = 'captions-draft:';

/** @typedef {{text: string, etag: string, by: string}} Draft `etag` is of the record that it was written upon, `by` who wrote it */

/** @param {string} id of an asset @param {Draft} draft */
export function keepDraft(id, draft) {
  try {
    sessionStorage.setItem(PREFIX + id, JSON.stringify(draft));
  } catch {
    // The browser keeps no more: the text is in its field all the same.
  }
}

/** @param {string} id @param {string} by nobody gets what another person wrote @returns {Draft | null} */
export function draftOf(id, by) {
  const draft = JSON.parse(sessionStorage.getItem(PREFIX + id) ?? 'null');
  return draft?.by === by ? draft : null;
}

/** @param {string} id */
export const dropDraft = (id) => sessionStorage.removeItem(PREFIX + id);

export function dropAllDrafts() {
  for (const name of Object.keys(sessionStorage)) if (name.startsWith(PREFIX)) sessionStorage.removeItem(name);
}
