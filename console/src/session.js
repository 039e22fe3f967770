/**
 * Who is signed in. Locally a cookie says so; on AWS people sign in at the user pool, with an authorization code and PKCE.
 *
 * The ID token is in memory alone, the refresh token in this tab's sessionStorage: docs/decisions/0013-sign-in.md.
 */
import { useEffect, useState } from 'preact/hooks';
import { dropAllDrafts } from './drafts.js';
import { parsed } from './route.js';

/** @typedef {{issuer: string, url: string, client_id: string, scope: string}} Pool */
/** @typedef {{state: string, nonce: string, verifier: string, hash: string}} Begun what the answer to a sign-in is held against */
/** @typedef {{mode: 'cookie' | 'out' | 'in', name: string, sub: string, why: string, ended: boolean}} Session `ended`: it was, and what is shown stays */

/** Where the console is, whatever prefix it is under: its files lie one folder below. */
export const BASE = new URL('../', import.meta.url);

const REFRESH = 'captions-refresh';
const BEGUN = 'captions-sign-in';
/** Tokens are renewed this long before they end. */
const EARLY_MS = 60_000;
/** What a clock may be wrong by. */
const CLOCK_S = 30;

const ENDED = 'The session has ended. Sign in again.';
const FOREIGN = 'The answer is to no sign-in that was begun in this window. Sign in again.';
/** @type {Record<string, string>} what an authorization server may say (RFC 6749, 4.1.2.1 and 5.2), and what to do */
const SAID = {
  invalid_grant: 'The answer to this sign-in was used before, or came too late. Sign in again.',
  access_denied: 'The user pool let nobody in.',
  invalid_scope: 'The user pool does not give what the console asks for: it is of another version than the stack.',
};

/** Why nobody is signed in, for people. */
export class SignInError extends Error {}

/** Dispatches `change`. */
const changes = new EventTarget();

/** @type {Session} */
let current = { mode: 'cookie', name: '', sub: '', why: '', ended: false };
/** @type {Pool | null} */
let pool = null;
let searches = false;
/** @type {any} of ./oauth.js, loaded where somebody signs in */
let oauth = null;
let idToken = '';
let endsAt = 0;
/** @type {Promise<void> | null} one at a time: a refresh token is good once */
let renewing = null;

export const session = () => current;

/** Whether the stack keeps an index of captions. */
export const hasSearch = () => searches;

/** @returns {Session} drawn again when it changes */
export function useSession() {
  const [shown, show] = useState(current);
  useEffect(() => {
    const changed = () => show(current);
    changed();
    changes.addEventListener('change', changed);
    return () => changes.removeEventListener('change', changed);
  }, []);
  return shown;
}

/** @param {Partial<Session>} change */
function put(change) {
  current = { ...current, ...change };
  changes.dispatchEvent(new Event('change'));
}

/** Learn how people sign in here, and take up what this tab knows of it. Rejects where the server does not answer. */
export async function begin() {
  const response = await fetch(new URL('config.json', BASE), { credentials: 'same-origin' });
  if (!response.ok) throw new Error(`The console's server answered ${response.status}.`);
  ({ sign_in: pool, search: searches } = await response.json());
  if (!pool) return;
  oauth = await import('./oauth.js');
  const here = new URL(location.href);
  const answered = here.searchParams.has('code') || here.searchParams.has('error');
  // The code is good once, and for this page alone; even so it stays neither in the address nor in the history.
  if (here.search) history.replaceState(null, '', `${BASE.pathname}${here.hash}`);
  put({ mode: 'out' });
  try {
    if (answered) await finish(here.searchParams);
    else if (sessionStorage.getItem(REFRESH)) await renew();
  } catch (error) {
    put({ mode: 'out', ended: false, why: said(error) });
  }
}

const server = () => {
  const { issuer, url } = /** @type {Pool} */ (pool);
  return { issuer, authorization_endpoint: `${url}/oauth2/authorize`, token_endpoint: `${url}/oauth2/token`, revocation_endpoint: `${url}/oauth2/revoke` };
};
const client = () => ({ client_id: /** @type {Pool} */ (pool).client_id, token_endpoint_auth_method: 'none', [oauth.clockTolerance]: CLOCK_S });
// A user pool of AWS is never without TLS; a stand-in on this machine is.
const options = () => ({ [oauth.allowInsecureRequests]: new URL(/** @type {Pool} */ (pool).url).hostname === '127.0.0.1' });

/** Go to the user pool's own page; it leads back here, and then to where one is now. */
export async function signIn() {
  /** @type {Begun} */
  const begun = { state: oauth.generateRandomState(), nonce: oauth.generateRandomNonce(), verifier: oauth.generateRandomCodeVerifier(), hash: location.hash };
  sessionStorage.setItem(BEGUN, JSON.stringify(begun));
  const address = new URL(server().authorization_endpoint);
  address.search = new URLSearchParams({
    response_type: 'code', client_id: client().client_id, redirect_uri: BASE.href, scope: /** @type {Pool} */ (pool).scope, state: begun.state, nonce: begun.nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(begun.verifier), code_challenge_method: 'S256',
  }).toString();
  location.assign(address);
}

