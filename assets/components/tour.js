// Brings the part of the page that a step of the tour is about into view, once a step.

let shown = "";

/**
 * Streamlit's entry: called on mounting and again whenever data changed.
 * @param {{data: {place: string, step: number} | null}} component
 */
export default function ({ data }) {
  if (!data || shown === `${data.step} ${data.place}`) return;
  shown = `${data.step} ${data.place}`;
  document.querySelector(`.st-key-${CSS.escape(data.place)}`)?.scrollIntoView({ block: "start" });
}
