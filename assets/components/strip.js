// The answer as clickable words, its tokens coloured by one number each, with what the model might have
// said instead beneath them. With Alt a single token is clicked, not its word. The selection is painted here at once and sent to Python, which owns it and
// echoes it back. Needs tokens.js, poller.js and beneath.js before it.

/* global readToken, tokenSpan, tokenName, mainBox, make, readTheme, colourScale, quantity, Poller, MARKS, Beneath */

/** @typedef {[start: number, stop: number] | null} Range Half-open; null is the whole answer. */
/**
 * @typedef {object} StripData
 * @property {number} tick Changes while streaming, so that each rerun is a new drawing.
 * @property {string} answer_id
 * @property {string} label
 * @property {boolean} streaming
 * @property {WireToken[]} tokens
 * @property {[start: number, stop: number][]} words Runs of tokens that are selected together; all tokens, in order.
 * @property {Range} selection What Python holds.
 * @property {number} echo Number of the newest selection from here that Python has seen.
 * @property {boolean} pending More is on its way.
 * @property {Colouring | null} colouring
 * @property {Choice[] | null} choices What the model might have said at the selected token.
 * @property {string} choices_note What is said where there are none.
 * @property {boolean[]} differs For each token whether it is unlike another answer's; empty for no marks.
 * @property {[number, number][]} verbatim Runs of tokens that stand word for word in the training data.
 * @property {[start: number, stop: number, mark: string][]} marks Where words come from, as far as that is known.
 */

/** How long a newer selection made here outlives older echoes, should Python never answer it. */
const PROTECT_MS = 10000;
const NEAR_END_PX = 40;
/** Keys come in bursts; only where they come to rest is sent. */
const KEYS_MS = 180;

const narrow = () => matchMedia("(max-width: 640px)").matches;

class Strip {
  /** @param {ShadowRoot | HTMLElement} parent */
  constructor(parent) {
    this.root = make("div", "strip");
    this.root.tabIndex = 0;
    this.root.setAttribute("role", "listbox");
    this.root.setAttribute("aria-multiselectable", "true");
    this.caret = make("span", "caret");
    this.caret.setAttribute("aria-hidden", "true");
    this.beneath = new Beneath((id) => this.instead(id));
    parent.append(this.root, this.beneath.root);

    /** @type {TokenView[]} */ this.views = [];
    /** @type {HTMLElement[]} */ this.spans = [];
    /** @type {[start: number, stop: number][]} For each token its word. */ this.words = [];
    /** @type {Colouring | null} */ this.colouring = null;
    /** @type {boolean[]} */ this.differs = [];
    /** @type {string[]} For each token its word's mark, if it has one. */ this.marks = [];
    /** @type {string[]} */ this.drawnTokens = [];
    /** @type {Range} */ this.selection = null;
    /** @type {{from: number, to: number, moved: boolean, shift: boolean, fine: boolean} | null} */ this.drag = null;
    this.active = -1;
    this.hovered = -1;
    this.anchor = -1;
    this.answerId = "";
    this.streaming = false;
    /** Whether the selection was made here, and not for the person. */ this.own = false;
    this.sequence = 0;
    this.protectedUntil = 0;
    this.turn = 0;
    this.poller = new Poller();
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this.outbox = undefined;
    /** @type {(value: object) => void} */ this.setSelection = () => {};
    /** @type {(value: object) => void} */ this.askInstead = () => {};
    this.listen();
  }

  // ------------------------------------------------------------ drawing

  /** @param {StripData} data */
  draw(data) {
    if (data.answer_id !== this.answerId) this.forget(data.answer_id);
    this.streaming = data.streaming;
    if (this.streaming) this.drag = null;
    // Whoever reads along at the end of a growing answer stays there.
    const { scrollHeight, scrollTop, clientHeight } = this.root;
    const along = this.streaming && scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    this.drawTokens(data.tokens);
    this.words = data.words.flatMap((word) => Array(word[1] - word[0]).fill(word));
    if (along) this.root.scrollTop = this.root.scrollHeight;
    this.adopt(data);
    this.differs = data.differs;
    this.marks = Array(data.tokens.length).fill("");
    for (const [start, stop, mark] of data.marks) this.marks.fill(mark, start, stop);
    this.colour(data.colouring, readTheme(this.root));
    this.spans.forEach((span, index) => {
      span.classList.toggle("verbatim", data.verbatim.some(([start, stop]) => index >= start && index < stop));
    });
    this.beneath.draw(data);
    this.root.classList.toggle("streaming", data.streaming);
    this.root.setAttribute("aria-label", data.label);
    this.root.setAttribute("aria-busy", String(data.streaming));
    this.root.setAttribute("aria-disabled", String(data.streaming));
    this.root.dataset.textId = data.answer_id;
    this.root.dataset.streaming = String(data.streaming);
    this.root.dataset.renderCount = String(++this.turn);
    this.paint();
  }