/** @param {URLSearchParams} answer */
async function finish(answer) {
  /** @type {Begun | null} */
  const begun = JSON.parse(sessionStorage.getItem(BEGUN) ?? 'null');
  sessionStorage.removeItem(BEGUN);
  if (!begun) throw new SignInError(FOREIGN);
  const checked = oauth.validateAuthResponse(server(), client(), answer, begun.state);
  const response = await oauth.authorizationCodeGrantRequest(server(), client(), oauth.None(), checked, BASE.href, begun.verifier, options());
  take(await oauth.processAuthorizationCodeResponse(server(), client(), response, { expectedNonce: begun.nonce, requireIdToken: true }));
  // Only a part of this very page, however the sign-in was begun.
  if (parsed(begun.hash)) history.replaceState(null, '', `${BASE.pathname}${begun.hash}`);
}

/** @param {any} answer of the token endpoint, which the library has checked: issuer, client, nonce and times */
function take(answer) {
  const claims = oauth.getValidatedIdTokenClaims(answer);
  if (!claims) throw new SignInError('The user pool gave no ID token.');
  idToken = answer.id_token;
  // By how long it is good, as this machine's clock may be wrong.
  endsAt = Date.now() + (claims.exp - claims.iat) * 1000;
  if (answer.refresh_token) sessionStorage.setItem(REFRESH, answer.refresh_token);
  put({ mode: 'in', name: claims.email ?? claims.sub, sub: claims.sub, why: '', ended: false });
}

/** Get new tokens. Rejects with a SignInError once there are none to be had; any other error may pass. */
function renew() {
  renewing ??= (async () => {
    const refresh = sessionStorage.getItem(REFRESH);
    if (!refresh) throw end(ENDED);
    try {
      const response = await oauth.refreshTokenGrantRequest(server(), client(), oauth.None(), refresh, options());
      take(await oauth.processRefreshTokenResponse(server(), client(), response));
    } catch (error) {
      const { error: name, code } = /** @type {any} */ (error);
      if (name === 'invalid_grant') throw end(ENDED);
      if (code === oauth.JWT_CLAIM_COMPARISON) throw end(said(error));
      throw error; // no answer, or that of a server in trouble: the next try may be luckier
    }
  })().finally(() => { renewing = null; });
  return renewing;
}

/** @param {string} why @returns {SignInError} */
export function end(why) {
  sessionStorage.removeItem(REFRESH);
  idToken = '';
  put({ why, ended: true });
  return new SignInError(why);
}

/** @returns {Promise<string | null>} the bearer token to ask the API with; null where a cookie does */
export async function bearer() {
  if (!pool) return null;
  if (current.ended) throw new SignInError(current.why);
  if (Date.now() > endsAt - EARLY_MS) await renew();
  return idToken;
}

/**
 * The API refused a token. @param {string | null} refused @returns {Promise<boolean>} whether there is a newer one to try
 */
export async function another(refused) {
  if (!pool) {
    if (!current.ended) end('This token is good no more. Open the address that `captions up` or `captions console` printed last.');
    return false;
  }
  if (idToken === refused) await renew();
  return true;
}

/** Ends the session here and at the user pool. */
export async function signOut() {
  const refresh = sessionStorage.getItem(REFRESH);
  sessionStorage.removeItem(REFRESH);
  dropAllDrafts();
  if (refresh) await oauth.revocationRequest(server(), client(), oauth.None(), refresh, options()).catch(() => {});
  const address = new URL(`${/** @type {Pool} */ (pool).url}/logout`);
  address.search = new URLSearchParams({ client_id: client().client_id, logout_uri: BASE.href }).toString();
  location.assign(address);
}

/** @param {any} error @returns {string} for people: never a token, a code or an address */
function said(error) {
  if (error instanceof SignInError) return error.message;
  if (error instanceof TypeError) return 'The user pool does not answer. Try again.';
  if (error.error) return SAID[error.error] ?? `The user pool refused: ${error.error}.`;
  if (error.code === oauth.JWT_TIMESTAMP_CHECK) return 'The token is not good now: is the clock of this machine right?';
  if (error.code === oauth.JWT_CLAIM_COMPARISON) {
    const claim = error.cause?.claim;
    return claim === 'nonce' ? FOREIGN : `The token is of another ${claim === 'iss' ? 'user pool' : 'application'}. Sign in again, or ask who runs the stack.`;
  }
  if (error.code === oauth.INVALID_RESPONSE) return FOREIGN;
  return 'The user pool answered what the console does not understand.';
}
