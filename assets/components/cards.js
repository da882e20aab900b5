// One training example that influenced the answer: a card whose tokens are coloured by influence, and
// the colours' legend. A card is short; the rest stands behind its "⋯". Needs tokens.js and words.js before it.

/* global readToken, tokenSpan, tokenName, shown, fillText, make, signed, fillHits, hitTokens */

/**
 * @typedef {object} CardData
 * @property {string} key Stable per training example.
 * @property {number} row Its row in the training data.
 * @property {number} group Which group it belongs to.
 * @property {number} rank
 * @property {number | null} score
 * @property {number} share Its |score| as a part of the strongest one's, 0 to 1.
 * @property {boolean} exact
 * @property {string} source
 * @property {string} passage Where in which document a passage of raw text stands; may be empty.
 * @property {string} place Its rank among all examples, in words; may be empty.
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

const EXACT = "Computed from the full gradients.";
const APPROXIMATE = "Estimated from compressed gradients; the exact value may differ a little.";
const SIGN = "Positive: training on this example made the answer more likely. Negative: less likely.";
const LISTED_ROWS = 5;
const GENERIC = "This example is near the top whatever is asked, so its rank says little about this answer.";
/** Words before the strongest token that stay where the beginning of a long response is left out. */
const LEAD = 12;

// ---------------------------------------------------------------- one card

