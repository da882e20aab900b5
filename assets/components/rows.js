// A table whose rows open by a click anywhere, or by the button in each. Needs tokens.js before it.

/* global make, readTheme */

/**
 * @typedef {string | [string, string, string]} Cell A text, or one whose middle part is marked.
 * @typedef {{columns: [string, string][], rows: [string, ...Cell[]][], opens: number, current: string}} RowsData
 */

const HUES = 12;

class Rows {
  /** @param {ShadowRoot | HTMLElement} parent */
  constructor(parent) {
    this.root = make("div", "rows");
    /** What is drawn, so that the same isn't drawn again. */
    this.shown = "";
    this.table = this.root.appendChild(make("table"));
    // Narrow rows are blocks, which would no longer be a table to screen readers.
    this.table.setAttribute("role", "table");
    this.table.addEventListener("click", (event) => this.open(event));
    /** @type {(name: string) => void} */
    this.send = () => {};
    parent.append(this.root);
  }

  /** @param {RowsData} data @param {(name: string) => void} send */
  draw(data, send) {
    this.send = send;
    readTheme(this.root);
    const shown = JSON.stringify(data);
    if (shown === this.shown) return;
    this.shown = shown;
    const focused = this.table.querySelector("button:focus")?.closest("tr")?.dataset.name;
    const head = make("tr");
    head.setAttribute("role", "row");
    for (const [name, kind] of data.columns) {
      const cell = make("th", kind, name);
      cell.setAttribute("scope", "col");
      cell.setAttribute("role", "columnheader");
      head.append(cell);
    }
    const body = document.createElement("tbody");
    body.setAttribute("role", "rowgroup");
    body.append(...data.rows.map((row) => this.row(row, data)));
    const top = make("thead");
    top.setAttribute("role", "rowgroup");
    top.append(head);
    this.table.replaceChildren(top, body);
    const again = [...body.rows].find((line) => line.dataset.name === focused);
    if (focused) again?.querySelector("button")?.focus({ preventScroll: true });
  }

  /** @param {[string, ...Cell[]]} row @param {RowsData} data */
  row([name, ...cells], data) {
    const line = make("tr");
    line.setAttribute("role", "row");
    if (name) line.dataset.name = name;
    if (name && name === data.current) line.setAttribute("aria-current", "true");
    cells.forEach((cell, index) => {
      const [title, kind] = data.columns[index];
      const place = make("td", kind);
      place.setAttribute("role", "cell");
      place.dataset.title = title;
      if (name && index === data.opens) {
        const button = place.appendChild(make("button"));
        button.setAttribute("type", "button");
        fill(button, cell);
      } else if (kind === "chip" || kind === "state") {
        if (cell) place.append(chip(cell, kind));
      } else {
        fill(place, cell);
      }
      line.append(place);
    });
    return line;
  }

  /** @param {MouseEvent} event */
  open(event) {
    const target = event.target;
    const line = target instanceof Element ? target.closest("tr") : null;
    // Who marks text with the mouse, to copy it, opens nothing.
    const marking = event.detail > 0 && getSelection()?.type === "Range";
    if (line?.dataset.name && !marking) this.send(line.dataset.name);
  }
}

/** @param {HTMLElement} place @param {Cell} cell */
function fill(place, cell) {
  if (typeof cell === "string") {
    place.textContent = cell;
  } else {
    place.append(cell[0], make("mark", "", cell[1]), cell[2]);
  }
}

/** @param {Cell} cell @param {string} kind */
function chip(cell, kind) {
  const found = make("span", "chip");
  fill(found, cell);
  const text = found.textContent ?? "";
  if (kind === "state") {
    found.dataset.state = text;
  } else {
    let sum = 0;
    for (const letter of text) sum = (31 * sum + (letter.codePointAt(0) ?? 0)) % 9973;
    found.style.setProperty("--hue", String((360 / HUES) * (sum % HUES)));
  }
  return found;
}

/** @type {WeakMap<object, Rows>} */
const drawn = new WeakMap();

/**
 * Streamlit's entry: called on mounting and again whenever data or theme changed.
 * @param {{data: RowsData | null, parentElement: ShadowRoot | HTMLElement,
 *   setTriggerValue: (name: string, value: unknown) => void}} component
 */
export default function ({ data, parentElement, setTriggerValue }) {
  const table = drawn.get(parentElement) ?? new Rows(parentElement);
  drawn.set(parentElement, table);
  if (data) table.draw(data, (name) => setTriggerValue("open", name));
}
