// One training example that influenced the answer: a card whose tokens are coloured by influence, and
// the colours' legend. Needs tokens.js and words.js before it.

/* global readToken, tokenSpan, tokenName, shown, fillText, make, signed, fillHits, hitTokens */

/**
 * @typedef {object} CardData
 * @property {string} key Stable per training example.
 * @property {number} row Its row in the training data.
 * @property {number} group Which group it belongs to.
 * @property {number} rank
 * @property {number | null} score
 * @property {boolean} exact
 * @property {string} source
 * @property {number | null} percentile 0 to 100 among all examples.
 * @property {string} unusual How unusual the score is for this very example; may be empty.
 * @property {string} often Said of an example that is near the top of many unrelated prompts.
 * @property {string} prompt
 * @property {WireToken[]} tokens
 * @property {(number | null)[] | null} values One a token; null while not known.
 * @property {boolean} values_exact
 * @property {number | null} checksum Relative difference between the tokens' mean (or sum) and the score.
 * @property {boolean} adds_up Whether the tokens' sum, not their mean, is the score.
 * @property {boolean} agrees Whether the checksum is as small as it should be.
 * @property {string} steadiness How firmly the example holds its place; may be empty.
 * @property {string} beside What the same example has to do with another answer; may be empty.
 * @property {boolean} by_gradients Whether the score is exact or sketched, and its sign means something.
 * @property {string} without_values Said where there are no values of tokens, and none will come; may be empty.
 * @property {DuplicateData[]} duplicates Near-duplicates that were folded into it.
 */
/** @typedef {{row: number, score: number | null, source: string, prompt: string, response: string}} DuplicateData */
/**
 * @typedef {{scale: number, pending: boolean, theme: string, marked: string, link: string, acts: boolean, colour: (ratio: number) => Paint}} Drawing
 */

const EXACT = "Computed from the full gradients; no sketch noise.";
const SKETCH = "Estimated from the cached sketches; the exact value may differ a little.";
const SIGN = "Positive: training on this example made the answer more likely. Negative: less likely.";
const LISTED_ROWS = 5;
const UNUSUAL =
  "Compares this example with itself: its score here beside its scores on unrelated prompts, which the cache keeps.";
const STEADY =
  "Another seed of the sketch would give other sketched scores; how often this example would then be among those " +
  "made exact, or shown, is drawn from the sketch's noise.";
const OFTEN = "This example is near the top whatever is asked, so its rank here says little about this answer.";

// ---------------------------------------------------------------- one card

class Card {
  /** @param {(action: string, key: string) => void} act */
  constructor(act) {
    this.root = make("li", "card");
    const head = make("div", "head");
    this.rank = make("span", "rank");
    this.score = make("span", "score");
    this.kind = make("span", "chip kind");
    this.source = make("span", "chip source");
    this.percentile = make("span", "chip percentile");
    this.row = make("span", "row");
    this.held = make("span", "chip held");
    this.unusual = make("span", "chip unusual");
    this.unusual.title = UNUSUAL;
    this.beside = make("span", "chip beside");
    this.often = make("span", "chip often");
    this.often.title = OFTEN;
    head.append(this.rank, this.score, this.kind, this.source, this.beside, this.percentile, this.unusual, this.often);
    head.append(this.held, this.row);
    this.prompt = make("div", "prompt");
    this.toggle = /** @type {HTMLButtonElement} */ (make("button", "toggle"));
    this.toggle.type = "button";
    this.toggle.addEventListener("click", () => this.open(!this.isOpen));
    this.tokens = make("div", "tokens");
    this.tokens.setAttribute("role", "list");
    this.tokens.addEventListener("keydown", (event) => this.key(event));
    this.foot = make("div", "foot");
    this.steady = make("div", "foot steady");
    this.steady.title = STEADY;
    this.actions = make("div", "actions");
    this.colouring = this.actions.appendChild(this.action("colour", "Colour the answer by this", act));
    this.matrix = this.actions.appendChild(this.action("matrix", "Token × token", act));
    this.link = new CardLink();
    this.actions.append(this.link.root);
    this.duplicates = new Duplicates();
    this.root.tabIndex = -1;
    this.root.append(head, this.prompt, this.toggle, this.tokens, this.foot, this.steady, this.actions, this.duplicates.root);

    this.isOpen = false;
    /** @type {CardData | null} */ this.data = null;
    this.drawnPrompt = "";
    this.drawnTokens = "";
    this.drawnValues = "";
    /** @type {string | null} Null while the text isn't written. */ this.drawnWord = null;
    /** @type {TokenView[]} */ this.views = [];
    /** @type {HTMLElement[]} */ this.spans = [];
    /** @type {(number | null)[] | null} */ this.values = null;
    this.open(false);
  }

