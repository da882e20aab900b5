// What stands beneath the answer's tokens: the legend of their colours, the number of one of them,
// and what the model might have said instead. Needs tokens.js before it; prepended to strip.js.

/* global readToken, tokenName, shown, fillText, make, signed */

/**
 * @typedef {object} Colouring
 * @property {(number | null)[] | null} values One a token; null while not known.
 * @property {number} scale The |value| of full colour.
 * @property {"nats" | "probability" | "influence"} unit
 * @property {string} low What the scale's lower end means.
 * @property {string} high
 * @property {boolean} signed Whether the scale begins at −scale, not at 0.
 * @property {number} faint Tokens whose |value| is less are greyed.
 */
/** @typedef {{id: number, token: WireToken, probability: number, said: boolean, chosen: boolean}} Choice */

/** What a word's mark says of where it comes from. @type {Record<string, string>} */
const MARKS = {
  strong: "strong evidence",
  some: "some evidence",
  verbatim: "word for word in the data",
  base: "the base model’s own",
};

/** The legend of the colours, the number of one token, and what the model might have said instead. */
class Beneath {
  /** @param {(token: number) => void} choose */
  constructor(choose) {
    this.root = make("div", "beneath");
    this.scale = make("div", "legend");
    this.scale.setAttribute("role", "img");
    this.low = make("span", "end");
    this.bar = make("span", "bar");
    this.high = make("span", "end");
    this.scale.append(this.low, this.bar, this.high);
    this.readout = make("div", "readout");
    // Each token's own name holds the same for screen readers.
    this.readout.setAttribute("aria-hidden", "true");
    this.choices = make("div", "choices");
    this.choices.setAttribute("role", "group");
    this.choices.setAttribute("aria-label", "What the model might have said instead of the selected token");
    this.root.append(this.scale, this.readout, this.choices);
    this.drawn = "";
    this.choose = choose;
  }

  /** @param {Colouring | null} colouring @param {(ratio: number) => Paint} colour */
  legend(colouring, colour) {
    this.scale.hidden = this.readout.hidden = !colouring;
    if (!colouring) return;
    const from = colouring.signed ? -colouring.scale : 0;
    const ends = [from, colouring.scale].map((value) => (colouring.values ? quantity(value, colouring.unit) : ""));
    this.low.textContent = `${colouring.low} ${ends[0]}`;
    this.high.textContent = `${ends[1]} ${colouring.high}`;
    const stops = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1].map(
      (part) => colour(colouring.signed ? 2 * part - 1 : part).background || "var(--background)",
    );
    this.bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    this.scale.setAttribute("aria-label", `Colours from ${this.low.textContent} to ${this.high.textContent}`);
    this.root.classList.toggle("pending", !colouring.values);
  }

  /** @param {string} text */
  say(text) {
    this.readout.textContent = text || "\u00a0";
  }

  /** @param {StripData} data */
  draw(data) {
    this.choices.hidden = data.streaming || !(data.choices?.length || data.choices_note);
    const mark = JSON.stringify([data.choices, data.choices_note]);
    if (this.drawn === mark) return;
    this.drawn = mark;
    const focused = /** @type {ShadowRoot | Document} */ (this.root.getRootNode()).activeElement;
    const kept = focused instanceof HTMLElement && this.choices.contains(focused) ? focused.dataset.token : undefined;
    const note = make("span", "note", data.choices_note);
    this.choices.replaceChildren(note, ...(data.choices ?? []).map((choice) => this.button(choice)));
    if (kept) /** @type {HTMLElement | null} */ (this.choices.querySelector(`[data-token="${kept}"]`))?.focus();
  }

  /** @param {Choice} choice @returns {HTMLElement} */
  button({ id, token, probability, said, chosen }) {
    const view = readToken(token);
    const button = /** @type {HTMLButtonElement} */ (make("button", "choice"));
    button.type = "button";
    button.dataset.token = String(id);
    const name = make("span", "name");
    fillText(name, view.special || view.text === "" ? tokenName(view) : view.text.trim() === "" ? tokenName(view) : view.text.trim());
    button.append(name, make("span", "number", quantity(probability, "probability")));
    button.setAttribute("aria-pressed", String(chosen));
    button.disabled = said;
    if (said) button.append(make("span", "number", "said"));
    else button.title = `Compare with “${shown(view.text.trim())}”: the examples that decided between the two`;
    button.addEventListener("click", () => this.choose(id));
    return button;
  }
}

/** @param {number} value @param {string} unit @returns {string} */
function quantity(value, unit) {
  if (unit !== "probability") return signed(value, 3) + (unit === "nats" ? " nats" : "");
  const percent = 100 * value;
  if (percent > 0 && percent < 0.01) return "<0.01%";
  return `${percent >= 10 || percent === 0 ? percent.toFixed(0) : percent.toPrecision(2)}%`;
}
