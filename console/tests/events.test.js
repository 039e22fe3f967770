import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverSentEvents } from '../src/events.js';

/** A body that comes in these pieces. */
const body = (...chunks) => new ReadableStream({
  start(controller) {
    for (const chunk of chunks) controller.enqueue(typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk);
    controller.close();
  },
});

const read = async (...chunks) => Array.fromAsync ? Array.fromAsync(serverSentEvents(body(...chunks))) : (async () => {
  const found = [];
  for await (const event of serverSentEvents(body(...chunks))) found.push(event);
  return found;
})();

test('events come with their names and data', async () => {
  assert.deepEqual(await read('event: delta\ndata: {"text":"a"}\n\nevent: done\ndata: 1\ndata: 2\n\n'), [{ event: 'delta', data: '{"text":"a"}' }, { event: 'done', data: '1\n2' }]);
});

test('wherever the network cuts them', async () => {
  const bytes = new TextEncoder().encode(': hello\r\nevent: delta\r\ndata: été 🦅\r\n\r\ndata:x\r\n\r\n');
  const whole = await read(bytes);
  assert.deepEqual(whole, [{ event: 'delta', data: 'été 🦅' }, { event: 'message', data: 'x' }]);
  for (let cut = 1; cut < bytes.length; cut += 1) assert.deepEqual(await read(bytes.slice(0, cut), bytes.slice(cut)), whole);
});

test('an event that is cut off is none', async () => {
  assert.deepEqual(await read('data: half'), []);
});
