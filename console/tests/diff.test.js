import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wordDiff } from '../src/diff.js';

const written = (changes) => changes.map(({ kind, text }) => ({ same: text, added: `{+${text}+}`, removed: `[-${text}-]` })[kind]).join('');
const before = (changes) => changes.filter(({ kind }) => kind !== 'added').map(({ text }) => text).join('');
const after = (changes) => changes.filter(({ kind }) => kind !== 'removed').map(({ text }) => text).join('');

test('words that changed are shown as changed', () => {
  assert.equal(written(wordDiff('Two birds on the left.', 'Two ospreys on the left.')), 'Two [-birds-]{+ospreys+} on the left.');
  assert.deepEqual(wordDiff('same', 'same'), [{ kind: 'same', text: 'same' }]);
  assert.deepEqual(wordDiff('', ''), []);
});

test('both texts can be read from it, in any script', () => {
  const pairs = [['', 'new'], ['old', ''], ['一只猫坐在沙发上', '一只狗坐在沙发上'], ['قطة على الأريكة', 'كلب على الأريكة'], ['a\n\n  b', 'a b'], ['<b>x</b>', '<i>x</i>'], ['🦅 perches', '🦅 flies']];
  for (const [one, other] of pairs) {
    const changes = wordDiff(one, other);
    assert.equal(before(changes), one);
    assert.equal(after(changes), other);
  }
});

test('in a script without spaces, words are still words', () => {
  assert.ok(wordDiff('一只猫坐在沙发上', '一只狗坐在沙发上').some(({ kind, text }) => kind === 'same' && text.includes('沙发')));
});

test('endless texts, or ones with nothing in common, end soon and whole', () => {
  const one = 'a b '.repeat(50_000);
  const changes = wordDiff(one, 'c');
  assert.deepEqual(changes.map(({ kind }) => kind), ['removed', 'added']);
  const [left, right] = [0, 1].map((seed) => Array.from({ length: 4000 }, (_, index) => `w${index * 2 + seed}`).join(' '));
  const began = performance.now();
  assert.equal(after(wordDiff(left, right)), right);
  assert.ok(performance.now() - began < 5000);
});
