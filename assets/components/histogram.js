// How all scores are spread, with a pin for each shown example. Knows cards by their keys alone.
// Needs tokens.js before it.

/* global make, signed */

/**
 * @typedef {object} HistogramData
 * @property {number} low Smallest score.
 * @property {number} high Largest score.
 * @property {number[]} counts Scores in each bin, the bins of equal width from low to high.
 * @property {number} rows How many scores: the sum of the counts.
 * @property {number} of How many examples, those the filter left out included.
 */
/** @typedef {{key: string, rank: number, score: number | null, group: number}} PinData */

const NEAR_PX = 14;

class ScoreHistogram {
  constructor() {
    this.root = make("figure", "histogram");
    this.plot = make("div", "plot");
    this.bars = make("div", "bars");
    this.bars.setAttribute("role", "img");
    this.zero = make("div", "zero");
    this.pins = make("div", "pins");
    this.pins.setAttribute("role", "group");
    this.pins.setAttribute("aria-label", "The shown examples by score; arrow keys move along them, Enter goes to a card");
    this.plot.append(this.bars, this.zero, this.pins);
    this.axis = make("div", "axis");
    this.caption = make("figcaption");
    this.root.append(this.plot, this.axis, this.caption);
    this.drawnBars = "";
    this.drawnPins = "";
    /** @type {HTMLElement[]} In the order of their scores. */ this.buttons = [];
    this.lit = "";
    /** Called with the key of the card whose pin is pointed at, or an empty text. */
    this.point = (/** @type {string} */ _key) => {};
    /** Called with the key of the card to go to. */
    this.visit = (/** @type {string} */ _key) => {};
    this.listen();
  }

  listen() {
    this.plot.addEventListener("pointermove", (event) => this.point(this.nearest(event.clientX)?.dataset.key ?? ""));
    this.plot.addEventListener("pointerleave", () => this.point(""));
    this.plot.addEventListener("click", (event) => {
      // A click by keyboard has no place: it is the focused pin's.
      const pin = event.detail === 0 ? /** @type {HTMLElement} */ (event.target) : this.nearest(event.clientX);
      if (pin?.dataset.key) this.visit(pin.dataset.key);
    });
    this.pins.addEventListener("focusin", (event) => this.point(/** @type {HTMLElement} */ (event.target).dataset.key ?? ""));
    this.pins.addEventListener("focusout", () => this.point(""));
    this.pins.addEventListener("keydown", (event) => this.key(event));
  }

  /** The pin closest to a place on the screen, if any is close. @param {number} x @returns {HTMLElement | null} */
  nearest(x) {
    let best = null;
    let least = NEAR_PX;
    for (const pin of this.buttons) {
      const box = pin.getBoundingClientRect();
      const distance = Math.abs(box.left + box.width / 2 - x);
      if (distance < least) [best, least] = [pin, distance];
    }
    return best;
  }

  /** Arrow keys walk along the pins; one of them is in the tab order. @param {KeyboardEvent} event */
  key(event) {
    const here = this.buttons.indexOf(/** @type {HTMLElement} */ (event.target));
    const last = this.buttons.length - 1;
    /** @type {Record<string, number>} */
    const targets = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last };
    if (here < 0 || !Object.hasOwn(targets, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(last, targets[event.key]));
    this.buttons[here].tabIndex = -1;
    this.buttons[next].tabIndex = 0;
    this.buttons[next].focus();
  }

  /** @param {HistogramData | null} data @param {PinData[]} pins @param {string[]} names What each group is called. */
  draw(data, pins, names) {
    this.root.hidden = !data;
    if (!data) return;
    this.drawBars(data);
    this.drawPins(data, pins);
    const said = describe(data, pins, names);
    if (this.caption.textContent !== said) {
      this.caption.textContent = said;
      this.bars.setAttribute("aria-label", said);
    }
  }

