/** Other people's text, shown as what it is: nothing in it may reorder, hide or imitate what stands around it. */

/** Characters that steer the direction of text (Unicode, UAX 9), by what they are called. */
const DIRECTION = new Map([
  ['\u202a', 'LRE'], ['\u202b', 'RLE'], ['\u202c', 'PDF'], ['\u202d', 'LRO'], ['\u202e', 'RLO'],
  ['\u2066', 'LRI'], ['\u2067', 'RLI'], ['\u2068', 'FSI'], ['\u2069', 'PDI'],
]);
/** Characters that show nothing: a name that has them looks like another. The joiners of emoji and scripts are not among them. */
const HIDDEN = new Map([
  ['\u200b', 'ZWSP'], ['\u2060', 'WJ'], ['\ufeff', 'BOM'], ['\u00ad', 'SHY'], ['\u180e', 'MVS'], ['\u2028', 'LSEP'], ['\u2029', 'PSEP'],
]);
// eslint-disable-next-line no-control-regex -- controls are what it looks for
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u200b\u2060\ufeff\u00ad\u180e\u2028\u2029\u{e0000}-\u{e007f}\ud800-\udfff]/gu;

/** @param {string} character @returns {string} */
function nameOf(character) {
  const code = /** @type {number} */ (character.codePointAt(0));
  return DIRECTION.get(character) ?? HIDDEN.get(character) ?? `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
}

/**
 * Cut text into what is shown as it is and what is shown by name.
 * @param {string} text
 * @returns {{text: string, control: boolean}[]}
 */
export function pieces(text) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(CONTROL)) {
    if (match[0] === '\r' && text[match.index + 1] === '\n') continue;
    if (match.index > at) found.push({ text: text.slice(at, match.index), control: false });
    found.push({ text: nameOf(match[0]), control: true });
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push({ text: text.slice(at), control: false });
  return found;
}

/**
 * The same for where only text can stand: titles, labels.
 * @param {string} text @param {number} [most] characters
 * @returns {string}
 */
export function plain(text, most = 200) {
  return pieces(clipped(text, most)).map((piece) => (piece.control ? `⟨${piece.text}⟩` : piece.text)).join('');
}

/** @param {string} text @returns {number} Unicode code points, as the pipeline counts characters */
export function characters(text) {
  let count = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code < 0xdc00 || code > 0xdfff) count += 1;
  }
  return count;
}

/** @param {string} text @param {number} most code units; a character is never halved @returns {string} */
export function clipped(text, most) {
  if (text.length <= most) return text;
  const end = /[\ud800-\udbff]/.test(text[most - 1]) ? most - 1 : most;
  return `${text.slice(0, end)}…`;
}

/**
 * Cut long text into blocks of about `size` code units, at a line's end or a space where there is one near.
 * @param {string} text @param {number} [size]
 * @returns {string[]}
 */
export function blocks(text, size = 4000) {
  const found = [];
  let at = 0;
  while (text.length - at > size) {
    const window = text.slice(at, at + size);
    let end = Math.max(window.lastIndexOf('\n'), window.lastIndexOf(' ')) + 1;
    if (end < size / 2) end = /[\ud800-\udbff]/.test(window[size - 1]) ? size - 1 : size;
    found.push(text.slice(at, at + end));
    at += end;
  }
  found.push(text.slice(at));
  return found;
}
