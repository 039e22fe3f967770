import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blocks, characters, clipped, pieces, plain } from '../src/text.js';

const shown = (text) => pieces(text).map((piece) => (piece.control ? `[${piece.text}]` : piece.text)).join('');

test('characters that would reorder what stands around them are named', () => {
  assert.equal(shown('a\u202egpj.exe\u202c'), 'a[RLO]gpj.exe[PDF]');
  assert.equal(shown('\u2066x\u2069'), '[LRI]x[PDI]');
});

test('characters that show nothing are named', () => {
  assert.equal(shown('pay\u200bpal\ufeff'), 'pay[ZWSP]pal[BOM]');
  assert.equal(shown('a\u0000b\u0007c\u009b'), 'a[U+0000]b[U+0007]c[U+009B]');
  assert.equal(shown('tag \u{e0041}'), 'tag [U+E0041]');
  assert.equal(shown('half \ud83d'), 'half [U+D83D]');
});

test('lines, emoji and the joiners that scripts need stay as they are', () => {
  const text = 'one\r\ntwo\tthree 👩‍👩‍👧 می‌خواهم \u200fعربي';
  assert.equal(shown(text), text);
});

test('every piece together is the text without its controls', () => {
  const text = 'x\u202ey\u202cz';
  assert.equal(pieces(text).filter((piece) => !piece.control).map((piece) => piece.text).join(''), 'xyz');
});

test('a label is short and has no controls', () => {
  assert.equal(plain('a\u202eb'), 'a⟨RLO⟩b');
  assert.equal(plain('k'.repeat(1000), 20), `${'k'.repeat(20)}…`);
});

test('characters are counted as the pipeline counts them', () => {
  for (const text of ['', 'é', 'e\u0301', '🦅', '🦅🦅 ab', '\ud83d']) assert.equal(characters(text), [...text].length);
});

test('a character is never halved', () => {
  assert.equal(clipped('ab🦅', 3), 'ab…');
  assert.ok(blocks('🦅'.repeat(50), 7).every((block) => !/^[\udc00-\udfff]|[\ud800-\udbff]$/.test(block)));
});

test('blocks are the whole text, cut where it is not seen', () => {
  const text = `${'word '.repeat(3000)}\nlast`;
  const cut = blocks(text, 100);
  assert.equal(cut.join(''), text);
  assert.ok(cut.every((block) => block.length <= 100));
  assert.ok(cut.slice(0, -1).every((block) => /\s$/.test(block)));
});

test('a million characters are cut in no time', () => {
  const began = performance.now();
  assert.equal(blocks('x'.repeat(1_000_000)).join('').length, 1_000_000);
  assert.ok(performance.now() - began < 1000);
});
