/** What captioning once more would cost, before it is done. */
import { money } from '../format.js';
import { html } from '../html.js';

/** @param {{verdicts: {offer: {cost: import('../types').Money | null} | null, recaption: () => void, decline: () => void, busy: boolean}}} props */
export const Offer = ({ verdicts }) => verdicts.offer && html`<div class="offer" role="alert">
  <p>Captioning it again costs about ${money(verdicts.offer.cost)}.</p>
  <p class="actions"><button class="primary" disabled=${verdicts.busy} onClick=${verdicts.recaption}>Caption it again <kbd>r</kbd></button><button onClick=${verdicts.decline}>Leave it</button></p></div>`;
