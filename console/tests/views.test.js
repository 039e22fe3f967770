import assert from 'node:assert/strict';
import { test } from 'node:test';
import { merged } from '../src/assets.js';
import { taken } from '../src/pages/now.js';
import { progress } from '../src/views/uploader.js';
import { sentence } from '../src/format.js';
import { link, parsed } from '../src/route.js';
import { webVtt } from '../src/transcript.js';
import { ticks } from '../src/views/chart-figure.js';

const item = (id, etag = '1') => ({ id, etag, updated_at: etag, opened_by: null });

test('what arrives goes in front, what changed stays in its place', () => {
  const before = [item('a'), item('b')];
  assert.deepEqual(merged(before, [item('c'), item('b', '2')], true).map(({ id, etag }) => id + etag), ['c1', 'a1', 'b2']);
});

test('of several that arrive at once the newest is in front', () => {
  assert.deepEqual(merged([item('a')], [item('b'), item('c')], true).map(({ id }) => id), ['c', 'b', 'a']);
});

test('where nothing changed, nothing is drawn again', () => {
  const before = [item('a'), item('b')];
  assert.equal(merged(before, [item('a')], true), before);
  assert.equal(merged(before, [], true), before);
});

test('a route is what its link says', () => {
  const id = 'bWVkaWEvw6l0w6kgIzEuanBn';
  const route = parsed(link('asset', id, { q: 'a&b', empty: '' }));
  assert.equal(route.page, 'asset');
  assert.equal(route.argument, id);
  assert.equal(route.query.get('q'), 'a&b');
  assert.equal(route.query.has('empty'), false);
  assert.equal(parsed('#main'), null);
  assert.equal(parsed('#/asset/%E0%A4%A').argument, '');
});

test('a stream is told word by word, and begins again where the model does', () => {
  const events = [['delta', { text: 'A ' }], ['delta', { text: 'cat' }], ['restart', {}], ['delta', { text: 'A dog' }], ['done', { asset: { id: 'x', result: { text: 'A dog.' } }, cost: null }]];
  const answer = events.reduce((before, [event, data], index) => taken(before, event, data, index), { state: 'asked', text: '' });
  assert.equal(answer.state, 'done');
  assert.equal(answer.text, 'A dog.');
  assert.equal(answer.id, 'x');
  assert.equal(answer.firstMs, 0);
  assert.equal(taken({ state: 'asked', text: '' }, 'error', { detail: 'no model' }, 5).why, 'no model');
});

test('subtitles hold no markup and no gaps', () => {
  const vtt = webVtt([{ start_s: 0, end_s: 1.25, text: '<c.x>-->\n\nHi & bye' }, { start_s: 3661.5, text: 'later' }, { text: 'untimed' }]);
  assert.equal(vtt, 'WEBVTT\n\n00:00:00.000 --> 00:00:01.250\n&lt;c.x&gt;--&gt;\nHi &amp; bye\n\n01:01:01.500 --> 01:01:05.500\nlater\n');
});

test('an axis has a few round values', () => {
  assert.deepEqual(ticks(0, 32), [0, 10, 20, 30]);
  assert.deepEqual(ticks(5, 5), [5]);
  for (const [low, high] of [[0, 1e-9], [-3, 7], [0, 123456789]]) {
    const values = ticks(low, high);
    assert.ok(values.length >= 2 && values.length <= 6, `${values}`);
    assert.ok(values.every((value) => value >= low && value <= high * 1.000001));
  }
});

test('files that all arrived are not on their way', () => {
  const list = (...states) => states.map((state) => ({ state }));
  assert.equal(progress(list('waits', 'goes', 'arrived', 'failed')), '2 files on the way to the bucket');
  assert.equal(progress(list('arrived', 'failed')), '1 file arrived in the bucket');
  assert.equal(progress(list('failed')), '1 file not uploaded');
});

test('what an error says is a sentence', () => {
  assert.equal(sentence('there is no such asset'), 'There is no such asset.');
  assert.equal(sentence('The API does not answer.'), 'The API does not answer.');
});
