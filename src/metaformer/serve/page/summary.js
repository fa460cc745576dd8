// An answer in a few words, and as rows of a CSV file.

import { percent, plural } from "./dom.js";

const SURE = 0.5; // from which on a label is given, where an image may have several
const DECIDED = 0.6; // under which a single label is called unsure

/** Whether a task's answers are boxes. */
export const finds = (task) => task === "detection" || task === "instances";

/** Objects that score enough, the surest first. */
export const enough = (record, threshold) =>
  record.objects.filter(({ score }) => score >= threshold).sort((a, b) => b.score - a.score);

/** [label, count] of objects, the most frequent first. */
export function counted(objects) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

/** Regions, the largest first. */
export const largestFirst = (record) => record.regions.filter(({ share }) => share > 0).sort((a, b) => b.share - a.share);

/** { label, value, parts, words }: the first label, its probability, score or share; a line for people, in pairs and whole. */
export function summary(record, model, threshold) {
  const { label, value, parts } = told(record, model, threshold);
  return { label, value, parts, words: parts.map((pair) => pair.filter(Boolean).join(" ")).join(", ") };
}

function told(record, model, threshold) {
  const nothing = (value, words) => ({ label: "", value, parts: [[words, ""]] });
  if (record.error) return nothing(null, record.error);
  if (finds(model.task)) {
    const objects = enough(record, threshold);
    if (objects.length === 0) return nothing(0, "nothing found");
    const counts = counted(objects);
    return { label: counts[0][0], value: objects[0].score, parts: counts.map(([label, count]) => [label, `×\u00a0${count}`]) };
  }
  if (model.task === "segmentation") {
    const [first] = largestFirst(record);
    if (!first) return nothing(0, "nothing");
    return { label: first.label, value: first.share, parts: [[first.label, percent(first.share)]] };
  }
  const sure = model.several ? record.top.filter(({ probability }) => probability >= SURE) : [];
  const shown = sure.length > 0 ? sure : record.top.slice(0, 1);
  const parts = shown.map(({ label, probability }) => [label, percent(probability)]);
  return { label: record.label, value: record.probability, parts };
}

/** Whether a classifier is hardly surer of its first class than of all others together. */
export const unsure = (record, model) =>
  model.task === "classification" && !model.several && !record.error && record.probability < DECIDED;

/** A sentence for who cannot see the bars. */
export function spoken(record, model, threshold) {
  const { words } = summary(record, model, threshold);
  if (record.error) return words;
  if (model.task === "classification") {
    const rest = record.top.slice(1, 3).map(({ label, probability }) => `${label} ${percent(probability)}`);
    const first = unsure(record, model) ? `unsure, ${words}` : words;
    return model.several || rest.length === 0 ? first : `${first}; then ${rest.join(", ")}`;
  }
  if (model.task === "segmentation") {
    const regions = largestFirst(record);
    return `${plural(regions.length, "region")}: ${regions.map(({ label, share }) => `${label} ${percent(share)}`).join(", ")}`;
  }
  return `${plural(enough(record, threshold).length, "object")}: ${words}`;
}

const HEADS = {
  classification: ["name", "label", "probability"],
  detection: ["name", "label", "score", "x0", "y0", "x1", "y1"],
  instances: ["name", "label", "score", "x0", "y0", "x1", "y1"],
  segmentation: ["name", "label", "share"],
};

/** A file's text of what a model answered about items; boxes are in the image's own pixels. */
export function csv(items, model, threshold) {
  const several = items.reduce((most, item) => Math.max(most, item.record(model)?.top?.length ?? 1), 1);
  const more = Array.from({ length: several - 1 }, (_, i) => [`label_${i + 2}`, `probability_${i + 2}`]).flat();
  const head = [...HEADS[model.task], ...more, "error"];
  const rows = items.flatMap((item) => rowsOf(item, model, threshold, head.length));
  const lines = [head, ...rows].map((row) => row.map(cell).join(","));
  return `\ufeff${lines.join("\r\n")}\r\n`; // by the mark spreadsheets know that it is UTF-8
}

function rowsOf(item, model, threshold, width) {
  const record = item.record(model);
  const failed = (why) => [[item.name, ...Array(width - 2).fill(""), why]];
  if (record === null) return failed(item.answer(model)?.error?.message ?? "not asked");
  if (record.error) return failed(record.error);
  const full = (row) => [item.name, ...row, ...Array(width - row.length - 1).fill("")];
  if (finds(model.task)) {
    const [across, down] = item.width === null ? [1, 1] : [item.width / record.width, item.height / record.height];
    const box = ([x0, y0, x1, y1]) => [x0 * across, y0 * down, x1 * across, y1 * down].map((value) => Number(value.toFixed(2)));
    const objects = enough(record, threshold);
    return objects.length === 0 ? [full([])] : objects.map((object) => full([object.label, object.score, ...box(object.box)]));
  }
  if (model.task === "segmentation") return largestFirst(record).map(({ label, share }) => full([label, share]));
  return [full(record.top.flatMap(({ label, probability }) => [label, probability]))];
}

/** Text that begins like a formula gets an apostrophe, or a spreadsheet would run it. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const safe = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n;]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