class Card {
  /** @param {(action: string, key: string) => void} act */
  constructor(act) {
    this.root = make("li", "card");
    const head = make("div", "head");
    this.rank = make("span", "rank");
    this.bar = make("span", "strength");
    this.fill = this.bar.appendChild(make("span", "fill"));
    this.prompt = make("div", "prompt");
    this.source = make("span", "chip source");
    this.held = make("span", "chip held");
    this.beside = make("span", "chip beside");
    this.often = make("span", "chip often", "generic");
    this.alike = make("span", "chip alike");
    this.toggle = /** @type {HTMLButtonElement} */ (make("button", "toggle", "⋯"));
    this.toggle.type = "button";
    this.toggle.addEventListener("click", () => this.open(!this.isOpen));
    head.append(this.rank, this.bar, this.prompt, this.source, this.beside, this.often, this.alike, this.held, this.toggle);
    this.tokens = make("div", "tokens");
    this.tokens.setAttribute("role", "list");
    this.tokens.addEventListener("keydown", (event) => this.key(event));
    this.warning = make("div", "foot warning");
    this.details = make("div", "details");
    this.score = make("span", "score");
    this.kind = make("span", "kind");
    this.facts = make("ul", "facts");
    this.actions = make("div", "actions");
    this.colouring = this.actions.appendChild(this.action("colour", "Colour the answer by this", act));
    this.matrix = this.actions.appendChild(this.action("matrix", "Token × token", act));
    this.link = new CardLink();
    this.actions.append(this.link.root);
    this.duplicates = new Duplicates();
    const number = make("div", "number");
    number.append("Score ", this.score, this.kind);
    this.details.append(number, this.facts, this.actions, this.duplicates.root);
    this.root.tabIndex = -1;
    this.root.append(head, this.tokens, this.warning, this.details);

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
    const certain = data.exact || !data.by_gradients;
    this.fill.style.width = `${100 * data.share}%`;
    this.bar.classList.toggle("approximate", !certain);
    this.bar.classList.toggle("negative", (data.score ?? 0) < 0);
    this.bar.title = `Score ${signed(data.score, 3)}${certain ? "" : ", approximate"}; the strongest one's bar is full`;
    this.toggle.setAttribute("aria-label", `More about example ${data.rank}`);
    this.score.textContent = signed(data.score, 4);
    this.score.classList.toggle("negative", (data.score ?? 0) < 0);
    this.score.title = data.by_gradients ? SIGN : "";
    this.kind.hidden = !data.by_gradients;
    this.kind.textContent = data.exact ? ", exact" : ", approximate";
    this.kind.title = data.exact ? EXACT : APPROXIMATE;
    fillText(this.source, data.source);
    this.source.title = data.source ? `Label in the data: ${shown(data.source)}` : "";
    this.source.hidden = data.source === "";
    this.beside.textContent = data.beside;
    this.beside.hidden = data.beside === "";
    this.often.hidden = data.often === "";
    this.often.title = `${GENERIC} ${data.often}.`;
    const alike = data.duplicates.length;
    this.alike.textContent = `+${alike} alike`;
    this.alike.title = `${alike} near-duplicate${alike === 1 ? "" : "s"} of this example; see ⋯`;
    this.alike.hidden = alike === 0;
    const failed = data.values !== null && data.checksum !== null && !data.agrees;
    const facts = [data.passage, data.place, data.unusual, data.often, data.steadiness, failed ? "" : checked(data, drawing.pending)];
    const lines = [...facts.filter((fact) => fact !== ""), `Row ${data.row} of the training data`];
    this.facts.replaceChildren(...lines.map((line) => make("li", "", line)));
    this.warning.textContent = failed ? checked(data, drawing.pending) : data.without_values;
    this.warning.classList.toggle("failed", failed);
    this.warning.hidden = this.warning.textContent === "";
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
    this.bring();
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

  /** Shows all of the example and what is known of it, or its first lines. @param {boolean} isOpen */
  open(isOpen) {
    this.isOpen = isOpen;
    this.root.classList.toggle("open", isOpen);
    this.details.hidden = !isOpen;
    this.toggle.setAttribute("aria-expanded", String(isOpen));
    this.bring();
  }

  /** Leaves the beginning of a long response out where its strongest token would not be seen. */
  bring() {
    for (const span of this.spans) span.classList.remove("cut", "after");
    if (this.isOpen || !this.values) return;
    const sizes = this.values.map((value) => Math.abs(value ?? 0));
    const strongest = this.spans[sizes.indexOf(Math.max(...sizes))];
    if (!strongest || strongest.offsetTop + strongest.offsetHeight / 2 < this.tokens.offsetTop + this.tokens.clientHeight) return;
    const from = Math.max(0, this.spans.indexOf(strongest) - LEAD);
    this.spans.forEach((span, index) => span.classList.toggle("cut", index < from));
    this.spans[from].classList.toggle("after", from > 0);
  }

  /** Arrow keys walk along the tokens; one of them is in the tab order. @param {KeyboardEvent} event */
  key(event) {
    const here = this.spans.indexOf(/** @type {HTMLElement} */ (event.target));
    const last = this.spans.length - 1;
    /** @type {Record<string, number>} */
    const targets = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last };
    if (here < 0 || !Object.hasOwn(targets, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    // Whoever walks along them sees all of them.
    if (!this.isOpen) this.open(true);
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
    const kind = make("span", "chip kind", "approximate");
    kind.title = APPROXIMATE;
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

/** Whether the tokens' values add up to the score, in words. @param {CardData} data @param {boolean} pending @returns {string} */
function checked(data, pending) {
  if (!data.values) return data.without_values ? "" : pending ? "Token values are on their way" : "Token values not computed";
  const kind = data.values_exact ? "Token values are exact" : "Token values are approximate";
  if (data.checksum === null) return kind;
  const made = data.adds_up ? "add up" : "average";
  if (!data.agrees) return `Check failed: token values don't ${made} to the score (off by ${(100 * data.checksum).toPrecision(2)}%)`;
  const size = data.checksum === 0 ? "0" : data.checksum.toExponential(0).replace("e-", "e−");
  return `${kind}, and ${made} to the score (relative difference ${size})`;
}

// ---------------------------------------------------------------- the colours' legend

/** What the colours of tokens mean; their ends in numbers where someone asks. */
class Legend {
  constructor() {
    this.root = make("div", "legend");
    this.root.setAttribute("role", "img");
    this.bar = make("span", "bar");
    this.root.append(make("span", "word", "lowered it"), this.bar, make("span", "word", "raised it"));
  }

  /** @param {Drawing} drawing */
  draw({ scale, colour }) {
    const stops = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1].map(
      (ratio) => colour(ratio).background || "var(--background)",
    );
    this.bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    const said = `Influence of each training token, from ${signed(-scale, 2)} (blue, lowered it) over 0 to ${signed(scale, 2)} (orange, raised it)`;
    this.root.setAttribute("aria-label", said);
    this.root.title = said;
  }
}
