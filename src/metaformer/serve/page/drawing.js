// What is drawn over an image: boxes and masks, regions, and where a model looked. And what lies under a point of it.
// Places are in parts of the image, 0 to 1, so that it may be shown, and may have been sent, in any size.

import { css, heat, inkOn, rgb } from "./colours.js";
import { percent } from "./dom.js";

const MAP_SIDE = 1024; // pixels of the longer side that a map of regions is kept in

/** Objects over an image that is `W` × `H` here. `active` is pointed at; `names`: whether labels are written. */
export function drawObjects(pen, W, H, record, shown, { active = null, opacity = 0.5, numbers, line = 2, names = true }) {
  const across = W / record.width;
  const down = H / record.height;
  for (const object of [...shown].reverse()) {
    const faded = active !== null && object !== active;
    const colour = numbers.get(object.label) ?? 0;
    const [x0, y0, x1, y1] = object.box;
    pen.globalAlpha = faded ? 0.25 : 1;
    if (object.polygons?.length) {
      const shape = outline(object, across, down);
      pen.fillStyle = css(colour, object === active ? Math.min(1, opacity + 0.25) : opacity);
      pen.fill(shape, "evenodd");
      pen.lineWidth = line * 0.75;
      pen.strokeStyle = css(colour);
      pen.stroke(shape);
    }
    pen.lineWidth = object === active ? line * 1.75 : line;
    pen.strokeStyle = css(colour, object.polygons?.length && object !== active ? 0.55 : 1);
    pen.strokeRect(x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
  }
  pen.globalAlpha = 1;
  const named = !names ? [] : active === null ? [...shown].reverse() : [active];
  for (const object of named) drawName(pen, W, H, object, across, down, numbers);
}

function drawName(pen, W, H, object, across, down, numbers) {
  const size = 12 * (devicePixelRatio || 1);
  const colour = numbers.get(object.label) ?? 0;
  const text = `${object.label} ${percent(object.score)}`;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const wide = pen.measureText(text).width + size * 0.8;
  const high = size * 1.5;
  const x = Math.max(0, Math.min(object.box[0] * across, W - wide));
  const above = object.box[1] * down - high;
  const y = above >= 0 ? above : Math.min(object.box[1] * down, H - high);
  pen.fillStyle = css(colour);
  pen.fillRect(x, y, wide, high);
  pen.fillStyle = inkOn(colour);
  pen.fillText(text, x + size * 0.4, y + high / 2);
}

function outline(object, across, down) {
  const shape = new Path2D();
  for (const points of object.polygons) {
    for (let i = 0; i + 1 < points.length; i += 2) {
      shape[i === 0 ? "moveTo" : "lineTo"](points[i] * across, points[i + 1] * down);
    }
    shape.closePath();
  }
  return shape;
}

const judge = document.createElement("canvas").getContext("2d");

/** The smallest object that covers a point; null where there is none. */
export function objectAt(record, shown, u, v) {
  const x = u * record.width;
  const y = v * record.height;
  const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
  const covers = (object) => {
    const [x0, y0, x1, y1] = object.box;
    if (x < x0 || x > x1 || y < y0 || y > y1) return false;
    return !object.polygons?.length || judge.isPointInPath(outline(object, 1, 1), x, y, "evenodd");
  };
  const found = shown.filter(covers);
  return found.length === 0 ? null : found.reduce((best, object) => (area(object) < area(best) ? object : best));
}

/** The bytes of what came as base64. */
export const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** Grey values of a PNG, scaled down to at most so many pixels a side without mixing them. */
async function greys(base64, largest) {
  const blob = new Blob([bytes(base64)], { type: "image/png" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const part = Math.min(1, largest / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(part * bitmap.width));
  canvas.height = Math.max(1, Math.round(part * bitmap.height));
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = false;
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
  return { width, height, values: data.filter((_, i) => i % 4 === 0) };
}

/** A record's map of class numbers. */
export const readRegions = (record) => greys(record.png, MAP_SIDE);

/** The class under a point of a map. */
export function regionAt({ width, height, values }, u, v) {
  const x = Math.min(width - 1, Math.max(0, Math.floor(u * width)));
  const y = Math.min(height - 1, Math.max(0, Math.floor(v * height)));
  return values[y * width + x];
}

/**
 * A canvas with every region in its class's colour, to be drawn over the image; `active` stands out where it is not null.
 * What has the number of no class, such as 255, stays bare.
 */
export function paintRegions({ width, height, values }, { classes, hidden = new Set(), active = null }) {
  const colours = Array.from({ length: 256 }, (_, index) => {
    const opacity = index >= classes || hidden.has(index) ? 0 : active === null || index === active ? 255 : 60;
    return [...rgb(index), opacity];
  });
  return painted(width, height, (data) => {
    for (let i = 0; i < values.length; i++) data.set(colours[values[i]], 4 * i);
  });
}

/** A canvas with a record's heat, to be drawn over its box. */
export async function readHeat(record) {
  const { width, height, values } = await greys(record.heat, MAP_SIDE);
  return painted(width, height, (data) => {
    for (let i = 0; i < values.length; i++) data.set(heat[values[i]], 4 * i);
  });
}

function painted(width, height, fill) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  fill(image.data);
  pen.putImageData(image, 0, 0);
  return canvas;
}

/** Draws heat where the model saw the image; what it was not shown is dimmed. */
export function drawHeat(pen, W, H, record, canvas, opacity) {
  const [x0, y0, x1, y1] = record.box;
  const [left, top] = [(x0 / record.width) * W, (y0 / record.height) * H];
  const [wide, high] = [((x1 - x0) / record.width) * W, ((y1 - y0) / record.height) * H];
  pen.save();
  pen.beginPath();
  pen.rect(0, 0, W, H);
  pen.rect(left, top, wide, high);
  pen.fillStyle = `rgb(0 0 0 / ${0.5 * opacity})`;
  pen.fill("evenodd");
  pen.globalAlpha = opacity;
  pen.imageSmoothingQuality = "high";
  pen.beginPath();
  pen.rect(0, 0, W, H);
  pen.clip();
  pen.drawImage(canvas, left, top, wide, high);
  pen.restore();
}