  /** @param {string} name @param {string} label @param {(action: string, key: string) => void} act */
  action(name, label, act) {
    const button = /** @type {HTMLButtonElement} */ (make("button", "action", label));
    button.type = "button";
    button.addEventListener("click", () => act(name, this.root.dataset.cardKey ?? ""));
    return button;
  }

  /** @param {CardData} data @param {Drawing} drawing @param {WordData | null} word What is marked where it is held. */
  draw(data, drawing, word) {
    this.data = data;
    this.actions.hidden = !drawing.acts && drawing.link === "";
    this.colouring.hidden = this.matrix.hidden = !drawing.acts;
    this.colouring.setAttribute("aria-pressed", String(data.key === drawing.marked));
    this.colouring.setAttribute("aria-label", `Colour the answer by this, example ${data.rank}`);
    this.link.draw(drawing.link, data);
    this.matrix.setAttribute("aria-label", `Token × token, example ${data.rank}`);
    Object.assign(this.root.dataset, {
      cardKey: data.key,
      rank: String(data.rank),
      score: String(data.score),
      exact: String(data.exact),
    });
    const what = data.by_gradients ? "influence" : "score";
    this.root.setAttribute("aria-label", `Example ${data.rank}, ${what} ${signed(data.score, 4)}`);
    this.root.classList.toggle("waiting", drawing.pending && !data.values && data.without_values === "");
    this.rank.textContent = String(data.rank);
    this.score.textContent = signed(data.score, 4);
    this.score.classList.toggle("negative", (data.score ?? 0) < 0);
    this.score.title = data.by_gradients ? SIGN : "";
    this.kind.hidden = !data.by_gradients;
    this.kind.textContent = data.exact ? "exact" : "sketch";
    this.kind.title = data.exact ? EXACT : SKETCH;
    this.kind.classList.toggle("exact", data.exact);
    fillText(this.source, data.source);
    this.source.title = data.source ? `source: ${shown(data.source)}` : "";
    this.source.hidden = data.source === "";
    this.percentile.textContent = data.percentile === null ? "" : place(data.percentile);
    this.percentile.title = "Compares this example with the others: its place among all training examples, by score.";
    this.percentile.hidden = data.percentile === null;
    this.row.textContent = `row ${data.row}`;
    this.beside.textContent = data.beside;
    this.beside.hidden = data.beside === "";
    this.unusual.textContent = data.unusual;
    this.unusual.hidden = data.unusual === "";
    this.often.textContent = data.often;
    this.often.hidden = data.often === "";
    this.foot.textContent = footnote(data, drawing.pending);
    this.steady.textContent = data.steadiness;
    this.steady.hidden = data.steadiness === "";
    this.foot.classList.toggle("warning", data.values !== null && data.checksum !== null && !data.agrees);
    this.drawPrompt(data.prompt);
    this.drawTokens(data.tokens);
    this.paint(data.values, drawing);
    this.duplicates.draw(data.duplicates, data.by_gradients);
    this.hold(word);
  }

  /** Writes the prompt, and marks a word where this example holds it; null for none. @param {WordData | null} chosen */
  hold(chosen) {
    const word = this.data && chosen?.rows.includes(this.data.row) ? chosen.text : "";
    if (this.drawnWord === word) return;
    this.drawnWord = word;
    this.root.classList.toggle("holds", word !== "");
    this.held.hidden = word === "";
    fillText(this.held, `has “${word}”`);
    fillHits(this.prompt, this.drawnPrompt, word);
    const hits = hitTokens(this.views, word);
    this.spans.forEach((span, index) => span.classList.toggle("hit", hits.has(index)));
  }

