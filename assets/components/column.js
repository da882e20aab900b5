// The column of training examples: one or two lists of cards, the histogram of all scores and the words
// that set the lists apart, all linked. Only "poll", "more" and "act" ever reach Python. Needs tokens.js,
// poller.js, histogram.js, words.js and cards.js before it.

/* global mainBox, make, readTheme, colourScale, Poller, POLL_MS, Card, Legend, ScoreHistogram, Words */

/**
 * @typedef {object} CardsData
 * @property {number} tick Changes while pending, so that each rerun is a new drawing.
 * @property {string} view_id
 * @property {number} scale The |value| of full colour.
 * @property {boolean} pending More is on its way.
 * @property {string} empty What is said where a group has no cards.
 * @property {string} marked Key of the card by which the answer is coloured.
 * @property {string} link Parameters of the address that opens all this again; may be empty.
 * @property {string} focus Key of the card to look at first; may be empty.
 * @property {boolean} acts Whether anything can be asked of a card.
 * @property {boolean | null} overview Whether the histogram and the words are shown; null for a button that shows them.
 * @property {string} folded What the button says that shows the cards; empty where they are shown.
 * @property {HistogramData | null} histogram
 * @property {{title: string, more: boolean, words: WordData[]}[]} groups
 * @property {CardData[]} cards Of all groups, in order.
 */

const MOVE_MS = 250;
const LOADING_MS = 10000;
/** Where nothing is there to be looked at, Python itself waits a moment for it before it answers. */
const SOON_MS = 40;

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// ---------------------------------------------------------------- one list of cards

class Group {
  constructor() {
    this.root = make("section", "group");
    this.title = make("div", "title");
    this.words = new Words();
    this.words.choose = (word) => {
      this.word = word;
      for (const card of this.cards.values()) card.hold(word);
    };
    this.empty = make("p", "empty");
    this.list = make("ol", "list");
    this.list.setAttribute("role", "list");
    this.more = /** @type {HTMLButtonElement} */ (make("button", "more", "Show more"));
    this.more.type = "button";
    this.more.addEventListener("click", () => {
      if (this.loading !== undefined) return;
      this.load(true);
      this.askMore();
    });
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.root.append(this.title, this.words.root, this.empty, this.list, this.more);

    /** @type {Map<string, Card>} */ this.cards = new Map();
    /** @type {WordData | null} */ this.word = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this.loading = undefined;
    this.askMore = () => {};
    /** @type {(action: string, key: string) => void} */ this.act = () => {};
  }

  /**
   * @param {CardsData["groups"][0]} data @param {CardData[]} cards @param {string} empty @param {Drawing} drawing
   * @param {boolean} named Whether the list needs its name.
   */
  draw(data, cards, empty, drawing, named) {
    this.title.textContent = data.title;
    this.title.hidden = !named;
    this.root.setAttribute("aria-label", data.title);
    this.list.setAttribute("aria-busy", String(drawing.pending));
    this.empty.textContent = empty;
    this.empty.hidden = cards.length > 0;
    this.more.hidden = !data.more;
    this.load(false);
    this.arrange(cards, drawing);
    this.words.draw(data.words);
  }

  /** Draws each card in its place; those that move glide there. @param {CardData[]} cards @param {Drawing} drawing */
  arrange(cards, drawing) {
    const before = this.tops();
    const focused = /** @type {ShadowRoot | Document} */ (this.root.getRootNode()).activeElement;
    /** @type {Map<string, Card>} */
    const kept = new Map();
    cards.forEach((data, index) => {
      const card = this.cards.get(data.key) ?? new Card((action, name) => this.act(action, name));
      kept.set(data.key, card);
      card.draw(data, drawing, this.word);
      const there = this.list.children[index];
      if (there !== card.root) this.list.insertBefore(card.root, there ?? null);
    });
    for (const [key, card] of this.cards) if (!kept.has(key)) card.root.remove();
    this.cards = kept;
    const entry = [...kept.values()].find((card) => card.root === focused) ?? kept.values().next().value;
    for (const card of kept.values()) card.root.tabIndex = card === entry ? 0 : -1;
    if (focused instanceof HTMLElement && this.list.contains(focused)) focused.focus({ preventScroll: true });
    this.glide(before);
  }

  /** Where each card is seen now, relative to the list. @returns {Map<Card, number>} */
  tops() {
    const top = this.list.getBoundingClientRect().top;
    return new Map([...this.cards.values()].map((card) => [card, card.root.getBoundingClientRect().top - top]));
  }

