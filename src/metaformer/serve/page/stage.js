// The canvas on which an image is shown: as large as there is room, sharp on every screen, with what is drawn over it.

import { make, oncePerFrame } from "./dom.js";

const SMALL = 400; // an image of fewer pixels is shown larger than it is, its pixels as squares
const HIGH = 0.68; // of the window, that an image may take

/** `paint(pen, W, H)` draws over the image; `pointed(u, v)` is told where the pointer is, and answers what to show there. */
export function makeStage(paint, pointed) {
  const canvas = make("canvas", { role: "img" });
  const tip = make("div", { className: "tip", hidden: true });
  const placeholder = make("p", { className: "placeholder", hidden: true });
  const element = make("div", { className: "stage" }, canvas, tip, placeholder);
  let bitmap = null;

  const draw = oncePerFrame(() => {
    const room = element.clientWidth;
    if (bitmap === null || room === 0 || bitmap.width === 0) return;
    const { width, height } = bitmap;
    const largest = Math.max(width, height);
    const zoom = Math.min(room / width, (HIGH * innerHeight) / height, largest < SMALL ? SMALL / largest : 1);
    const sharp = devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(zoom * width * sharp));
    canvas.height = Math.max(1, Math.round(zoom * height * sharp));
    canvas.style.width = `${canvas.width / sharp}px`;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = largest >= 96;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = true;
    paint(pen, canvas.width, canvas.height);
  });

  new ResizeObserver(draw).observe(element);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const words = pointed((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    tip.hidden = !words;
    if (!words) return;
    tip.textContent = words;
    const around = element.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - around.left + 14, around.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(4, event.clientY - around.top - tip.offsetHeight - 10)}px`;
  });
  for (const gone of ["pointerleave", "pointercancel"]) {
    canvas.addEventListener(gone, () => {
      tip.hidden = true;
      pointed(null, null);
    });
  }

  return {
    element,
    draw,
    /** Shows an image, or where there is none says why. */
    show(picture, name) {
      bitmap = picture.bitmap;
      canvas.hidden = bitmap === null;
      placeholder.hidden = bitmap !== null;
      placeholder.textContent = bitmap === null ? `This browser cannot show ${name}. It is sent all the same.` : "";
      canvas.setAttribute("aria-label", name);
      draw();
    },
    describe(words) {
      canvas.setAttribute("aria-label", words);
    },
  };
}