  /** Takes over the prompt; `hold` writes it. @param {string} prompt */
  drawPrompt(prompt) {
    if (this.drawnPrompt === prompt) return;
    this.drawnPrompt = prompt;
    this.drawnWord = null;
    this.prompt.hidden = prompt === "";
  }

  /** @param {WireToken[]} tokens */
  drawTokens(tokens) {
    const mark = JSON.stringify(tokens);
    if (this.drawnTokens === mark) return;
    this.drawnTokens = mark;
    this.drawnValues = "";
    this.drawnWord = null;
    this.views = tokens.map(readToken);
    this.spans = this.views.map(tokenSpan);
    this.spans.forEach((span, index) => {
      span.setAttribute("role", "listitem");
      span.tabIndex = index === 0 ? 0 : -1;
    });
    this.tokens.replaceChildren(...this.spans);
  }

  /** Colours the tokens. @param {(number | null)[] | null} values @param {Drawing} drawing */
  paint(values, drawing) {
    const mark = `${drawing.theme} ${drawing.scale} ${JSON.stringify(values)} ${this.data?.without_values}`;
    if (this.drawnValues === mark) return;
    this.drawnValues = mark;
    this.values = values;
    this.tokens.setAttribute("aria-label", values ? "Tokens with their influence" : "Tokens");
    this.spans.forEach((span, index) => {
      const value = values?.[index] ?? null;
      const paint = drawing.colour(value === null || drawing.scale <= 0 ? 0 : value / drawing.scale);
      span.style.backgroundColor = paint.background;
      span.style.color = paint.color;
      span.classList.toggle("negative", paint.background !== "" && value !== null && value < 0);
      span.setAttribute("aria-label", this.describe(index));
    });
  }

  /** What a token's tooltip says. @param {number} index @returns {string} */
  describe(index) {
    const value = this.values?.[index] ?? null;
    const unknown = this.data?.without_values || "influence not known yet";
    return `${tokenName(this.views[index])}: ${value === null ? unknown : signed(value, 3)}`;
  }

  /** Shows all of the prompt, or its first lines. @param {boolean} isOpen */
  open(isOpen) {
    this.isOpen = isOpen;
    this.prompt.classList.toggle("clamped", !isOpen);
    this.toggle.textContent = isOpen ? "show less" : "show all of it";
    this.toggle.setAttribute("aria-expanded", String(isOpen));
  }

  /** The toggle shows only where something is hidden. */
  measure() {
    if (!this.isOpen) this.toggle.hidden = this.prompt.scrollHeight <= this.prompt.clientHeight + 1;
  }

  /** Arrow keys walk along the tokens; one of them is in the tab order. @param {KeyboardEvent} event */
  key(event) {
    const here = this.spans.indexOf(/** @type {HTMLElement} */ (event.target));
    const last = this.spans.length - 1;
    /** @type {Record<string, number>} */
    const targets = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last };
    if (here < 0 || !Object.hasOwn(targets, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(last, targets[event.key]));
    this.spans[here].tabIndex = -1;
    this.spans[next].tabIndex = 0;
    this.spans[next].focus();
  }
}

/** Copies the address that opens this card again; where the browser doesn't let it, shows that to be copied. */
class CardLink {
  constructor() {
    this.root = make("span", "link");
    this.button = /** @type {HTMLButtonElement} */ (make("button", "action"));
    this.button.type = "button";
    this.button.addEventListener("click", () => this.copy());
    this.field = /** @type {HTMLInputElement} */ (make("input", "address"));
    this.field.readOnly = true;
    this.field.setAttribute("aria-label", "The address of this example");
    this.root.append(this.button, this.field);
    this.query = "";
  }

  /** @param {string} link @param {CardData} data */
  draw(link, data) {
    const query = link && `${link}&card=${data.row}`;
    this.root.hidden = link === "";
    if (query === this.query) return;
    this.query = query;
    this.field.hidden = true;
    this.button.textContent = "Copy link";
    this.button.setAttribute("aria-label", `Copy link to example ${data.rank}`);
  }

  async copy() {
    this.field.value = new URL(this.query, location.origin + location.pathname).href;
    try {
      await navigator.clipboard.writeText(this.field.value);
      this.button.textContent = "Link copied";
    } catch {
      this.field.hidden = false;
      this.field.select();
    }
  }
}

