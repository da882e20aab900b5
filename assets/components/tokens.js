// Shared by the components: what a token looks like, the colour scale, and the theme. Knows nothing of selections
// or cards. Prepended to strip.js, cards.js and help.js.
// Every text in here came from a model or a data set: `textContent` only.

/** @typedef {string | [text: string, raw: string, special: boolean]} WireToken Plain text unless more is to be said. */
/** @typedef {{text: string, raw: string, special: boolean}} TokenView */
/** @typedef {[red: number, green: number, blue: number]} Rgb Each 0 to 255. */
/** @typedef {{text: Rgb, background: Rgb, dark: boolean}} Theme */
/** @typedef {{background: string, color: string}} Paint Empty strings: as the theme has it. */

// ---------------------------------------------------------------- tokens

/** Drawn as nothing, or able to reorder what stands around it. */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/u;
const EMOJI = /\p{Extended_Pictographic}|\p{Emoji_Modifier}|\ufe0f/u;
const END = /end|eos|eot|<\/s>/i;
const NAMED = { "\n": "↵", "\r": "␍", "\t": "⇥" };

/** @param {WireToken} wire @returns {TokenView} */
function readToken(wire) {
  if (typeof wire === "string") return { text: wire, raw: "", special: false };
  return { text: wire[0], raw: wire[1], special: wire[2] };
}

/** Joiners and variation selectors are left alone only where they shape an emoji. */
function isShaping(/** @type {string} */ char, /** @type {string} */ before, /** @type {string} */ after) {
  if (char === "\u200d") return EMOJI.test(before) && EMOJI.test(after);
  return (char === "\ufe0e" || char === "\ufe0f") && before !== "" && !INVISIBLE.test(before) && before.trim() !== "";
}

/**
 * Cuts text into what is shown as it is and what is shown as a mark.
 * @param {string} text
 * @param {{spaces: boolean, breaks: boolean}} marked Whether spaces and line breaks get marks as well.
 * @returns {{text: string, mark: boolean}[]}
 */
function pieces(text, marked) {
  /** @type {{text: string, mark: boolean}[]} */
  const found = [];
  const add = (/** @type {string} */ piece, /** @type {boolean} */ mark) => {
    const last = found.at(-1);
    if (last && last.mark === mark) last.text += piece;
    else found.push({ text: piece, mark });
  };
  const chars = Array.from(text);
  chars.forEach((char, index) => {
    const code = /** @type {number} */ (char.codePointAt(0));
    if (char === "\n" || char === "\t") {
      if (marked.breaks) add(NAMED[char], true);
      add(char, false);
    } else if (char === "\r") {
      // The pair \r\n is one line break.
      if (marked.breaks || chars[index + 1] !== "\n") add(NAMED[char], true);
    } else if (marked.spaces && /\p{Zs}/u.test(char)) {
      add("·", true);
    } else if (INVISIBLE.test(char) && !isShaping(char, chars[index - 1] ?? "", chars[index + 1] ?? "")) {
      add(`U+${code.toString(16).toUpperCase().padStart(4, "0")}`, true);
    } else {
      add(char, false);
    }
  });
  return found;
}

/**
 * Shows untrusted text in an element, invisible characters as marks.
 * @param {HTMLElement} element
 * @param {string} text
 * @param {{spaces: boolean, breaks: boolean}} marked
 */
function fillText(element, text, marked = { spaces: false, breaks: false }) {
  element.replaceChildren(
    ...pieces(text, marked).map((piece) => (piece.mark ? make("span", "mark", piece.text) : piece.text)),
  );
}

/**
 * An element with a class and a text; the only place where elements are made.
 * @param {string} tag @param {string} [name] @param {string} [text] @returns {HTMLElement}
 */
function make(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}

/**
 * One clickable token.
 * @param {TokenView} token @param {number} index @returns {HTMLElement}
 */
function tokenSpan(token, index) {
  const span = make("span", "token");
  span.dataset.tokenIndex = String(index);
  if (token.special) {
    span.classList.add("special");
    fillText(span, token.text === "" || END.test(token.text) ? "■ end" : `■ ${token.text}`);
  } else if (token.text === "") {
    span.classList.add("partial");
    span.textContent = "\ufffd";
  } else {
    const blank = token.text.trim() === "";
    fillText(span, token.text, { spaces: blank, breaks: true });
  }
  return span;
}

/**
 * A token in words, for tooltips and screen readers.
 * @param {TokenView} token @returns {string}
 */
function tokenName(token) {
  const bytes = token.raw ? `bytes ${token.raw}` : "";
  if (token.special) return token.text ? `${shown(token.text)} (control token)` : "end of sequence";
  if (token.text === "") return bytes ? `part of a character, ${bytes}` : "part of a character";
  if (/^ +$/.test(token.text)) return token.text.length === 1 ? "space" : `${token.text.length} spaces`;
  if (/^\n+$/.test(token.text)) return token.text.length === 1 ? "line break" : `${token.text.length} line breaks`;
  return bytes ? `${shown(token.text.trim())}, ${bytes}` : shown(token.text.trim());
}