  /** Moves cards from where they were seen to where they are. @param {Map<Card, number>} before */
  glide(before) {
    if (still()) return;
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

  /** Arrows up and down walk along the cards, from a card or from within it. @param {KeyboardEvent} event */
  key(event) {
    const cards = [...this.cards.values()];
    const here = cards.findIndex((card) => card.root.contains(/** @type {Node} */ (event.target)));
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (here < 0 || step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    const next = cards[here + step];
    event.preventDefault();
    if (next) this.enter(next);
  }

  /** @param {Card} card @param {boolean} atOnce Whether to be there at once, without a glide that a drawing may end. */
  enter(card, atOnce = false) {
    for (const one of this.cards.values()) one.root.tabIndex = one === card ? 0 : -1;
    card.root.focus({ preventScroll: true });
    card.root.scrollIntoView({ block: "nearest", behavior: atOnce || still() ? "auto" : "smooth" });
  }

  /** @param {boolean} loading Whether more cards were asked for and haven't come. */
  load(loading) {
    clearTimeout(this.loading);
    this.loading = loading ? setTimeout(() => this.load(false), LOADING_MS) : undefined;
    this.more.textContent = loading ? "Loading …" : "Show more";
    this.more.setAttribute("aria-disabled", String(loading));
  }
}

// ---------------------------------------------------------------- all of them

class Cards {
  /** @param {ShadowRoot | HTMLElement} parent */
  constructor(parent) {
    this.root = make("div", "cards");
    this.histogram = new ScoreHistogram();
    this.histogram.point = (key) => this.light(this.find(key));
    this.histogram.visit = (key) => {
      const card = this.find(key);
      if (card) this.groups.find((group) => group.list.contains(card.root))?.enter(card);
    };
    this.legend = new Legend();
    this.tools = make("div", "tools");
    this.overview = /** @type {HTMLButtonElement} */ (make("button", "toggle", "All scores, typical words"));
    this.overview.type = "button";
    this.overview.addEventListener("click", () => this.look(!this.looking));
    this.tools.append(this.legend.root, this.overview);
    this.unfold = /** @type {HTMLButtonElement} */ (make("button", "more unfold"));
    this.unfold.type = "button";
    this.unfold.addEventListener("click", () => {
      this.unfolded = this.root.dataset.viewId ?? "";
      this.fold(false);
    });
    this.lists = make("div", "lists");
    this.tip = make("div", "tip");
    this.tip.setAttribute("aria-hidden", "true");
    this.tip.hidden = true;
    this.body = make("div", "body");
    this.body.append(this.tools, this.histogram.root, this.lists, this.tip);
    this.root.append(this.unfold, this.body);
    parent.append(this.root);

    /** @type {Group[]} */ this.groups = [];
    /** @type {Card | null} */ this.lit = null;
    /** @type {HTMLElement | null} */ this.tipped = null;
    /** The card that a link asked for is entered once. */ this.focused = "";
    this.turn = 0;
    /** Whether all scores and the typical words are looked at. */ this.looking = false;
    /** The view whose cards were unfolded. */ this.unfolded = "";
    this.poller = new Poller();
    this.askMore = (/** @type {number} */ _group) => {};
    /** @type {(action: string, key: string) => void} */ this.act = () => {};
    this.listen();
  }

  listen() {
    for (const kind of ["pointerover", "focusin"]) {
      this.lists.addEventListener(kind, (event) => {
        this.light(this.cardOf(event.target));
        this.show(event.target);
      });
    }
    for (const kind of ["pointerleave", "focusout"]) {
      this.lists.addEventListener(kind, () => {
        this.light(null);
        this.show(null);
      });
    }
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show(null);
    });
    new ResizeObserver(() => this.measure()).observe(this.lists);
  }

  /** @returns {Card[]} */
  all() {
    return this.groups.flatMap((group) => [...group.cards.values()]);
  }

  /** @param {EventTarget | null} target @returns {Card | null} */
  cardOf(target) {
    return this.all().find((card) => target instanceof Node && card.root.contains(target)) ?? null;
  }

  /** @param {string} pin @returns {Card | null} */
  find(pin) {
    return this.all().find((card) => card.data !== null && pinKey(card.data) === pin) ?? null;
  }

  /** Shows which card and which pin belong together. @param {Card | null} card */
  light(card) {
    if (this.lit === card) return;
    this.lit?.root.classList.remove("lit");
    card?.root.classList.add("lit");
    this.lit = card;
    this.histogram.light(card?.data ? pinKey(card.data) : "");
  }

