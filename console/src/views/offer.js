/** What captioning once more would cost, before it is done. */
import { dollars, money } from '../format.js';
import { html } from '../html.js';
import { plain } from '../text.js';

/** @param {{verdicts: {offer: import('../types').Offer | null, recaption: () => void, decline: () => void, busy: boolean}}} props */
export const Offer = ({ verdicts }) => verdicts.offer && html`<div class="offer" role="alert">
  <p>Captioning it again by ${plain(verdicts.offer.model, 80)} costs about ${money(verdicts.offer.cost)}${verdicts.offer.most ? `, ${dollars(verdicts.offer.most)} at the most` : ''}.${verdicts.offer.unpriced.length ? ` No price is known of ${verdicts.offer.unpriced.map((name) => plain(name, 80)).join(', ')}.` : ''}</p>
  <p class="actions"><button class="primary" disabled=${verdicts.busy} onClick=${verdicts.recaption}>Caption it again <kbd>r</kbd></button><button onClick=${verdicts.decline}>Leave it</button></p></div>`;
