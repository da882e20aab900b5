// Asking Python for news, again and again while there is more to come. Prepended to strip.js, column.js and pulse.js.

const POLL_MS = 300;
const LOST_MS = 5000;
const LOST_MAX_MS = 40000;
/** How long nothing is asked after a click on a link. */
const LEAVING_MS = 3000;
/** So many times as long as an answer took nothing is asked after it, */
const RESTS = 4;
/** but no longer than this: a busy server is asked less often, and has its time for answers. */
const RESTS_MAX_MS = 5000;
/** The document's own note of the moment, shared by all components however often this file is loaded. */
const LEAVING = "rapidinLeavingUntil";

/**
 * Between a click on a link and the first news of the new page, Streamlit (1.67) takes a question of the old page for a
 * return to it: the new page would be drawn and then come up blank.
 */
function watchLinks() {
  if (LEAVING in window) return;
  const note = () => Reflect.set(window, LEAVING, Date.now() + LEAVING_MS);
  Reflect.set(window, LEAVING, 0);
  window.addEventListener("popstate", note);
  document.addEventListener(
    "click",
    (event) => {
      const elsewhere = event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey;
      const onLink = event.composedPath().some((part) => part instanceof HTMLAnchorElement && part.target !== "_blank");
      if (onLink && !elsewhere) note();
    },
    true,
  );
}

/**
 * Asks again a moment after each drawing, so that two questions never overlap, and the later the longer the last
 * answer took. Should an answer get lost, it asks once more after 5 s, then 10 s, up to 40 s apart.
 */
class Poller {
  constructor() {
    watchLinks();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.ask = () => {};
    this.turn = 0;
    /** When Python was asked last, unless it answered since. @type {number | undefined} */
    this.asked = undefined;
  }

  /**
   * @param {boolean} active @param {() => void} ask With the newest means of asking. @param {number} [wait] ms
   * @returns {() => void} Ends it, unless it was drawn again since.
   */
  drawn(active, ask, wait = POLL_MS) {
    this.ask = ask;
    this.stop();
    const took = this.asked === undefined ? 0 : performance.now() - this.asked;
    this.asked = undefined;
    const rest = Math.max(wait, Math.min(RESTS * took, RESTS_MAX_MS));
    if (active) this.timer = setTimeout(() => this.fire(LOST_MS), rest);
    const turn = ++this.turn;
    return () => {
      if (this.turn === turn) this.stop();
    };
  }

  /** Something else has just been sent and its answer will bring news as well. */
  defer() {
    if (this.timer === undefined) return;
    this.stop();
    this.timer = setTimeout(() => this.fire(2 * LOST_MS), LOST_MS);
  }

  /** @param {number} patience Milliseconds to wait for the answer. */
  fire(patience) {
    const left = Reflect.get(window, LEAVING) - Date.now();
    if (left > 0) {
      this.timer = setTimeout(() => this.fire(patience), left);
      return;
    }
    this.timer = setTimeout(() => this.fire(Math.min(2 * patience, LOST_MAX_MS)), patience);
    this.asked ??= performance.now();
    this.ask();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = undefined;
  }
}
