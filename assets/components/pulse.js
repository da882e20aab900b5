// Draws nothing: asks Python for news at a steady pace while there is some. Needs poller.js before it.

/* global Poller */

/** @type {WeakMap<ShadowRoot | HTMLElement, Poller>} */
const pulses = new WeakMap();

/**
 * Streamlit's entry: called on mounting and again whenever the data changed.
 * @param {{data: {tick: number, moving: boolean, every: number} | null, parentElement: ShadowRoot | HTMLElement,
 *   setTriggerValue: (name: string, value: unknown) => void}} component
 * @returns {() => void} Called on unmounting, and for a drawing that a newer one overtook.
 */
export default function ({ data, parentElement, setTriggerValue }) {
  const poller = pulses.get(parentElement) ?? new Poller();
  pulses.set(parentElement, poller);
  if (!data) return () => {};
  return poller.drawn(data.moving, () => setTriggerValue("poll", data.tick), data.every);
}
