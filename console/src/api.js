/** The console's side of the API. */
import { serverSentEvents } from './events.js';
import { another, BASE, bearer, end, SignInError } from './session.js';

/** @typedef {import('./types').Problem} ProblemDetails */
/** @typedef {import('./types').Asset} Asset */

/** An answer that is none: RFC 9457's problem details, or that there was no answer (status 0). */
export class ApiError extends Error {
  /** @param {ProblemDetails} problem @param {string | null} [etag] */
  constructor(problem, etag = null) {
    super(problem.detail || problem.title || `the API answered ${problem.status}`);
    this.problem = problem;
    this.status = problem.status;
    this.etag = problem.etag ?? etag;
  }
}

/** @param {string} path @returns {string} below the console's own address */
export const address = (path) => new URL(path.replace(/^\/+/, ''), BASE).href;

/** @param {Record<string, unknown>} values @returns {string} "?a=b" without what is empty */
export function query(values) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return text && `?${text}`;
}

/**
 * @param {string} method @param {string} path
 * @param {{body?: unknown, form?: FormData, etag?: string | null, signal?: AbortSignal, accept?: string}} [options]
 * @returns {Promise<Response>}
 */
async function request(method, path, { body, form, etag, signal, accept = 'application/json' } = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: accept };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (etag) headers['If-Match'] = etag;
  if (method !== 'GET') headers['Idempotency-Key'] = crypto.randomUUID();
  /** @type {RequestInit} */
  const sent = { method, headers, signal, body: form ?? (body === undefined ? undefined : JSON.stringify(body)), credentials: 'same-origin' };
  let response;
  try {
    let token = await bearer();
    if (token) headers.Authorization = `Bearer ${token}`;
    response = await fetch(address(path), sent);
    if (response.status === 401 && await another(token)) {
      // What is refused at the door has had no effect: it can be sent again.
      token = await bearer();
      headers.Authorization = `Bearer ${token}`;
      response = await fetch(address(path), sent);
      if (response.status === 401) throw end('The API does not know this token. Sign in again.');
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    if (error instanceof SignInError) throw new ApiError({ status: 401, title: 'Not signed in', detail: error.message });
    throw new ApiError({ status: 0, title: 'The API does not answer', detail: 'The API does not answer.' });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new ApiError({ ...problem, status: response.status }, response.headers.get('ETag'));
}

/** @param {string} path @param {{signal?: AbortSignal}} [options] @returns {Promise<any>} */
export const get = async (path, options) => (await request('GET', path, options)).json();

/** @param {Response} response @returns {Promise<any>} */
const answered = async (response) => (response.status === 204 ? null : response.json());

/** @param {string} path @param {unknown} [body] @param {{etag?: string | null, signal?: AbortSignal}} [options] @returns {Promise<any>} */
export const post = async (path, body = {}, options = {}) => answered(await request('POST', path, { ...options, body }));

/** @param {string} id @param {string} [rest] @returns {string} */
export const assetPath = (id, rest = '') => `v1/assets/${encodeURIComponent(id)}${rest}`;

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Asset>} its ETag is in `etag` */
export async function asset(id, signal) {
  const response = await request('GET', assetPath(id), { signal });
  const found = await response.json();
  return { ...found, etag: response.headers.get('ETag') ?? found.etag };
}

/**
 * A person's verdict; rejects with an ApiError of status 412 if the record changed since `etag`.
 * @param {string} id @param {'accept' | 'undo'} verdict @param {string} etag @returns {Promise<Asset>}
 */
export const say = (id, verdict, etag) => written('POST', assetPath(id, `/${verdict}`), etag, {});

/** @param {string} id @param {string} text @param {string} etag @returns {Promise<Asset>} */
export const edit = (id, text, etag) => written('PATCH', assetPath(id), etag, { text });

/** @param {string} method @param {string} path @param {string} etag @param {unknown} body @returns {Promise<Asset>} */
async function written(method, path, etag, body) {
  const response = await request(method, path, { etag, body });
  const found = await response.json();
  return { ...found, etag: response.headers.get('ETag') ?? found.etag };
}

/**
 * A caption as it is being written.
 * @param {FormData} form @param {AbortSignal} signal
 * @returns {AsyncGenerator<{event: string, data: any}>}
 */
export async function* streamedCaption(form, signal) {
  const response = await request('POST', 'v1/captions:stream', { form, signal, accept: 'text/event-stream' });
  if (!response.body) return;
  for await (const { event, data } of serverSentEvents(response.body)) yield { event, data: JSON.parse(data) };
}

/** @param {string} path @returns {Promise<string>} a blob's URL; the caller revokes it */
export async function blobUrl(path) {
  const response = await request('GET', path, { accept: 'image/*' });
  return URL.createObjectURL(await response.blob());
}

/** From here on a file goes in parts, of which each can be sent again. */
const IN_PARTS_FROM = 64 * 1024 * 1024;
const TRIES = 3;

/**
 * Upload a file to the bucket with what the API signs for it. Resolves once S3 has it.
 * @param {File} file @param {(share: number) => void} progress 0 to 1
 * @returns {Promise<{id: string, key: string}>}
 */
export async function upload(file, progress) {
  const wanted = { name: file.name, size: file.size, media_type: /^[\w.+-]+\/[\w.+-]+$/.test(file.type) ? file.type : 'application/octet-stream' };
  if (file.size >= IN_PARTS_FROM) return uploadParts(file, wanted, progress);
  const form = await post('v1/uploads', wanted);
  const data = new FormData();
  for (const [name, value] of Object.entries(form.fields)) data.append(name, /** @type {string} */ (value));
  data.append('file', file);
  await sent('POST', form.url, data, progress);
  return { id: form.id, key: form.key };
}

/** @param {File} file @param {object} wanted @param {(share: number) => void} progress @returns {Promise<{id: string, key: string}>} */
async function uploadParts(file, wanted, progress) {
  const begun = await post('v1/uploads/multipart', wanted);
  const parts = [];
  try {
    for (let number = 1; number <= begun.parts; number += 1) {
      const part = file.slice((number - 1) * begun.part_size, number * begun.part_size);
      for (let attempt = 1; ; attempt += 1) {
        try {
          // A link for each part and try: none outlives five minutes, and a slow line takes longer for all of them.
          const { urls } = await post('v1/uploads/multipart/parts', { upload: begun.upload, numbers: [number] });
          const answer = await sent('PUT', urls[number], part, (share) => progress((number - 1 + share) / begun.parts));
          parts.push({ number, etag: answer.getResponseHeader('ETag') ?? '' });
          break;
        } catch (error) {
          if (attempt === TRIES) throw error;
        }
      }
    }
    return await post('v1/uploads/multipart/complete', { upload: begun.upload, parts });
  } catch (error) {
    post('v1/uploads/multipart/abort', { upload: begun.upload }).catch(() => {});
    throw error;
  }
}

/**
 * fetch does not tell how much of a body was sent.
 * @param {string} method @param {string} url @param {FormData | Blob} body @param {(share: number) => void} progress
 * @returns {Promise<XMLHttpRequest>}
 */
const sent = (method, url, body, progress) => new Promise((resolve, reject) => {
  const sending = new XMLHttpRequest();
  sending.open(method, url);
  sending.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
  sending.onload = () => (sending.status < 300 ? resolve(sending) : reject(new Error(`the bucket answered ${sending.status}`)));
  sending.onerror = () => reject(new Error('the bucket could not be reached'));
  sending.send(body);
});
