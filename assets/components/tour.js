// Brings the part of the page that a step of the tour is about into view, once a step.

const SETTLED_MS = 1500;

let shown = "";

/**
 * Streamlit's entry: called on mounting and again whenever data changed.
 * @param {{data: {place: string, step: number} | null}} component
 */
export default function ({ data }) {
  if (!data || shown === `${data.step} ${data.place}`) return;
  shown = `${data.step} ${data.place}`;
  const bring = () => document.querySelector(`.st-key-${CSS.escape(data.place)}`)?.scrollIntoView({ block: "start" });
  bring();
  // What stands below it may still be on its way, and the page too short to scroll so far.
  const growing = new ResizeObserver(bring);
  growing.observe(document.querySelector(".stMainBlockContainer") ?? document.body);
  setTimeout(() => growing.disconnect(), SETTLED_MS);
}
