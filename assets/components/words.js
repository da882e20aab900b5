// The words that set a group of examples apart, as buttons, and where a word stands in a text.
// Needs tokens.js before it.

/* global make, fillText */

/**
 * @typedef {object} WordData
 * @property {string} text
 * @property {number[]} rows The shown examples that hold it.
 * @property {number} shown How many examples are shown.
 * @property {number} holders How many of all examples hold it.
 * @property {number} of How many examples there are.
 */

/** A row of words; at most one of them is chosen. */
class Words {
  constructor() {
    this.root = make("div", "words");
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", "Words that are typical of these examples");
    this.drawn = "";
    this.chosen = "";
    /** @type {WordData[]} */ this.words = [];
    /** @type {(word: WordData | null) => void} */ this.choose = () => {};
    this.root.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      const word = button && this.words[Number(button.dataset.index)];
      if (word) this.pick(word.text === this.chosen ? "" : word.text);
    });
  }

  /** @param {WordData[]} words */
  draw(words) {
    const mark = JSON.stringify(words);
    if (this.drawn === mark) return;
    this.drawn = mark;
    this.words = words;
    this.root.hidden = words.length === 0;
    const label = make("span", "label", "Typical words");
    label.title = "They stand in more of these examples than chance would put there (Dunning's G², by examples).";
    this.root.replaceChildren(label, ...words.map((word, index) => this.button(word, index)));
    this.pick(this.chosen);
  }

  /** @param {WordData} word @param {number} index @returns {HTMLElement} */
  button(word, index) {
    const button = /** @type {HTMLButtonElement} */ (make("button", "word"));
    button.type = "button";
    button.dataset.index = String(index);
    const text = make("b");
    fillText(text, word.text);
    const counts = `${word.rows.length} of ${word.shown}, ${word.holders.toLocaleString("en")} of ${word.of.toLocaleString("en")}`;
    button.append(text, ` ${counts}`);
    button.title = `In ${word.rows.length} of the ${word.shown} shown examples, in ${word.holders} of all ${word.of}. Marks it in the cards.`;
    return button;
  }

  /** @param {string} text */
  pick(text) {
    const word = this.words.find((one) => one.text === text) ?? null;
    this.chosen = word ? text : "";
    for (const button of this.root.querySelectorAll("button")) {
      const here = this.words[Number(button.dataset.index)]?.text;
      button.setAttribute("aria-pressed", String(here === this.chosen));
    }
    this.choose(word);
  }
}

/** Finds a whole word in any case. @param {string} word @returns {RegExp} */
function wordPattern(word) {
  const escaped = word.normalize("NFC").replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
  const within = "[\\p{L}\\p{N}\\p{M}]";
  return new RegExp(`(?<!${within}['’\\-]?)${escaped}(?!['’\\-]?${within})`, "giu");
}

/**
 * Shows untrusted text in an element, a word in it marked.
 * @param {HTMLElement} element @param {string} text @param {string} word Empty for none.
 */
function fillHits(element, text, word) {
  if (word === "") return fillText(element, text);
  /** @type {HTMLElement[]} */
  const parts = [];
  const add = (/** @type {string} */ tag, /** @type {string} */ piece) => {
    if (piece === "") return;
    const part = make(tag, tag === "mark" ? "hit" : "");
    fillText(part, piece);
    parts.push(part);
  };
  let end = 0;
  for (const match of text.matchAll(wordPattern(word))) {
    add("span", text.slice(end, match.index));
    add("mark", match[0]);
    end = match.index + match[0].length;
  }
  add("span", text.slice(end));
  element.replaceChildren(...parts);
}

/**
 * Which tokens a word touches; it may begin in one and end in another.
 * @param {TokenView[]} tokens @param {string} word Empty for none. @returns {Set<number>}
 */
function hitTokens(tokens, word) {
  /** @type {Set<number>} */
  const hits = new Set();
  if (word === "") return hits;
  const texts = tokens.map((token) => (token.special ? "\u0000" : token.text));
  const found = [...texts.join("").matchAll(wordPattern(word))].map((match) => [match.index, match.index + match[0].length]);
  let start = 0;
  texts.forEach((text, index) => {
    const stop = start + text.length;
    if (found.some(([from, to]) => from < stop && start < to)) hits.add(index);
    start = stop;
  });
  return hits;
}
