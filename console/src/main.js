/** The console: one page, its parts by route. */
import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { html } from './html.js';
import { link, useRoute } from './route.js';
import { begin, useSession } from './session.js';
import { AssetPage } from './pages/asset.js';
import { Costs } from './pages/costs.js';
import { Gallery } from './pages/gallery.js';
import { Live } from './pages/live.js';
import { Now } from './pages/now.js';
import { QualityPage } from './pages/quality.js';
import { Review } from './pages/review.js';
import { Search } from './pages/search.js';
import { Empty } from './views/pieces.js';
import { Shell, applyTheme } from './views/shell.js';
import { SignIn } from './views/sign-in.js';

/** @type {Record<string, [string, any]>} */
const PAGES = {
  '': ['Gallery', Gallery], search: ['Search', Search], asset: ['Asset', AssetPage], review: ['Review', Review], quality: ['Quality', QualityPage],
  costs: ['Costs', Costs], live: ['Live', Live], now: ['Caption now', Now],
};

function App() {
  const route = useRoute();
  const [title, Page] = PAGES[route.page] ?? ['Not here', Missing];
  useEffect(() => {
    document.title = `${title} · Captions`;
    // A screen reader hears which page has come, and the next Tab starts there.
    if (document.activeElement === document.body || !document.activeElement?.closest('main, dialog')) {
      /** @type {HTMLElement | null} */ (document.querySelector('main h1'))?.focus({ preventScroll: true });
    }
  }, [route.page, route.argument]);
  return html`<${Shell} page=${route.page}><${Page} key=${`${route.page}/${route.argument}`} argument=${route.argument} query=${route.query} /><//>`;
}

const Missing = () => html`<h1 tabindex="-1">There is no such page</h1><${Empty} title="Nothing here">Go to the <a href=${link('')}>gallery</a>.<//>`;

function Console() {
  const { mode } = useSession();
  return mode === 'out' ? html`<${SignIn} />` : html`<${App} />`;
}

/** @param {{error: Error}} props */
const Unreachable = ({ error }) => html`<main><h1>The console cannot start</h1><p class="failure" role="alert">${error.message}</p><button onClick=${() => location.reload()}>Try again</button></main>`;

const place = /** @type {HTMLElement} */ (document.getElementById('app'));
applyTheme();
begin().then(() => render(html`<${Console} />`, place), (error) => render(html`<${Unreachable} error=${error} />`, place));