  /** A new answer: nothing chosen on the old one holds. @param {string} answerId */
  forget(answerId) {
    clearTimeout(this.outbox);
    this.outbox = undefined;
    this.answerId = answerId;
    this.selection = null;
    this.drag = null;
    this.active = -1;
    this.anchor = -1;
    this.protectedUntil = 0;
  }

  /** Tokens that stayed keep their elements. @param {WireToken[]} tokens */
  drawTokens(tokens) {
    tokens.forEach((wire, index) => {
      const mark = JSON.stringify(wire);
      if (this.drawnTokens[index] === mark) return;
      this.views[index] = readToken(wire);
      const span = tokenSpan(this.views[index], index);
      span.id = `token-${index}`;
      span.setAttribute("role", "option");
      if (this.spans[index]) this.spans[index].replaceWith(span);
      else this.root.append(span);
      this.spans[index] = span;
      this.drawnTokens[index] = mark;
    });
    for (const span of this.spans.splice(tokens.length)) span.remove();
    this.drawnTokens.length = this.views.length = tokens.length;
    if (this.streaming) this.root.append(this.caret);
    else this.caret.remove();
  }

  /** Paints the tokens by their numbers, and names each with its own. @param {Colouring | null} colouring @param {Theme} theme */
  colour(colouring, theme) {
    this.colouring = colouring;
    const scale = colourScale(theme, colouring?.signed ?? true);
    this.beneath.legend(colouring, scale);
    this.root.dataset.coloured = colouring?.values ? colouring.unit : "";
    this.root.classList.toggle("coloured", Boolean(colouring?.values));
    this.spans.forEach((span, index) => {
      const value = colouring?.values?.[index] ?? null;
      const faint = value !== null && Math.abs(value) < (colouring?.faint ?? 0);
      const paint = scale(value === null || faint || !colouring?.scale ? 0 : value / colouring.scale);
      span.style.backgroundColor = paint.background;
      span.style.color = paint.color;
      span.classList.toggle("faint", faint);
      span.classList.toggle("differs", Boolean(this.differs[index]));
      if (this.marks[index]) span.dataset.mark = this.marks[index];
      else delete span.dataset.mark;
      span.classList.toggle("negative", paint.background !== "" && value !== null && value < 0);
      const { raw, special, text } = this.views[index];
      const name = this.describe(index);
      const marked = this.marks[index] in MARKS;
      if (raw || special || value !== null || marked) span.title = name;
      else span.removeAttribute("title");
      if (raw || special || text.trim() === "" || value !== null || marked || this.differs[index]) span.setAttribute("aria-label", name);
      else span.removeAttribute("aria-label");
    });
  }

  /** A token in words, with its number. @param {number} index @returns {string} */
  describe(index) {
    const value = this.colouring?.values?.[index] ?? null;
    const said = MARKS[this.marks[index]];
    const name = tokenName(this.views[index]) + (this.differs[index] ? ", differs" : "") + (said ? `, ${said}` : "");
    if (!this.colouring || value === null) return name;
    const faint = Math.abs(value) < this.colouring.faint ? ", hardly moved" : "";
    return `${name}: ${quantity(value, this.colouring.unit)}${faint}`;
  }

  /** Shows the number of the token under the pointer, else of the active one, where eyes find it. */
  read() {
    const index = this.hovered >= 0 ? this.hovered : this.active;
    this.beneath.say(this.spans[index] && this.colouring?.values ? this.describe(index) : "");
  }

  /** Python's selection counts, unless it hasn't yet seen the newest one made here. @param {StripData} data */
  adopt(data) {
    const stale = data.echo < this.sequence && performance.now() < this.protectedUntil;
    this.sequence = Math.max(this.sequence, data.echo);
    if (stale) return;
    const [start, stop] = data.selection ?? [0, 0];
    const before = String(this.selection);
    this.selection = start < stop && stop <= this.spans.length ? [start, stop] : null;
    if (String(this.selection) !== before) this.own = false;
    if (this.selection && (this.anchor < start || this.anchor >= stop)) this.anchor = this.active = start;
  }

