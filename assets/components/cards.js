// The training examples that influenced the answer: an ordered list of cards whose tokens are
// coloured by influence. Only "poll" and "more" ever reach Python. Needs tokens.js before it.

/* global readToken, tokenSpan, tokenName, shown, mainBox, fillText, make, signed, readTheme, colourScale, Poller */

/**
 * @typedef {object} CardData
 * @property {string} key Stable per training example.
 * @property {number} rank
 * @property {number | null} score
 * @property {boolean} exact
 * @property {string} source
 * @property {number | null} percentile 0 to 100 among all examples.
 * @property {string} prompt
 * @property {WireToken[]} tokens
 * @property {(number | null)[] | null} values One a token; null while not known.
 * @property {boolean} values_exact
 * @property {number | null} checksum Relative difference between the tokens' mean (or sum) and the score.
 * @property {boolean} adds_up Whether the tokens' sum, not their mean, is the score.
 * @property {boolean} agrees Whether the checksum is as small as it should be.
 */
/**
 * @typedef {object} CardsData
 * @property {number} tick Changes while pending, so that each rerun is a new drawing.
 * @property {string} view_id
 * @property {number} scale The |value| of full colour.
 * @property {boolean} pending More is on its way.
 * @property {boolean} more Whether more cards can be asked for.
 * @property {string} empty What is said when there are no cards.
 * @property {CardData[]} cards
 */
/** @typedef {{scale: number, pending: boolean, theme: string, colour: (ratio: number) => Paint}} Drawing */

const EXACT = "Computed from the full gradients; no sketch noise.";
const SKETCH = "Estimated from the cached sketches; the exact value may differ a little.";
const SIGN = "Positive: training on this example made the answer more likely. Negative: less likely.";
const MOVE_MS = 250;
const LOADING_MS = 10000;

// ---------------------------------------------------------------- one card

class Card {
  constructor() {
    this.root = make("li", "card");
    const head = make("div", "head");
    this.rank = make("span", "rank");
    this.score = make("span", "score");
    this.score.title = SIGN;
    this.kind = make("span", "chip kind");
    this.source = make("span", "chip source");
    this.percentile = make("span", "chip percentile");
    head.append(this.rank, this.score, this.kind, this.source, this.percentile);
    this.prompt = make("div", "prompt");
    this.toggle = /** @type {HTMLButtonElement} */ (make("button", "toggle"));
    this.toggle.type = "button";
    this.toggle.addEventListener("click", () => this.open(!this.isOpen));
    this.tokens = make("div", "tokens");
    this.tokens.setAttribute("role", "list");
    this.tokens.addEventListener("keydown", (event) => this.key(event));
    this.foot = make("div", "foot");
    this.root.append(head, this.prompt, this.toggle, this.tokens, this.foot);

    this.isOpen = false;
    this.drawnPrompt = "";
    this.drawnTokens = "";
    this.drawnValues = "";
    /** @type {TokenView[]} */ this.views = [];
    /** @type {HTMLElement[]} */ this.spans = [];
    /** @type {(number | null)[] | null} */ this.values = null;
    this.open(false);
  }

  /** @param {CardData} data @param {Drawing} drawing */
  draw(data, drawing) {
    Object.assign(this.root.dataset, {
      cardKey: data.key,
      rank: String(data.rank),
      score: String(data.score),
      exact: String(data.exact),
    });
    this.root.setAttribute("aria-label", `Example ${data.rank}, influence ${signed(data.score, 4)}`);
    this.root.classList.toggle("waiting", drawing.pending && !data.values);
    this.rank.textContent = String(data.rank);
    this.score.textContent = signed(data.score, 4);
    this.score.classList.toggle("negative", (data.score ?? 0) < 0);
    this.kind.textContent = data.exact ? "exact" : "sketch";
    this.kind.title = data.exact ? EXACT : SKETCH;
    this.kind.classList.toggle("exact", data.exact);
    fillText(this.source, data.source);
    this.source.title = data.source ? `source: ${shown(data.source)}` : "";
    this.source.hidden = data.source === "";
    this.percentile.textContent = data.percentile === null ? "" : place(data.percentile);
    this.percentile.title = "Among all training examples, by influence.";
    this.percentile.hidden = data.percentile === null;
    this.foot.textContent = footnote(data, drawing.pending);
    this.foot.classList.toggle("warning", data.values !== null && data.checksum !== null && !data.agrees);
    this.drawPrompt(data.prompt);
    this.drawTokens(data.tokens);
    this.paint(data.values, drawing);
  }

