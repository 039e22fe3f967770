/** Short messages at the page's edge, which screen readers hear as well. */

/** @typedef {{id: number, text: string, tone: 'info' | 'good' | 'bad'}} Notice */

const SECONDS = 7;

class Notices extends EventTarget {
  /** @type {Notice[]} */
  current = [];
  #next = 1;

  /** @param {string} text @param {'info' | 'good' | 'bad'} [tone] an error stays until it is dismissed */
  say(text, tone = 'info') {
    const notice = { id: this.#next++, text, tone };
    this.current = [...this.current.filter((other) => other.text !== text).slice(-3), notice];
    this.dispatchEvent(new Event('change'));
    if (tone !== 'bad') setTimeout(() => this.dismiss(notice.id), SECONDS * 1000);
  }

  /** @param {number} id */
  dismiss(id) {
    this.current = this.current.filter((notice) => notice.id !== id);
    this.dispatchEvent(new Event('change'));
  }
}

export const notices = new Notices();
