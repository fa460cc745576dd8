// Small things that several parts of the page show: patches of colour, chips with counts, and why there is no answer.

import { css } from "./colours.js";
import { make } from "./dom.js";

/** A patch of a class's colour. */
export function swatch(index) {
  const patch = make("span", { className: "swatch", "aria-hidden": "true" });
  patch.style.background = css(index ?? 0);
  return patch;
}

/** A class with how often it was found, to be pressed. */
export function chip({ label, count, index, pressed }, press) {
  const button = make(
    "button", { type: "button", className: "chip", "aria-pressed": String(pressed), onclick: press },
    swatch(index), make("span", {}, label), make("span", { className: "count" }, String(count)),
  );
  button.dataset.label = label;
  return button;
}

/** An answer's pairs of a name and a figure, the figures in softer ink. */
export const inked = (parts) =>
  parts.flatMap(([name, figure], i) => [i > 0 ? ", " : "", name, " ", make("span", { className: "figure" }, figure)]);

/** Replaces what an element holds; a chip that had the focus has it again. */
export function replaceChips(holder, chips) {
  const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.label : null;
  holder.replaceChildren(...chips);
  if (focused !== null) chips.find((one) => one.dataset.label === focused)?.focus();
}

/** Why there is no answer, with the request's id where there is one, and a button where trying again may help. */
export function refusal(words, request, again = null, name = "Retry") {
  const id = request ? make("p", { className: "soft small" }, "Request ", make("code", {}, request)) : null;
  const retry = again && make("button", { type: "button", className: "primary", onclick: () => again() }, name);
  return make("div", { className: "note warn", role: "alert" }, make("p", {}, words), id, retry);
}

/** What is said while the service is busy, or opens a model. */
export const busy = ({ seconds, attempt, of, code }) =>
  `The service ${code === "starting" ? "is opening its models" : "is busy"}. Trying again in ${Math.ceil(seconds)} s (try ${attempt} of ${of}) …`;