  /** @param {string} prompt */
  drawPrompt(prompt) {
    if (this.drawnPrompt === prompt) return;
    this.drawnPrompt = prompt;
    this.prompt.hidden = prompt === "";
    fillText(this.prompt, prompt);
  }

  /** @param {WireToken[]} tokens */
  drawTokens(tokens) {
    const mark = JSON.stringify(tokens);
    if (this.drawnTokens === mark) return;
    this.drawnTokens = mark;
    this.drawnValues = "";
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
    const mark = `${drawing.theme} ${drawing.scale} ${JSON.stringify(values)}`;
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
    return `${tokenName(this.views[index])}: ${value === null ? "influence not known yet" : signed(value, 3)}`;
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

/** @param {number} percentile @returns {string} "top 0.4%" */
function place(percentile) {
  const top = percentile >= 50;
  const part = top ? 100 - percentile : percentile;
  const size = part >= 10 ? part.toFixed(0) : part >= 0.1 ? part.toFixed(1) : part >= 0.01 ? part.toFixed(2) : "<0.01";
  return `${top ? "top" : "bottom"} ${size}%`;
}

/** @param {CardData} data @param {boolean} pending @returns {string} */
function footnote(data, pending) {
  if (!data.values) return pending ? "token values are on their way …" : "token values not computed";
  const kind = data.values_exact ? "token values exact" : "token values from the sketch";
  if (data.checksum === null) return kind;
  const size = data.checksum === 0 ? "0" : data.checksum.toExponential(0).replace("e-", "e−");
  const whole = data.adds_up ? "sum" : "mean";
  return data.agrees
    ? `${whole} of tokens = score ✓ (to ${size}) · ${kind}`
    : `${whole} of tokens ≠ score ⚠ (off by ${(100 * data.checksum).toPrecision(2)}%) · ${kind}`;
}

// ---------------------------------------------------------------- all cards

class Cards {
  /** @param {ShadowRoot | HTMLElement} parent */
  constructor(parent) {
    this.root = make("div", "cards");
    this.legend = new Legend();
    this.empty = make("p", "empty");
    this.list = make("ol", "list");
    this.list.setAttribute("role", "list");
    this.more = /** @type {HTMLButtonElement} */ (make("button", "more", "Show more"));
    this.more.type = "button";
    this.tip = make("div", "tip");
    this.tip.setAttribute("aria-hidden", "true");
    this.tip.hidden = true;
    this.root.append(this.legend.root, this.empty, this.list, this.more, this.tip);
    parent.append(this.root);

    /** @type {Map<string, Card>} */ this.cards = new Map();
    /** @type {HTMLElement | null} */ this.tipped = null;
    this.turn = 0;
    this.poller = new Poller();
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this.loading = undefined;
    this.askMore = () => {};
    this.listen();
  }

  listen() {
    this.more.addEventListener("click", () => {
      if (this.loading !== undefined) return;
      this.load(true);
      this.poller.defer();
      this.askMore();
    });
    this.list.addEventListener("pointerover", (event) => this.show(event.target));
    this.list.addEventListener("pointerleave", () => this.show(null));
    this.list.addEventListener("focusin", (event) => this.show(event.target));
    this.list.addEventListener("focusout", () => this.show(null));
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show(null);
    });
    new ResizeObserver(() => this.measure()).observe(this.list);
  }

  // ------------------------------------------------------------ drawing

  /** @param {CardsData} data */
  draw(data) {
    const theme = readTheme(this.root);
    const drawing = { scale: data.scale, pending: data.pending, theme: JSON.stringify(theme), colour: colourScale(theme) };
    Object.assign(this.root.dataset, {
      viewId: data.view_id,
      renderCount: String(++this.turn),
      exactCount: String(data.cards.filter((card) => card.exact).length),
      valuesCount: String(data.cards.filter((card) => card.values).length),
      pending: String(data.pending),
    });
    this.list.setAttribute("aria-busy", String(data.pending));
    this.legend.draw(drawing);
    this.legend.root.hidden = data.cards.length === 0;
    this.empty.textContent = data.empty;
    this.empty.hidden = data.cards.length > 0;
    this.more.hidden = !data.more;
    this.load(false);
    this.arrange(data.cards, drawing);
    this.measure();
    this.show(this.tipped?.isConnected ? this.tipped : null);
  }

