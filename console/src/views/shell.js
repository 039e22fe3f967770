/** What stands around every page: navigation, theme, notices, and the list of keys. */
import { useEffect, useState } from 'preact/hooks';
import { html } from '../html.js';
import { keysOn, setKeysOn, useKeys } from '../keys.js';
import { notices } from '../notices.js';
import { link } from '../route.js';
import { signOut, useSession } from '../session.js';
import { plain } from '../text.js';
import { Icon } from './icons.js';
import { Brand, Dialog } from './pieces.js';
import { Ended } from './sign-in.js';

/** @type {[string, string, string][]} page, name, key after g */
const PAGES = [['', 'Gallery', 'g'], ['search', 'Search', 's'], ['review', 'Review', 'r'], ['quality', 'Quality', 'q'], ['costs', 'Costs', 'c'], ['live', 'Live', 'l'], ['now', 'Caption now', 'n']];

/** @type {[string, [string, string][]][]} */
const KEYS = [
  ['Everywhere', [['?', 'these keys'], ['g then g s r q c l n', 'go to a page'], ['/', 'search']]],
  ['Gallery', [['← → ↑ ↓', 'move'], ['Enter', 'open'], ['Space', 'quick look, play'], ['u', 'upload']]],
  ['Asset', [['a', 'accept'], ['e', 'edit'], ['r', 'recaption'], ['u', 'undo'], ['Esc', 'back']]],
  ['Review', [['j, k', 'next, previous'], ['a', 'accept'], ['e', 'edit in place'], ['Ctrl Enter', 'save'], ['Esc', 'leave the text as it was'], ['r', 'recaption'], ['u', 'undo'], ['d', 'show the difference']]],
];

/** @param {{page: string, children?: any}} props */
export function Shell({ page, children }) {
  const [help, setHelp] = useState(false);
  const chord = useChord();
  const person = useSession();
  useKeys({ '?': () => setHelp(true), ...chord });
  const current = page === 'asset' ? '' : page;
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="bar">
      <a href=${link('')}><${Brand} /></a>
      <nav aria-label="Main">${PAGES.map(([id, name]) => html`<a key=${id} href=${link(id)} aria-current=${id === current ? 'page' : undefined}><${Icon} name=${id || 'gallery'} /><span>${name.split(' ')[0]}${name.includes(' ') && html`<span class="rest"> ${name.slice(name.indexOf(' ') + 1)}</span>`}</span></a>`)}</nav>
      <div class="tools">${person.mode === 'in' && html`<button class="icon-only" aria-label="Sign out, ${plain(person.name, 60)}" title="Sign out, ${plain(person.name, 60)}" onClick=${signOut}><${Icon} name="leave" /></button>`}<${Theme} /><button class="icon-only" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick=${() => setHelp(true)}><${Icon} name="keys" /></button></div>
    </header>
    <main id="main" tabindex="-1">${children}</main>
    <${Toasts} />
    <${Ended} />
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

/** "g" and then a letter goes to a page. */
function useChord() {
  const [begun, setBegun] = useState(0);
  const waiting = () => Date.now() - begun < 1500;
  /** @type {Record<string, () => void>} */
  const keys = { g: () => (waiting() ? go('') : setBegun(Date.now())) };
  if (begun) {
    for (const [page, , key] of PAGES.slice(1)) keys[key] = () => waiting() && go(page);
  }
  /** @param {string} page */
  const go = (page) => {
    setBegun(0);
    location.hash = link(page);
  };
  useEffect(() => {
    if (!begun) return undefined;
    const timer = setTimeout(() => setBegun(0), 1500);
    return () => clearTimeout(timer);
  }, [begun]);
  return keys;
}

const THEMES = ['system', 'light', 'dark'];
const THEME = 'captions-theme';

/** Take up the theme that was chosen before. */
export function applyTheme() {
  const chosen = localStorage.getItem(THEME);
  if (chosen && THEMES.includes(chosen)) document.documentElement.dataset.theme = chosen;
}

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? 'system');
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const change = () => {
    document.documentElement.dataset.theme = next;
    localStorage.setItem(THEME, next);
    setTheme(next);
  };
  return html`<button class="icon-only" aria-label="Theme: ${theme}. Change to ${next}." title="Theme: ${theme}" onClick=${change}>
    <${Icon} name=${{ system: 'system', light: 'sun', dark: 'moon' }[theme] ?? 'system'} /></button>`;
}

function Toasts() {
  const [list, setList] = useState(notices.current);
  useEffect(() => {
    const changed = () => setList(notices.current);
    notices.addEventListener('change', changed);
    return () => notices.removeEventListener('change', changed);
  }, []);
  return html`<section class="toasts" aria-label="Messages" aria-live="polite">${list.map((notice) => html`<div key=${notice.id} class="toast ${notice.tone}">
    <span>${notice.text}</span><button class="icon-only" aria-label="Dismiss" onClick=${() => notices.dismiss(notice.id)}><${Icon} name="close" /></button></div>`)}</section>`;
}

/** @param {{onClose: () => void}} props */
function Help({ onClose }) {
  const [on, setOn] = useState(keysOn());
  const licences = document.querySelector('link[rel=license]')?.getAttribute('href');
  return html`<${Dialog} title="Keyboard shortcuts" onClose=${onClose} wide>
    <div class="keys">${KEYS.map(([where, keys]) => html`<section key=${where}><h3>${where}</h3><dl>${keys.map(([key, does]) => html`<div key=${key}><dt>${key.split(' ').map((part) =>
      /^(then|,)$/.test(part) ? ` ${part} ` : html`<kbd>${part.replace(',', '')}</kbd> `)}</dt><dd>${does}</dd></div>`)}</dl></section>`)}</div>
    <label class="check"><input type="checkbox" checked=${on} onChange=${() => { setKeysOn(!on); setOn(!on); }} /> Single keys are shortcuts</label>
    ${licences && html`<p><a href=${licences} target="_blank" rel="noopener">Licences of what the console is made of</a></p>`}
  <//>`;
}
