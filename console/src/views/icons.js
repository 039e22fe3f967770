/** Icons, drawn in the colour of the text beside them. They say nothing that words do not. */
import { html } from '../html.js';

/** @type {Record<string, string>} paths in a field of 24 x 24 */
const PATHS = {
  gallery: 'M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z',
  review: 'M4 6h10M4 12h7M4 18h6M14 16l3 3 5-7',
  quality: 'M4 20V10M10 20V4M16 20v-7M22 20H2',
  costs: 'M12 3v18M16.5 7.5c-1-1.3-2.6-2-4.5-2-2.500 0-4.500 1.200-4.500 3.200 0 4.300 9.500 2.300 9.500 6.600 0 2-2.200 3.200-5 3.200-2.100 0-4-.800-5-2.200',
  live: 'M2 12h4l3-8 5 16 3-8h5',
  now: 'M13 2 5 14h6l-1 8 8-12h-6z',
  search: 'M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16 16l5 5',
  upload: 'M12 16V4M7 9l5-5 5 5M4 16v4h16v-4',
  audio: 'M4 10v4M8 6v12M12 3v18M16 7v10M20 10v4',
  video: 'M3 5h18v14H3zM10 9l5 3-5 3z',
  image: 'M3 5h18v14H3zM3 16l5-5 5 5 3-3 5 4M15 9h.01',
  file: 'M6 3h8l5 5v13H6zM14 3v5h5',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600 19 19M5 19l1.400-1.400M17.600 6.400 19 5',
  moon: 'M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z',
  system: 'M3 4h18v12H3zM8 20h8M12 16v4',
  keys: 'M2 6h20v12H2zM6 10h.01M10 10h.01M14 10h.01M18 10h.01M7 14h10',
  close: 'M5 5l14 14M19 5 5 19',
  back: 'M15 5l-7 7 7 7',
  next: 'M9 5l7 7-7 7',
  check: 'M4 12l6 6L20 6',
  edit: 'M4 20h4L20 8l-4-4L4 16z',
  again: 'M20 11a8 8 0 1 0-2 6M20 5v6h-6',
  undo: 'M8 5 3 10l5 5M3 10h11a6 6 0 0 1 0 12h-3',
  play: 'M7 4l13 8-13 8z',
  person: 'M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M4 21c1-5 4-7 8-7s7 2 8 7',
  leave: 'M14 4H5v16h9M10 12h11M17 8l4 4-4 4',
  flag: 'M5 22V3h13l-3 5 3 5H5',
};

/** @param {{name: string}} props */
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name] ?? PATHS.file} /></svg>`;
