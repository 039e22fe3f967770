/** What is seen before somebody has signed in, and when a session ends. */
import { useEffect, useState } from 'preact/hooks';
import { html } from '../html.js';
import { signIn, useSession } from '../session.js';
import { Brand, Dialog } from './pieces.js';

export function SignIn() {
  const { why } = useSession();
  useEffect(() => {
    document.title = 'Sign in · Captions';
    /** @type {HTMLElement | null} */ (document.querySelector('main h1'))?.focus({ preventScroll: true });
  }, []);
  return html`<main class="sign-in"><p><${Brand} /></p><h1 tabindex="-1">Sign in</h1>
    ${why && html`<p class="failure" role="alert">${why}</p>`}
    <p>Your user pool asks for your name and password on a page of its own, and leads back here. Whoever runs the stack adds people.</p>
    <p class="actions"><button class="primary" onClick=${signIn}>Sign in</button></p></main>`;
}

/** The page stays as it is, so that what is being written can be seen, and goes on after signing in. */
export function Ended() {
  const { ended, mode, why } = useSession();
  const [closed, setClosed] = useState(false);
  useEffect(() => setClosed(false), [ended]);
  if (!ended || closed) return null;
  return html`<${Dialog} title="Nobody is signed in" onClose=${() => setClosed(true)}><p>${why}</p>
    ${mode === 'in' && html`<p>What you were writing is kept in this tab until you are back.</p>
      <p class="actions"><button class="primary" onClick=${signIn}>Sign in</button></p>`}<//>`;
}
