// Elements, and how figures are written. Text from outside becomes text, never markup.

/** An element: `make("p", { className: "soft" }, "text", child)`; `on...` are listeners, names with a dash attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (id) => document.getElementById(id);

/** 0.9134 → 91 %; small and nearly certain ones keep a decimal, so that nothing is 0 or 100 that is not. */
export function percent(part) {
  const value = 100 * part;
  if (value > 0 && value < 0.1) return "< 0.1\u00a0%";
  if (value < 100 && value > 99.9) return "> 99.9\u00a0%";
  return `${value < 1 || value > 99 ? Number(value.toFixed(1)) : Math.round(value)}\u00a0%`;
}

export const number = (value) => value.toLocaleString("en");

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export const seconds = (value) =>
  value < 0.0995 ? `${Math.max(1, Math.round(1000 * value))} ms` : `${value.toFixed(value < 10 ? 1 : 0)} s`;

/** At most once per frame, however often it is called. */
export function oncePerFrame(work) {
  let planned = false;
  return () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      work();
    });
  };
}

/** Something to slide from 0 to 100, with its name and value: calls `moved` with 0 to 1. */
export function slider(name, value, moved, step = 1) {
  const shown = make("output", { "aria-hidden": "true" });
  const input = make("input", { type: "range", min: 0, max: 100, step, "aria-label": name });
  const tell = () => {
    shown.textContent = `${input.value}\u00a0%`;
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  const set = (part) => {
    input.value = Math.round(100 * part);
    tell();
  };
  input.addEventListener("input", () => {
    tell();
    moved(Number(input.value) / 100);
  });
  set(value);
  return { element: make("label", { className: "slider" }, make("span", {}, name), input, shown), set };
}

/** Puts text on the clipboard; where the browser allows that only to pages by https, selects it. Tells whether it copied. */
export async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand?.("copy") ?? false;
  }
}

/** Offers bytes as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A file's name, which breaks anywhere but in its ending. */
export function fileName(name) {
  const at = name.search(/\.\w{1,5}$/);
  return at < 1 ? [name] : [name.slice(0, at), make("span", { className: "whole" }, name.slice(at))];
}