/** What was folded into a card: a line that opens to the list of them. */
class Duplicates {
  constructor() {
    this.root = make("details", "duplicates");
    this.summary = make("summary");
    this.summary.title = "Found among the best candidates; further down the ranking there may be more.";
    this.list = make("ul");
    this.root.append(this.summary, this.list);
    this.drawn = "";
  }

  /** @param {DuplicateData[]} duplicates @param {boolean} byGradients */
  draw(duplicates, byGradients) {
    const mark = JSON.stringify([duplicates, byGradients]);
    if (this.drawn === mark) return;
    this.drawn = mark;
    this.root.hidden = duplicates.length === 0;
    const listed = duplicates.slice(0, LISTED_ROWS).map((one) => one.row).join(", ");
    const many = duplicates.length > 1;
    this.summary.textContent =
      `and ${duplicates.length} near-duplicate${many ? "s" : ""}: row${many ? "s" : ""} ${listed}` +
      (duplicates.length > LISTED_ROWS ? " …" : "");
    this.list.replaceChildren(...duplicates.map((one) => this.line(one, byGradients)));
  }

  /** @param {DuplicateData} one @param {boolean} byGradients @returns {HTMLElement} */
  line(one, byGradients) {
    const line = make("li");
    const head = make("div", "head");
    const score = make("span", "score", signed(one.score, 4));
    score.classList.toggle("negative", (one.score ?? 0) < 0);
    const kind = make("span", "chip kind", "sketch");
    kind.title = SKETCH;
    kind.hidden = !byGradients;
    const source = make("span", "chip source");
    fillText(source, one.source);
    source.hidden = one.source === "";
    head.append(score, kind, source, make("span", "row", `row ${one.row}`));
    const prompt = make("div", "prompt");
    fillText(prompt, one.prompt);
    const response = make("div", "response");
    fillText(response, one.response);
    line.append(head, prompt, response);
    return line;
  }
}

/** @param {number} percentile @returns {string} "top 0.4% of examples" */
function place(percentile) {
  const top = percentile >= 50;
  const part = top ? 100 - percentile : percentile;
  const size = part >= 10 ? part.toFixed(0) : part >= 0.1 ? part.toFixed(1) : part >= 0.01 ? part.toFixed(2) : "<0.01";
  return `${top ? "top" : "bottom"} ${size}% of examples`;
}

/** @param {CardData} data @param {boolean} pending @returns {string} */
function footnote(data, pending) {
  if (!data.values && data.without_values) return data.without_values;
  if (!data.values) return pending ? "token values are on their way …" : "token values not computed";
  const kind = data.values_exact ? "token values exact" : "token values from the sketch";
  if (data.checksum === null) return kind;
  const size = data.checksum === 0 ? "0" : data.checksum.toExponential(0).replace("e-", "e−");
  const whole = data.adds_up ? "sum" : "mean";
  return data.agrees
    ? `${whole} of tokens = score ✓ (to ${size}) · ${kind}`
    : `${whole} of tokens ≠ score ⚠ (off by ${(100 * data.checksum).toPrecision(2)}%) · ${kind}`;
}

// ---------------------------------------------------------------- the colours' legend

class Legend {
  constructor() {
    this.root = make("div", "legend");
    this.root.setAttribute("role", "img");
    this.bar = make("div", "bar");
    this.low = make("span", "", "");
    this.high = make("span", "", "");
    const middle = make("div", "middle");
    const numbers = make("div", "numbers");
    numbers.append(this.low, make("span", "", "0"), this.high);
    middle.append(this.bar, numbers);
    this.root.append(make("span", "word", "pushed away"), middle, make("span", "word", "pushed towards"));
  }

  /** @param {Drawing} drawing */
  draw({ scale, colour }) {
    const stops = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1].map(
      (ratio) => colour(ratio).background || "var(--background)",
    );
    this.bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    this.low.textContent = signed(-scale, 2);
    this.high.textContent = signed(scale, 2);
    this.root.setAttribute(
      "aria-label",
      `Influence of each training token, from ${signed(-scale, 2)} (blue, pushed away) over 0 to ${signed(scale, 2)} (orange, pushed towards)`,
    );
  }
}