  /** Draws each card in its place; those that move glide there. @param {CardData[]} cards @param {Drawing} drawing */
  arrange(cards, drawing) {
    const before = this.tops();
    const focused = /** @type {ShadowRoot | Document} */ (this.root.getRootNode()).activeElement;
    /** @type {Map<string, Card>} */
    const kept = new Map();
    cards.forEach((data, index) => {
      const key = kept.has(data.key) ? `${data.key}#${index}` : data.key;
      const card = this.cards.get(key) ?? new Card();
      kept.set(key, card);
      card.draw(data, drawing);
      const there = this.list.children[index];
      if (there !== card.root) this.list.insertBefore(card.root, there ?? null);
    });
    for (const [key, card] of this.cards) if (!kept.has(key)) card.root.remove();
    this.cards = kept;
    if (focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
    this.glide(before);
  }

  /** Where each card is seen now, relative to the list. @returns {Map<Card, number>} */
  tops() {
    const top = this.list.getBoundingClientRect().top;
    return new Map([...this.cards.values()].map((card) => [card, card.root.getBoundingClientRect().top - top]));
  }

  /** Moves cards from where they were seen to where they are. @param {Map<Card, number>} before */
  glide(before) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const card of before.keys()) for (const running of card.root.getAnimations()) running.cancel();
    const after = this.tops();
    for (const [card, top] of after) {
      const from = before.get(card);
      const timing = { duration: MOVE_MS, easing: "ease-out" };
      if (from === undefined && before.size > 0) card.root.animate([{ opacity: 0 }, { opacity: 1 }], timing);
      if (from === undefined || Math.abs(from - top) < 1) continue;
      card.root.animate([{ transform: `translateY(${from - top}px)` }, { transform: "none" }], timing);
    }
  }

  measure() {
    for (const card of this.cards.values()) card.measure();
  }

  /** @param {boolean} loading Whether more cards were asked for and haven't come. */
  load(loading) {
    clearTimeout(this.loading);
    this.loading = loading ? setTimeout(() => this.load(false), LOADING_MS) : undefined;
    this.more.textContent = loading ? "Loading …" : "Show more";
    this.more.setAttribute("aria-disabled", String(loading));
  }

  /** The tooltip of the token under an event, or none. @param {EventTarget | null} target */
  show(target) {
    const span = target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest(".token")) : null;
    const card = span && [...this.cards.values()].find((one) => one.tokens.contains(span));
    this.tipped = card ? span : null;
    this.tip.hidden = !card;
    if (!span || !card) return;
    this.tip.textContent = card.describe(Number(span.dataset.tokenIndex));
    const frame = this.root.getBoundingClientRect();
    const box = mainBox(span);
    const left = box.left + box.width / 2 - frame.left - this.tip.offsetWidth / 2;
    const above = box.top - this.tip.offsetHeight - 4;
    this.tip.style.left = `${Math.max(0, Math.min(frame.width - this.tip.offsetWidth, left))}px`;
    this.tip.style.top = `${(above < 0 ? box.bottom + 4 : above) - frame.top}px`;
  }
}

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

/** @type {WeakMap<object, Cards>} Streamlit calls again at each change: one instance a place. */
const places = new WeakMap();

/**
 * Streamlit's entry: called on mounting and again whenever data or theme changed.
 * @param {{data: CardsData | null, parentElement: ShadowRoot | HTMLElement,
 *   setTriggerValue: (name: string, value: unknown) => void}} component
 * @returns {() => void} Called on unmounting, and for a drawing that a newer one overtook.
 */
export default function ({ data, parentElement, setTriggerValue }) {
  const cards = places.get(parentElement) ?? new Cards(parentElement);
  places.set(parentElement, cards);
  if (!data) return () => {};
  cards.askMore = () => setTriggerValue("more", data.view_id);
  cards.draw(data);
  cards.poller.drawn(data.pending, () => setTriggerValue("poll", data.tick));
  const turn = cards.turn;
  return () => {
    if (cards.turn === turn) cards.poller.stop();
  };
}
