// The help sheet: a button, and a dialog with all keys and words that `?` opens on any page. The browser's own
// dialog keeps the focus within, closes on Escape, and gives the focus back. And the way past the row of pages, which
// stands on every page, too. Needs tokens.js before it.

/* global make, readTheme */

/** @typedef {{keys: [string, string][], words: [string, string][]}} HelpData */

/** Where a question mark is text, not a key. */
const FIELDS = "input, textarea, select, [contenteditable=''], [contenteditable='true']";

class HelpSheet {
  /** @param {ShadowRoot | HTMLElement} parent */
  constructor(parent) {
    this.root = make("div", "help");
    this.button = make("button", "open", "Help");
    this.button.setAttribute("type", "button");
    this.button.title = "Keys and words (press ?)";
    this.button.setAttribute("aria-label", "Help: keys and words");
    this.button.append(make("kbd", "", "?"));
    this.button.addEventListener("click", () => this.open());
    this.dialog = /** @type {HTMLDialogElement} */ (make("dialog"));
    this.dialog.setAttribute("aria-labelledby", "title");
    // A click beside the sheet is a click on the dialog itself.
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.root.append(this.button, this.dialog);
    parent.append(this.root);
    /** @param {KeyboardEvent} event */
    this.listener = (event) => this.key(event);
    document.addEventListener("keydown", this.listener);
    /** @param {MouseEvent} event */
    this.skipper = (event) => this.skip(event);
    document.addEventListener("click", this.skipper, true);
  }

  /** @param {HelpData} data */
  draw(data) {
    readTheme(this.root);
    if (this.dialog.childElementCount) return;
    const sheet = make("div", "sheet");
    const title = make("h2", "", "Keys and words");
    title.id = "title";
    const close = make("button", "close", "Close");
    close.setAttribute("type", "button");
    close.addEventListener("click", () => this.dialog.close());
    const head = make("div", "head");
    head.append(title, close);
    const keys = list(data.keys.map(([key, does]) => [make("kbd", "", key), does]));
    keys.className = "keys";
    const words = list(data.words.map(([word, means]) => [make("b", "", word), means]));
    words.className = "words";
    const body = make("div", "body");
    // What scrolls must be reachable by keyboard.
    body.tabIndex = 0;
    body.setAttribute("role", "region");
    body.setAttribute("aria-label", "All keys and words");
    body.append(make("h3", "", "Keys"), keys, make("h3", "", "Words"), words);
    sheet.append(head, body);
    this.dialog.append(sheet);
  }

  open() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    // Left behind by a page that is gone.
    if (!this.root.isConnected) return document.removeEventListener("keydown", this.listener);
    const target = event.composedPath()[0];
    const typing = target instanceof Element && target.closest(FIELDS) !== null;
    if (event.key !== "?" || typing || event.ctrlKey || event.altKey || event.metaKey) return undefined;
    event.preventDefault();
    return this.open();
  }

  /** Streamlit's link to the main content stops before the row of pages, which is a part of that. @param {MouseEvent} event */
  skip(event) {
    if (!this.root.isConnected) return document.removeEventListener("click", this.skipper, true);
    const link = event.target instanceof Element && event.target.closest("[data-testid=stSkipToContent]");
    const row = document.querySelector(".st-key-navigation");
    const content = row?.parentElement?.nextElementSibling;
    if (!link || !(content instanceof HTMLElement)) return undefined;
    event.preventDefault();
    event.stopPropagation();
    content.tabIndex = -1;
    return content.focus();
  }
}

/** @param {[HTMLElement, string][]} rows A term and its description each. @returns {HTMLElement} */
function list(rows) {
  const found = make("dl");
  for (const [term, text] of rows) {
    const name = make("dt");
    name.append(term);
    found.append(name, make("dd", "", text));
  }
  return found;
}

/** @type {WeakMap<object, HelpSheet>} */
const sheets = new WeakMap();

/**
 * Streamlit's entry: called on mounting and again whenever data or theme changed.
 * @param {{data: HelpData | null, parentElement: ShadowRoot | HTMLElement}} component
 */
export default function ({ data, parentElement }) {
  const sheet = sheets.get(parentElement) ?? new HelpSheet(parentElement);
  sheets.set(parentElement, sheet);
  if (data) sheet.draw(data);
}