  /** @param {HistogramData} data */
  drawBars(data) {
    const mark = JSON.stringify(data);
    if (this.drawnBars === mark) return;
    this.drawnBars = mark;
    this.drawnPins = "";
    // The logarithm lets a single example be seen beside thousands.
    const tallest = Math.log1p(Math.max(...data.counts));
    this.bars.replaceChildren(
      ...data.counts.map((count) => {
        const bar = make("span", "bar");
        bar.style.height = `${(100 * Math.log1p(count)) / tallest}%`;
        return bar;
      }),
    );
    const inside = data.low < 0 && data.high > 0;
    this.zero.hidden = !inside;
    this.zero.style.left = `${part(data, 0)}%`;
    const ends = [make("span", "", signed(data.low, 2)), make("span", "", signed(data.high, 2))];
    const middle = make("span", "middle", "0");
    middle.style.left = `${part(data, 0)}%`;
    // Beside an end there is no room for it.
    middle.hidden = !inside || part(data, 0) < 18 || part(data, 0) > 82;
    this.axis.replaceChildren(ends[0], middle, ends[1]);
  }

  /** @param {HistogramData} data @param {PinData[]} pins */
  drawPins(data, pins) {
    const mark = JSON.stringify(pins);
    if (this.drawnPins === mark) return;
    this.drawnPins = mark;
    const root = /** @type {ShadowRoot | Document} */ (this.root.getRootNode());
    const focused = this.buttons.find((pin) => pin === root.activeElement)?.dataset.key;
    const known = new Map(this.buttons.map((pin) => [pin.dataset.key, pin]));
    this.buttons = [...pins]
      .sort((one, other) => (one.score ?? 0) - (other.score ?? 0))
      .map((data_) => {
        const pin = known.get(data_.key) ?? make("button", "pin");
        pin.setAttribute("type", "button");
        pin.dataset.key = data_.key;
        pin.dataset.rank = String(data_.rank);
        pin.classList.toggle("negative", (data_.score ?? 0) < 0);
        pin.style.left = `${part(data, data_.score ?? 0)}%`;
        pin.setAttribute("aria-label", `Example ${data_.rank}, influence ${signed(data_.score, 4)}`);
        pin.tabIndex = -1;
        return pin;
      });
    const entry = this.buttons.find((pin) => pin.dataset.key === focused) ?? this.buttons.at(-1);
    if (entry) entry.tabIndex = 0;
    this.pins.replaceChildren(...this.buttons);
    if (focused && entry) entry.focus({ preventScroll: true });
    this.light(this.lit);
  }

  /** Lights the pin of a card; an empty key puts all out. @param {string} key */
  light(key) {
    this.lit = key;
    for (const pin of this.buttons) pin.classList.toggle("lit", pin.dataset.key === key);
  }
}

/** Where a score lies between low and high, in percent. @param {HistogramData} data @param {number} score */
function part(data, score) {
  return data.high > data.low ? Math.max(0, Math.min(100, (100 * (score - data.low)) / (data.high - data.low))) : 50;
}

/**
 * The histogram in words.
 * @param {HistogramData} data @param {PinData[]} pins @param {string[]} names @returns {string}
 */
function describe(data, pins, names) {
  const number = (/** @type {number} */ count) => count.toLocaleString("en");
  const filtered = data.rows < data.of ? ` that pass the filter, of ${number(data.of)}` : "";
  const all = `${number(data.rows)} scores${filtered}, from ${signed(data.low, 2)} to ${signed(data.high, 2)}`;
  const shown = names.map((name, group) => {
    const scores = pins.filter((pin) => pin.group === group).map((pin) => pin.score ?? 0);
    if (!scores.length) return "";
    const many = names.length > 1 ? `${scores.length} ${name.toLowerCase()}` : `${scores.length}`;
    return name === "Opponents"
      ? `the ${many} shown (▲) lie at ${signed(Math.max(...scores), 2)} and below`
      : `the ${many} shown (▲) lie at ${signed(Math.min(...scores), 2)} and above`;
  });
  return `${[all, ...shown.filter(Boolean)].join("; ")}. Heights grow with the logarithm of the counts.`;
}
