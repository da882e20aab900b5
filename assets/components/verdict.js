// What was found behind a question, in plain words, and behind a button how sure it is. Needs tokens.js before it.

/* global make, fillText, readTheme */

/**
 * @typedef {object} VerdictData
 * @property {string} asked
 * @property {"strong" | "some" | "none" | ""} state Empty where evidence isn't judged, or not yet.
 * @property {string} headline The state in words.
 * @property {string} sentence What was found.
 * @property {string} progress What is still on its way; may be empty.
 * @property {string[]} sure The lines behind "How sure is this?".
 */

class Verdict {
  /** @param {ShadowRoot | HTMLElement} parent */
  constructor(parent) {
    this.root = make("section", "verdict");
    this.root.setAttribute("aria-label", "What was found");
    this.asked = make("div", "asked");
    this.found = make("div", "found");
    this.headline = make("strong", "headline");
    this.sentence = make("span", "sentence");
    this.found.append(this.headline, " ", this.sentence);
    this.found.setAttribute("role", "status");
    this.sure = make("details", "sure");
    const row = make("summary", "", "How sure is this?");
    this.progress = make("span", "progress");
    this.lines = make("ul");
    this.sure.append(row, this.lines);
    this.root.append(this.asked, this.found, this.sure, this.progress);
    parent.append(this.root);
  }

  /** @param {VerdictData} data */
  draw(data) {
    readTheme(this.root);
    if (data.state) this.root.dataset.state = data.state;
    else delete this.root.dataset.state;
    const texts = { asked: data.asked, headline: data.headline, sentence: data.sentence, progress: data.progress };
    for (const [name, text] of Object.entries(texts)) {
      const element = /** @type {Record<string, HTMLElement>} */ (/** @type {unknown} */ (this))[name];
      // What is the same isn't written again: screen readers would say it again.
      if (element.dataset.text !== text) fillText(element, text);
      element.dataset.text = text;
      element.hidden = text === "";
    }
    this.sure.hidden = data.sure.length === 0;
    this.lines.replaceChildren(
      ...data.sure.map((line) => {
        const item = make("li");
        fillText(item, line);
        return item;
      }),
    );
  }
}

/** @type {WeakMap<object, Verdict>} Streamlit calls again at each change: one instance a place. */
const verdicts = new WeakMap();

/**
 * Streamlit's entry: called on mounting and again whenever data or theme changed.
 * @param {{data: VerdictData | null, parentElement: ShadowRoot | HTMLElement}} component
 */
export default function ({ data, parentElement }) {
  const verdict = verdicts.get(parentElement) ?? new Verdict(parentElement);
  verdicts.set(parentElement, verdict);
  if (data) verdict.draw(data);
}
