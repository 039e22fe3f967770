/** Code as a tree of tokens; loaded only where code is shown. */
import { common, createLowlight } from 'lowlight';

const lowlight = createLowlight(common);

/** @param {string} text @param {string} language as a model called it @returns {any[]} nodes of a hast tree */
export function highlighted(text, language) {
  const name = language.trim().toLowerCase();
  if (lowlight.registered(name)) return lowlight.highlight(name, text).children;
  const guessed = lowlight.highlightAuto(text.slice(0, 20_000));
  const best = guessed.data?.language;
  return best ? lowlight.highlight(best, text).children : guessed.children;
}
