/** Server-sent events. */

/**
 * The JSON of each event of a stream, until `[DONE]`. Comments are skipped.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<any, boolean>} returns whether the stream had its `[DONE]`
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + (value ?? '')).split(/\r?\n/);
      rest = done ? '' : lines.pop();
      for (const line of lines) {
        const data = /^data: ?(.*)$/.exec(line)?.[1];
        if (data === '[DONE]') return true;
        if (data) yield JSON.parse(data);
      }
      if (done) return false;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
