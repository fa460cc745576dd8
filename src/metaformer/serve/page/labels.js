// A classifier's answer: bars with names, and a slider that shows where it looked.

import { make, percent, plural, slider } from "./dom.js";
import { drawHeat, readHeat } from "./drawing.js";
import { askWhere } from "./asking.js";

const SHOWN = 0.65; // how strongly heat is drawn when a bar is pressed
const FEW = 6; // classes that are all named

/** The view of a record: { element, paint, pointed }. `stop` ends what it asks when the view goes. */
export function labelsView({ record, model, item, picture, limits, look, redraw, say, stop }) {
  const maps = new Map(); // label → { record, canvas }, a promise of them
  let asked = record.label;
  let drawn = null;
  const message = make("p", { className: "soft small", role: "status" });

  const where = slider("Where it looked", look.heat, (part) => {
    look.heat = part;
    show();
  });

  async function show() {
    const label = asked;
    for (const [button, name] of buttons) button.setAttribute("aria-pressed", String(look.heat > 0 && name === label));
    redraw();
    if (look.heat === 0) {
      message.textContent = "";
      return;
    }
    if (!maps.has(label)) {
      message.textContent = "Asking where it looked …";
      const answer = askWhere(item, model, picture, limits, label, stop).then(async (told) => {
        if (told.error) throw new Error(told.error);
        return { record: told, canvas: await readHeat(told) };
      });
      maps.set(label, answer);
    }
    try {
      const found = await maps.get(label);
      if (label !== asked) return;
      drawn = found;
      message.textContent = look.heat > 0 ? `Bright is what spoke most for ${label}.` : "";
      redraw();
    } catch (error) {
      maps.delete(label);
      if (error.name === "AbortError") return;
      message.textContent = error.message;
      say(error.message);
    }
  }

  const buttons = [];
  const bars = record.top.map(({ label, probability }, i) => {
    const bar = make("span", { className: "bar" }, make("span", { className: "fill" }));
    bar.firstChild.style.width = `${100 * probability}%`;
    const words = [make("span", { className: "name" }, label), make("span", { className: "value" }, percent(probability)), bar];
    if (!model.explains) return make("li", { className: i === 0 ? "first" : "" }, make("div", { className: "row" }, ...words));
    const press = () => {
      const again = asked === label && look.heat > 0;
      asked = label;
      look.heat = again ? 0 : look.heat || SHOWN;
      where.set(look.heat);
      show();
    };
    const title = `Where it saw ${label}`;
    const button = make("button", { type: "button", className: "row", title, onclick: press }, ...words);
    buttons.push([button, label]);
    return make("li", { className: i === 0 ? "first" : "" }, button);
  });
  const alone = "An image may have several of these: each bar stands alone.";
  const several = model.several ? make("p", { className: "soft small" }, alone) : null;
  const names = model.classes.length <= FEW ? `: ${model.classes.join(", ")}` : ` ${plural(model.classes.length, "class", "classes")}`;
  const known = make("p", { className: "soft small" }, `It knows only${names}.`);
  const controls = model.explains ? make("div", { className: "controls" }, where.element, message) : null;
  if (model.explains && look.heat > 0) show();
  return {
    element: make("div", {}, make("ol", { className: "bars" }, ...bars), several, known, controls),
    paint(pen, W, H) {
      if (drawn !== null && look.heat > 0) drawHeat(pen, W, H, drawn.record, drawn.canvas, look.heat);
    },
    pointed: () => null,
  };
}