/**
 * Where a token is mostly seen: one that wraps may leave no more than its space on the line before.
 * @param {HTMLElement} span @returns {DOMRect}
 */
function mainBox(span) {
  const boxes = [...span.getClientRects()];
  return boxes.reduce((widest, box) => (box.width > widest.width ? box : widest), boxes[0] ?? span.getBoundingClientRect());
}

/** Text with its invisible characters as marks, as one plain string. */
function shown(/** @type {string} */ text) {
  return pieces(text, { spaces: false, breaks: true }).map((piece) => piece.text).join("") || "space";
}

// ---------------------------------------------------------------- numbers

/** @param {number | null} value @param {number} digits Significant ones. @returns {string} With its sign. */
function signed(value, digits) {
  if (value === null) return "n/a";
  if (value === 0) return "0";
  const size = Math.abs(value).toPrecision(digits).replace(/e-/, "e−").replace(/e\+/, "e");
  return (value < 0 ? "−" : "+") + size;
}

// ---------------------------------------------------------------- theme and colours

/** End points of the scale, chosen to leave 4.5 : 1 for the theme's own text. */
const ENDS = {
  light: { positive: [255, 159, 64], negative: [125, 184, 255], plain: [190, 150, 255] },
  dark: { positive: [176, 92, 6], negative: [31, 102, 193], plain: [112, 70, 190] },
};
const STEPS = 64;

/** @param {string} css As computed by the browser. @param {Rgb} otherwise @returns {Rgb} */
function readColour(css, otherwise) {
  const numbers = /^rgba?\(/.test(css) ? css.match(/[\d.]+/g) : null;
  if (!numbers || numbers.length < 3 || Number(numbers[3] ?? 1) === 0) return otherwise;
  return [Number(numbers[0]), Number(numbers[1]), Number(numbers[2])];
}

/** @param {HTMLElement} root Holds a `.probe` whose colours are the theme's variables. @returns {Theme} */
function readTheme(root) {
  const probe = root.querySelector(".probe") ?? root.appendChild(make("span", "probe"));
  const style = getComputedStyle(probe);
  const background = readColour(style.backgroundColor, [255, 255, 255]);
  const dark = luminance(background) < 0.2;
  const text = readColour(style.color, dark ? [250, 250, 250] : [49, 51, 63]);
  root.classList.toggle("dark", dark);
  return { text, background, dark };
}

const toLinear = (/** @type {number} */ c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const fromLinear = (/** @type {number} */ c) =>
  Math.round(255 * Math.min(1, Math.max(0, c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055)));

/** WCAG relative luminance. @param {Rgb} colour */
function luminance(colour) {
  const [r, g, b] = colour.map(toLinear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** WCAG contrast ratio, 1 to 21. @param {Rgb} a @param {Rgb} b */
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** OKLab (Björn Ottosson, 2020): equal steps look equal. @param {Rgb} colour */
function toOklab(colour) {
  const [r, g, b] = colour.map(toLinear);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

/** @param {number[]} lab @returns {Rgb} */
function fromOklab([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    fromLinear(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    fromLinear(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    fromLinear(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

const css = (/** @type {number[]} */ colour) => `rgb(${colour.join(", ")})`;

/**
 * The colour scale of a theme: a ratio from −1 (blue) over 0 (background) to 1 (orange; violet for what has no sign).
 * @param {Theme} theme
 * @param {boolean} twoSided
 * @returns {(ratio: number) => Paint}
 */
function colourScale(theme, twoSided = true) {
  const ends = theme.dark ? ENDS.dark : ENDS.light;
  const from = toOklab(theme.background);
  /** @type {Map<number, Paint>} */
  const known = new Map();
  return (ratio) => {
    const step = Math.round(Math.max(-1, Math.min(1, ratio || 0)) * STEPS);
    const found = known.get(step);
    if (found) return found;
    const to = toOklab(/** @type {Rgb} */ (step < 0 ? ends.negative : twoSided ? ends.positive : ends.plain));
    const part = Math.abs(step) / STEPS;
    const background = fromOklab(from.map((value, axis) => value + part * (to[axis] - value)));
    /** @type {Rgb[]} Black or white always reaches 4.5 : 1 where the theme's own text does not. */
    const texts = [theme.text, [17, 17, 17], [255, 255, 255]];
    const color = texts.find((text) => contrast(text, background) >= 4.5) ?? theme.text;
    const paint = step === 0 ? { background: "", color: "" } : { background: css(background), color: css(color) };
    known.set(step, paint);
    return paint;
  };
}