  /** Shows the selection, or the drag in progress. */
  paint() {
    const dragged = this.drag?.moved ? this.range(this.drag.from, this.drag.to, this.drag.fine) : this.selection;
    const [start, stop] = dragged ?? [0, 0];
    this.spans.forEach((span, index) => {
      const inside = index >= start && index < stop;
      span.classList.toggle("selected", inside);
      span.classList.toggle("first", inside && index === start);
      span.classList.toggle("last", inside && index === stop - 1);
      span.classList.toggle("active", index === this.active);
      span.setAttribute("aria-selected", String(inside));
    });
    if (this.spans[this.active]) this.root.setAttribute("aria-activedescendant", this.spans[this.active].id);
    else this.root.removeAttribute("aria-activedescendant");
    this.root.dataset.selection = dragged ? `${start}:${stop}` : "";
    this.read();
  }

  // ------------------------------------------------------------ selecting

  /** Paints a selection now and sends it after `delay` ms. @param {Range} selection */
  select(selection, delay = 0) {
    this.selection = selection;
    this.own = true;
    this.sequence += 1;
    // On a phone what was found stands below: the answer goes to the top, where it stays.
    if (selection && narrow()) this.root.scrollIntoView({ block: "start" });
    this.protectedUntil = performance.now() + PROTECT_MS;
    this.paint();
    clearTimeout(this.outbox);
    this.outbox = setTimeout(() => this.flush(), delay);
  }

  /** Sends what waits to be sent. */
  flush() {
    if (this.outbox === undefined) return;
    clearTimeout(this.outbox);
    this.outbox = undefined;
    const [start, stop] = this.selection ?? [null, null];
    this.poller.defer();
    this.setSelection({ answer_id: this.answerId, start, stop, seq: this.sequence });
  }

  /** Asks why the selected token was said, and not another. @param {number} token */
  instead(token) {
    this.flush();
    this.poller.defer();
    this.askInstead({ answer_id: this.answerId, start: this.selection?.[0] ?? null, token });
  }

  /**
   * The half-open range over the words of two tokens in either order, or over the tokens alone.
   * @param {number} a @param {number} b @param {boolean} fine @returns {[number, number]}
   */
  range(a, b, fine) {
    const [first, last] = [Math.min(a, b), Math.max(a, b)];
    return fine ? [first, last + 1] : [this.words[first]?.[0] ?? first, this.words[last]?.[1] ?? last + 1];
  }

  /** A click, or Enter, on a token. @param {number} index @param {boolean} extend @param {boolean} fine Its token alone. */
  choose(index, extend, fine) {
    this.active = index;
    if (extend && this.anchor >= 0) return this.select(this.range(this.anchor, index, fine));
    this.anchor = index;
    const chosen = this.range(index, index, fine);
    // A word that was selected for the person isn't given up by the click that first means it.
    const again = this.own && this.selection && this.selection[0] === chosen[0] && this.selection[1] === chosen[1];
    return this.select(again ? null : chosen);
  }

  clear() {
    this.anchor = -1;
    if (this.selection) this.select(null);
  }

  /** One token to the side, or with `extend` one word. @param {number} direction −1 or 1 @param {boolean} extend */
  step(direction, extend) {
    const [start, stop] = (extend && this.words[this.active]) || [this.active, this.active + 1];
    this.move(direction < 0 ? start - 1 : stop, extend);
  }

  /** @param {number} index @param {boolean} extend */
  move(index, extend) {
    const target = Math.max(0, Math.min(this.spans.length - 1, index));
    if (extend) {
      if (this.anchor < 0) this.anchor = Math.max(0, this.active);
      this.active = target;
      this.select(this.range(this.anchor, target, false), KEYS_MS);
    } else {
      this.active = target;
      this.paint();
    }
    this.spans[target].scrollIntoView({ block: "nearest" });
  }

  /** The token above or below the active one. @param {number} direction −1 or 1 @returns {number} */
  vertical(direction) {
    const here = mainBox(this.spans[Math.max(0, this.active)]);
    const x = here.left + here.width / 2;
    let best = Math.max(0, this.active);
    let nearest = Infinity;
    this.spans.forEach((span, index) => {
      const box = mainBox(span);
      const down = direction * (box.top - here.top);
      const distance = down * 1000 + Math.max(box.left - x, x - box.right, 0);
      if (down < here.height / 2 || distance >= nearest) return;
      nearest = distance;
      best = index;
    });
    return best;
  }

