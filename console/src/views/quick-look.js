/** An upload at a glance, over the gallery: played, with its words following. */
import { useGet } from '../loading.js';
import { assetPath } from '../api.js';
import { html } from '../html.js';
import { link } from '../route.js';
import { plain } from '../text.js';
import { Media } from './media.js';
import { Dialog, Failure, Loading } from './pieces.js';
import { Words } from './words.js';

/** @param {{id: string, name: string, onClose: () => void}} props */
export function QuickLook({ id, name, onClose }) {
  const { value: asset, error, again } = useGet(assetPath(id));
  return html`<${Dialog} title=${plain(name, 100)} onClose=${onClose} wide>
    <${Failure} error=${error} again=${again} />
    ${!asset && !error && html`<${Loading} />`}
    ${asset && html`<${Media} asset=${asset} renew=${again} />
      ${!asset.result?.data?.segments?.length && html`<${Words} text=${asset.result?.text ?? asset.reason?.message ?? ''} lang=${asset.language} />`}
      <p><a href=${link('asset', id)}>Open</a></p>`}
  <//>`;
}
