/** Segments of a recording as WebVTT (W3C), for the browser's own player. */

/** @typedef {import('./types').Segment} Segment */

/** @param {number} seconds @returns {string} hh:mm:ss.mmm */
function stamp(seconds) {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const part = (/** @type {number} */ value, /** @type {number} */ digits) => String(value).padStart(digits, '0');
  return `${part(Math.floor(ms / 3_600_000), 2)}:${part(Math.floor(ms / 60_000) % 60, 2)}:${part(Math.floor(ms / 1000) % 60, 2)}.${part(ms % 1000, 3)}`;
}

/** @param {Segment[]} segments @returns {string} */
export function webVtt(segments) {
  const cues = ['WEBVTT'];
  segments.forEach((segment, index) => {
    if (typeof segment.start_s !== 'number') return;
    const end = segment.end_s ?? segments[index + 1]?.start_s ?? segment.start_s + 4;
    // A cue's text is markup of its own, and a blank line would end it.
    const text = segment.text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replace(/\s*\n\s*/g, '\n');
    cues.push(`${stamp(segment.start_s)} --> ${stamp(Math.max(end, segment.start_s + 0.1))}\n${text}`);
  });
  return `${cues.join('\n\n')}\n`;
}
