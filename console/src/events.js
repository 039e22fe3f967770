/** Server-sent events over fetch (HTML Standard, 9.2.6), which EventSource cannot do for a POST. */

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* serverSentEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let buffered = '';
  let event = '';
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      buffered += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A line ends with LF, CR or CRLF; a CR at the very end may be half of one.
      const lines = buffered.split(done ? /\r\n|\n|\r/ : /\r\n|\n|\r(?!$)/);
      buffered = done ? '' : /** @type {string} */ (lines.pop());
      for (const line of lines) {
        if (line === '') {
          if (data.length) yield { event: event || 'message', data: data.join('\n') };
          [event, data] = ['', []];
          continue;
        }
        const colon = line.indexOf(':');
        const [field, rest] = colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
        if (field === 'event') event = rest;
        else if (field === 'data') data.push(rest);
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
