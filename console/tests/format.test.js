import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, clock, counted, dollars, duration, money, percent, size, until } from '../src/format.js';

test('a cost that is known in full is dollars', () => {
  assert.equal(money({ dollars: '0.000054', unpriced_tokens: 0, uncounted_calls: 0, exact: true }), '$0.000054');
  assert.equal(money({ dollars: '1234.5', unpriced_tokens: 0, uncounted_calls: 0, exact: true }), '$1,234.50');
});

test('of any other, what is known stands beside what has no price', () => {
  assert.equal(money({ dollars: '0.000054', unpriced_tokens: 628, uncounted_calls: 0, exact: false }), '≥ $0.000054 + 628 tokens');
  assert.equal(money({ dollars: '2', unpriced_tokens: 1, uncounted_calls: 3, exact: false }), '≥ $2.00 + 1 token + 3 calls');
  assert.equal(money({ dollars: '1.019', unpriced_tokens: 1, uncounted_calls: 0, exact: false }), '≥ $1.01 + 1 token');
  assert.equal(money({ dollars: '0.196', unpriced_tokens: 1, uncounted_calls: 0, exact: false }), '≥ $0.19 + 1 token');
  assert.equal(money({ dollars: '0', unpriced_tokens: 628, uncounted_calls: 0, exact: false }), '628 tokens, no price');
});

test('an unknown cost is never zero', () => assert.equal(money(null), 'not known'));

test('small dollars keep their digits', () => {
  assert.equal(dollars('0.0000000123'), '$0.000000012');
  assert.equal(dollars('0'), '$0');
  assert.equal(dollars('0.5'), '$0.5');
  assert.equal(dollars('-0.0123'), '−$0.012');
});

test('sizes, times and shares', () => {
  assert.deepEqual([size(999), size(1500), size(999_600), size(123_456_789)], ['999 bytes', '1.5 kB', '1.0 MB', '123 MB']);
  assert.deepEqual([duration(210), duration(1830), duration(61_000), duration(null)], ['210 ms', '1.8 s', '1 min 1 s', '–']);
  assert.deepEqual([clock(0), clock(61.9), clock(3671)], ['0:00', '1:01', '1:01:11']);
  assert.deepEqual([percent(0.3), percent(0.0434, 1), percent(null)], ['30 %', '4.3 %', '–']);
  assert.deepEqual([counted(1, 'file'), counted(1200, 'file')], ['1 file', '1,200 files']);
});

test('how long ago, and how long still', () => {
  const now = Date.parse('2026-01-01T00:10:00Z');
  assert.deepEqual(['2026-01-01T00:09:58Z', '2026-01-01T00:09:00Z', '2026-01-01T00:00:00Z', '2025-12-31T00:00:00Z'].map((at) => ago(at, now)), ['now', '1 min ago', '10 min ago', '1 d ago']);
  assert.deepEqual([until('2026-01-01T00:10:30Z', now), until('2026-01-01T00:00:00Z', now), until('never', now)], ['in 30 s', 'now', '–']);
  assert.equal(ago('not a time', now), '–');
});