  /** @param {boolean} looking Whether to show all scores and the typical words. */
  look(looking) {
    this.looking = looking;
    this.root.classList.toggle("looking", looking);
    this.overview.setAttribute("aria-expanded", String(looking));
  }

  /** @param {boolean} folded Whether the cards wait for a button. */
  fold(folded) {
    this.unfold.hidden = !folded;
    this.body.hidden = folded;
    if (!folded) this.measure();
  }

  /** Whether what is drawn is of the same answer. @param {string} view @returns {boolean} */
  about(view) {
    return (this.root.dataset.viewId ?? "").split(":")[0] === view.split(":")[0];
  }

  // ------------------------------------------------------------ drawing

  /** @param {CardsData} data */
  draw(data) {
    // What was shown of the same answer stays, pale, until there is something in its place.
    const stale = data.pending && data.groups.length === 0 && this.all().length > 0 && this.about(data.view_id);
    this.root.classList.toggle("stale", stale);
    this.body.inert = stale;
    if (stale) return;
    const theme = readTheme(this.root);
    const { scale, pending, marked, link, acts } = data;
    const drawing = { scale, pending, marked, link, acts, theme: JSON.stringify(theme), colour: colourScale(theme) };
    Object.assign(this.root.dataset, {
      viewId: data.view_id,
      renderCount: String(++this.turn),
      exactCount: String(data.cards.filter((card) => card.exact).length),
      valuesCount: String(data.cards.filter((card) => card.values).length),
      pending: String(data.pending),
    });
    this.unfold.textContent = data.folded;
    this.fold(data.folded !== "" && this.unfolded !== data.view_id);
    this.legend.draw(drawing);
    this.legend.root.hidden = data.cards.every((card) => card.without_values !== "");
    // Its place is kept while no values are known, so that nothing jumps.
    this.legend.root.style.visibility = scale > 0 ? "" : "hidden";
    this.drawGroups(data, drawing);
    const pins = data.cards.map((card) => ({ key: pinKey(card), rank: card.rank, score: card.score, group: card.group }));
    this.tools.hidden = data.cards.length === 0;
    const nothing = data.histogram === null && data.groups.every((group) => group.words.length === 0);
    this.overview.hidden = nothing || data.overview !== null;
    this.look(!nothing && (data.overview ?? this.looking));
    this.histogram.draw(data.histogram, pins, data.groups.map((group) => group.title));
    if (this.lit && !this.lit.root.isConnected) this.light(null);
    this.measure();
    this.focus(data.focus);
    this.show(this.tipped?.isConnected ? this.tipped : null);
  }

  /** @param {string} key Of the card that a link asks for. */
  focus(key) {
    const group = key === this.focused ? undefined : this.groups.find((one) => one.cards.has(key));
    if (!group) return;
    this.focused = key;
    group.enter(/** @type {Card} */ (group.cards.get(key)), true);
  }

  /** @param {CardsData} data @param {Drawing} drawing */
  drawGroups(data, drawing) {
    // Where nothing is known yet, there is one list without a name to say so.
    const groups = data.groups.length ? data.groups : [{ title: "", more: false, words: [] }];
    this.lists.classList.toggle("two", groups.length > 1);
    this.lists.classList.toggle("first-whole", groups.length > 2);
    for (const group of this.groups.splice(groups.length)) group.root.remove();
    groups.forEach((group, index) => {
      const list = (this.groups[index] ??= new Group());
      list.askMore = () => this.askMore(index);
      list.act = (action, key) => this.act(action, key);
      if (!list.root.isConnected) this.lists.append(list.root);
      const cards = data.cards.filter((card) => card.group === index);
      list.draw(group, cards, data.empty, drawing, groups.length > 1);
    });
  }

  measure() {
    for (const card of this.all()) card.bring();
  }

  /** The tooltip of the token under an event, or none. @param {EventTarget | null} target */
  show(target) {
    const span = target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest(".token")) : null;
    const card = span && this.cardOf(span);
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

/** One example may stand in both lists. @param {CardData} card @returns {string} */
function pinKey(card) {
  return `${card.group}:${card.key}`;
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
  cards.askMore = (group) => {
    cards.poller.defer();
    setTriggerValue("more", { group });
  };
  cards.act = (action, key) => {
    cards.poller.defer();
    setTriggerValue("act", { action, key });
  };
  cards.draw(data);
  const wait = data.groups.length ? POLL_MS : SOON_MS;
  return cards.poller.drawn(data.pending, () => setTriggerValue("poll", data.tick), wait);
}
