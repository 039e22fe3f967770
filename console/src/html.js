/** Templates: `html` makes Preact's nodes of tagged templates; every value in them is text, never markup. */
import htm from 'htm';
import { h } from 'preact';

export const html = htm.bind(h);
