// The images that were given, and asking models about them: one at once, or many in requests of a few.

import { close, open, prepare, thumbnail } from "./pictures.js";
import { ask, form, Refused } from "./service.js";

export const TOP = 5;
export const LEAST = 0.05; // score of the least sure object that is asked for: what is shown is chosen here
const TOGETHER = 8; // images of a request; small, so that progress is seen
const LANES = 2; // requests at a time: while the service works on one the next is made ready

let given = 0;

/** An image with the models' answers. */
export class Item {
  constructor(file, made = false) {
    this.id = ++given;
    this.file = file;
    this.name = file.name;
    this.made = made; // by the page or the clipboard, so that it lies in no folder
    this.width = this.height = null;
    this.thumb = null;
    this.answers = new Map(); // model's name → { state, record, seconds, sent, request, error, since, waiting }
  }

  answer(model) {
    return this.answers.get(model.name) ?? null;
  }

  record(model) {
    const answer = this.answer(model);
    return answer?.state === "done" ? answer.record : null;
  }

  /** Opens the file and remembers its size and a thumbnail. The caller closes the picture. */
  async picture() {
    const picture = await open(this.file);
    if (this.thumb === null && picture.bitmap !== null) {
      [this.width, this.height] = [picture.width, picture.height];
      this.thumb = await thumbnail(picture);
    }
    return picture;
  }
}

const options = (model) => ({ model: model.name, ...(model.task === "classification" ? { top: TOP } : { threshold: LEAST }) });

/** Asks a model about one image whose picture is open. `changed()` is called as things happen. */
export async function askOne(item, model, picture, limits, changed) {
  const old = item.answer(model);
  if (old?.state === "asking" || old?.state === "done") return;
  const control = new AbortController();
  begin([item], model, control);
  changed();
  try {
    const ready = await prepare(item.file, picture, model.task, limits);
    await request([item], [ready], model, control.signal, changed);
  } catch (error) {
    fail([item], model, control.signal.aborted ? control.signal.reason : error); // a picture may be closed by then
  }
  changed();
}

/**
 * Asks a model about all images that it has not answered, in a few requests at a time, until all is done or `signal` ends it.
 * Raises Refused where the service is to be asked later; what was not answered can be asked again.
 */
export async function askMany(items, model, limits, signal, changed) {
  const left = items.filter((item) => !["asking", "done"].includes(item.answer(model)?.state));
  const control = new AbortController(); // what one lane cannot, the other need not try
  signal.addEventListener("abort", () => control.abort(), { once: true });
  const lane = async () => {
    while (left.length > 0 && !control.signal.aborted) await chunk(left, model, limits, control, changed);
  };
  const lanes = Array.from({ length: LANES }, lane);
  try {
    await Promise.all(lanes);
  } catch (error) {
    control.abort();
    await Promise.allSettled(lanes); // until then what they asked about is not free
    throw error;
  }
}

async function chunk(left, model, limits, control, changed) {
  const [items, ready] = [[], []];
  const most = Math.min(TOGETHER, limits.images ?? TOGETHER);
  let size = 0;
  while (left.length > 0 && items.length < most && !control.signal.aborted) {
    const bytes = Math.min(left[0].file.size, limits.image ?? Infinity);
    if (items.length > 0 && size + bytes > 0.9 * (limits.body ?? Infinity)) break;
    const item = left.shift();
    items.push(item);
    begin([item], model, control);
    const picture = await item.picture();
    ready.push(await prepare(item.file, picture, model.task, limits));
    close(picture);
    size += bytes;
    changed();
  }
  try {
    control.signal.throwIfAborted();
    await request(items, ready, model, control.signal, changed);
  } catch (error) {
    const alone = error instanceof Refused && [400, 413, 415, 422].includes(error.status);
    if (!alone || items.length === 1) fail(items, model, error);
    if (!alone) throw error;
    if (items.length > 1) await oneByOne(items, ready, model, control.signal, changed);
  }
  changed();
}

/** Of images that were refused together, so that one does not take the others with it. */
async function oneByOne(items, ready, model, signal, changed) {
  for (const [i, item] of items.entries()) {
    try {
      await request([item], [ready[i]], model, signal, changed);
    } catch (error) {
      const here = error instanceof Refused && !error.again;
      fail(here ? [item] : items.slice(i), model, error);
      if (!here) throw error;
    }
  }
}

async function request(items, ready, model, signal, changed) {
  const body = form(items.map((item, i) => ({ blob: ready[i].blob, name: item.name })));
  const waiting = (told) => {
    for (const item of items) item.answer(model).waiting = told;
    changed();
  };
  const { told, request: id } = await ask("predict", { options: options(model), body, signal, waiting });
  for (const [i, item] of items.entries()) {
    const record = told.results[i];
    const { sent } = ready[i];
    item.answers.set(model.name, { state: "done", record, seconds: told.seconds, sent, request: id });
  }
}

function begin(items, model, control) {
  for (const item of items) item.answers.set(model.name, { state: "asking", since: performance.now(), waiting: null, control });
}

function fail(items, model, error) {
  const state = error.name === "AbortError" ? "cancelled" : "failed";
  if (state === "failed" && !(error instanceof Refused)) throw error;
  for (const item of items) item.answers.set(model.name, { state, error });
}

/** Asks where a classifier looked for a class. */
export async function askWhere(item, model, picture, limits, label, signal) {
  const { blob } = await prepare(item.file, picture, model.task, limits);
  const body = form([{ blob, name: item.name }]);
  const { told } = await ask("explain", { options: { model: model.name, label }, body, signal });
  return told.results[0];
}