  // ------------------------------------------------------------ listening

  listen() {
    this.root.addEventListener("pointerdown", (event) => this.press(event));
    this.root.addEventListener("pointermove", (event) => this.dragTo(event));
    this.root.addEventListener("pointerover", (event) => this.hover(this.indexOf(event.target)));
    this.root.addEventListener("pointerleave", () => this.hover(-1));
    this.root.addEventListener("pointerup", () => this.release());
    this.root.addEventListener("pointercancel", () => {
      this.drag = null;
      this.paint();
    });
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("blur", () => this.flush());
    this.root.addEventListener("focus", () => {
      if (this.active >= 0 || this.spans.length === 0) return;
      this.active = this.selection ? this.selection[0] : 0;
      this.paint();
    });
  }

  /** The token under an event. @param {EventTarget | null} target @returns {number} −1 if none. */
  indexOf(target) {
    const span = target instanceof Element ? target.closest(".token") : null;
    return span && this.root.contains(span) ? this.spans.indexOf(/** @type {HTMLElement} */ (span)) : -1;
  }

  /** @param {number} index Of the token under the pointer; −1 if none. */
  hover(index) {
    this.hovered = index;
    const [start, stop] = index < 0 || this.streaming ? [0, 0] : this.range(index, index, false);
    this.spans.forEach((span, place) => span.classList.toggle("hovered", place >= start && place < stop));
    this.read();
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (this.streaming || event.button !== 0 || !event.isPrimary) return;
    const index = this.indexOf(event.target);
    if (index < 0) {
      // Beyond the text stands the scroll bar.
      if (event.offsetX < this.root.clientWidth) this.clear();
      return;
    }
    this.root.setPointerCapture(event.pointerId);
    const from = event.shiftKey && this.anchor >= 0 ? this.anchor : index;
    this.drag = { from, to: index, moved: false, shift: event.shiftKey, fine: event.altKey };
  }

  /** @param {PointerEvent} event */
  dragTo(event) {
    if (!this.drag) return;
    const tree = /** @type {ShadowRoot | Document} */ (this.root.getRootNode());
    const index = this.indexOf(tree.elementFromPoint(event.clientX, event.clientY));
    if (index < 0 || index === this.drag.to) return;
    this.drag.to = index;
    this.drag.moved = true;
    this.paint();
  }

  release() {
    const drag = this.drag;
    this.drag = null;
    if (!drag) return;
    if (!drag.moved) {
      this.choose(drag.to, drag.shift, drag.fine);
      return;
    }
    this.anchor = drag.from;
    this.active = drag.to;
    this.select(this.range(drag.from, drag.to, drag.fine));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (this.streaming || this.spans.length === 0 || event.ctrlKey || event.metaKey) return;
    if (event.altKey && event.key !== "Enter") return;
    if (event.key === "Escape" && !this.selection && !this.drag) return;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => this.step(-1, event.shiftKey),
      ArrowRight: () => this.step(1, event.shiftKey),
      ArrowUp: () => this.move(this.vertical(-1), event.shiftKey),
      ArrowDown: () => this.move(this.vertical(1), event.shiftKey),
      Home: () => this.move(0, event.shiftKey),
      End: () => this.move(this.spans.length - 1, event.shiftKey),
      Enter: () => this.choose(Math.max(0, this.active), event.shiftKey, event.altKey),
      " ": () => this.choose(Math.max(0, this.active), event.shiftKey, event.altKey),
      Escape: () => {
        this.drag = null;
        this.clear();
        this.paint();
      },
    };
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }
}

/** @type {WeakMap<object, Strip>} Streamlit calls again at each change: one instance a place. */
const strips = new WeakMap();

/**
 * Streamlit's entry: called on mounting and again whenever data or theme changed.
 * @param {{data: StripData | null, parentElement: ShadowRoot | HTMLElement,
 *   setStateValue: (name: string, value: unknown) => void,
 *   setTriggerValue: (name: string, value: unknown) => void}} component
 * @returns {() => void} Called on unmounting, and for a drawing that a newer one overtook.
 */
export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const strip = strips.get(parentElement) ?? new Strip(parentElement);
  strips.set(parentElement, strip);
  if (!data) return () => {};
  strip.setSelection = (value) => setStateValue("selection", value);
  strip.askInstead = (value) => setTriggerValue("instead", value);
  strip.draw(data);
  return strip.poller.drawn(data.streaming || data.pending, () => setTriggerValue("poll", data.tick));
}
