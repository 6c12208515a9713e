/** The page: an image is sent once, and segmented again whenever the categories or the settings change. */

import { getJson, patiently, postJson, request, RequestError, setKey } from "./api.js";
import { Chips } from "./chips.js";
import { bytesOf, decodeGreyPng } from "./maps.js";
import { markIsolated, markPointed, showKept, showLegend, showTimes } from "./panels.js";
import { Stage } from "./stage.js";

// Scores are asked for up to this size; beyond it they would take longer to send than to compute.
const MOST_SCORES = 4_000_000;
// Changes that follow each other within so many milliseconds become one request.
const DEBOUNCE_MS = 120;

const PLACEHOLDER = document.getElementById("entry").placeholder;

const $ = (id) => document.getElementById(id);

const state = {
  /** The image: a Blob and its name. */
  image: null,
  /** The image at the server: `controller`, `promise` of what the server said about it. */
  encoding: null,
  /** The AbortController of the update under way. */
  update: null,
  /** What is shown: the server's answer. */
  answer: null,
  isolated: null,
  limits: null,
  timer: 0,
};

const stage = new Stage(
  { stage: $("stage"), photo: $("photo"), overlay: $("overlay"), tag: $("tag"), probe: $("probe") },
  { pointed: (index) => markPointed($("legend"), index), chosen: isolate, announce: say },
);
const chips = new Chips($("chip-list"), $("entry"), categoriesChanged, say);

// What the server has

async function start() {
  hideError();
  try {
    const { bundles, limits } = await getJson("v1/bundles");
    showBundles(bundles);
    await showLists();
    await showExamples();
    state.limits = limits;
  } catch (error) {
    fail(error);
  }
}

async function tryAgain() {
  if (!state.limits) await start();
  if (state.limits) await update();
}

function showBundles(bundles) {
  $("bundle").replaceChildren(...bundles.map(({ name }) => new Option(name, name)));
  $("bundle-label").hidden = bundles.length < 2;
  const describe = () => {
    const { name, preset, precision, backend, backend_reason: reason } = bundles[$("bundle").selectedIndex];
    $("bundle-line").textContent = `${name}: ${preset}, ${precision}, on ${backend}`;
    $("bundle-reason").textContent = reason;
    $("bundle-details").hidden = false;
  };
  $("bundle").onchange = () => {
    describe();
    encodeAgain();
  };
  describe();
}

async function showLists() {
  const { vocabularies, published } = await getJson("v1/vocabularies");
  const names = [...vocabularies.map(({ name }) => name), ...published];
  $("lists").replaceChildren(new Option("choose…", ""), ...names.map((name) => new Option(name, name)));
  $("lists-label").hidden = $("lists").options.length < 2;
}

async function showExamples() {
  const { images, vocabulary } = await getJson("v1/examples");
  if (vocabulary.length) {
    $("lists").options[0].after(new Option(`of the examples (${vocabulary.length})`, ""));
    $("lists").options[1].dataset.names = JSON.stringify(vocabulary);
    $("lists-label").hidden = false;
  }
  // They are fetched rather than linked, as a link carries no key.
  const blobs = await Promise.all(images.map(async ({ name }) => (await request(`v1/examples/${encodeURIComponent(name)}`)).blob()));
  $("examples").replaceChildren(...blobs.map((blob, index) => exampleButton(images[index].name, blob, vocabulary)));
  $("examples").hidden = $("examples-hint").hidden = images.length === 0;
}

function exampleButton(name, blob, vocabulary) {
  const picture = new Image();
  picture.src = URL.createObjectURL(blob);
  picture.alt = `Example ${name}`;
  const button = document.createElement("button");
  button.type = "button";
  button.append(picture);
  button.addEventListener("click", () => {
    if (!chips.names.length) chips.replace(vocabulary);
    open(blob, name);
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

async function takeList() {
  const option = $("lists").selectedOptions[0];
  $("lists").selectedIndex = 0;
  try {
    const names = option.dataset.names
      ? JSON.parse(option.dataset.names)
      : (await getJson(`v1/vocabularies/${encodeURIComponent(option.value)}`)).categories;
    chips.replace(names);
    say(`${names.length} categories in place of the former ones.`);
  } catch (error) {
    fail(error);
  }
}

// The image

function open(blob, name) {
  const bytes = state.limits?.bytes;
  if (bytes && blob.size > bytes) {
    fail(new RequestError(`${name}: ${megabytes(blob.size)} is over ${megabytes(bytes)}, the most that this server reads; make it smaller first.`, 413));
    return;
  }
  state.image = { blob, name };
  state.isolated = null;
  $("file-name").textContent = name;
  $("file-name").hidden = false;
  $("file-label").textContent = "Choose another";
  document.body.classList.add("has-image");
  stage.showImage(blob);
  showAnswer(null);
  encodeAgain();
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function encodeAgain() {
  if (!state.image) return;
  forgetEncoding();
  update();
}

/** Send the image; the server keeps what it computes from the image alone. */
function encode() {
  const controller = new AbortController();
  const query = new URLSearchParams({ short_side: $("short-side").value });
  if ($("bundle").value) query.set("bundle", $("bundle").value);
  // The server looks at the content, whatever the file is called.
  const headers = { "Content-Type": "application/octet-stream" };
  const options = { method: "POST", body: state.image.blob, headers, signal: controller.signal };
  const send = async () => (await request(`v1/images?${query}`, options)).json();
  const encoding = { controller, promise: patiently(send, controller.signal, tellBusy) };
  encoding.promise.catch(() => {
    // A failed one is tried anew by the next update.
    if (state.encoding === encoding) state.encoding = null;
  });
  state.encoding = encoding;
  return encoding.promise;
}

function forgetEncoding() {
  const former = state.encoding;
  state.encoding = null;
  if (!former) return;
  former.controller.abort();
  former.promise.then(({ image }) => request(`v1/images/${image}`, { method: "DELETE", keepalive: true })).catch(() => {
    // The server forgets the image by itself after a while.
  });
}

// The answer

function categoriesChanged() {
  const count = chips.names.length;
  $("category-count").textContent = count || "";
  $("clear").hidden = count === 0;
  $("entry").placeholder = count ? "add…" : PLACEHOLDER;
  state.isolated = null;
  clearTimeout(state.timer);
  state.timer = setTimeout(update, DEBOUNCE_MS);
}

/** Segment the image with the categories, whatever was under way before. */
async function update() {
  clearTimeout(state.timer);
  state.update?.abort();
  const controller = new AbortController();
  state.update = controller;
  const { signal } = controller;
  hideError();
  if (!state.image) return;
  const names = chips.names;
  try {
    working("Encoding the image…");
    await encoded(signal);
    if (names.length === 0) {
      showAnswer(null);
      say("The image is ready. Name some categories.");
    } else {
      working("Segmenting…");
      const answer = await segmented(names, signal);
      const labels = await decodeGreyPng(bytesOf(answer.labels.data));
      const scores = answer.scores ? await decodeGreyPng(bytesOf(answer.scores.data)) : null;
      signal.throwIfAborted();
      showAnswer(answer, labels, scores);
      say(`${answer.categories.length} of ${names.length} categories in the image, most of it ${answer.categories[0].name}.`);
    }
    working("");
  } catch (error) {
    if (signal.aborted) return;
    working("");
    fail(error);
  }
}

async function encoded(signal) {
  const info = await (state.encoding?.promise ?? encode());
  signal.throwIfAborted();
  return info;
}

async function segmented(names, signal) {
  const send = async () => {
    const { image, width, height } = await encoded(signal);
    const output = width * height <= MOST_SCORES ? "labels,scores" : "labels";
    const content = { image_id: image, bundle: $("bundle").value || undefined, categories: names, rejection: $("rejection").value, output };
    return patiently(() => postJson("v1/segment", content, signal), signal, tellBusy);
  };
  try {
    return await send();
  } catch (error) {
    // The server keeps images for a while only.
    if (error.status !== 404) throw error;
    state.encoding = null;
    working("Encoding the image again…");
    return send();
  }
}

function showAnswer(answer, labels, scores) {
  state.answer = answer;
  for (const id of ["tools", "stage-help", "legend-section", "figures"]) $(id).hidden = !answer;
  if (!answer) {
    stage.clear();
    return;
  }
  if (!answer.categories.some(({ index }) => index === state.isolated)) state.isolated = null;
  stage.showLabels(labels, scores, answer.names, answer.categories, state.isolated);
  $("stage").setAttribute("aria-label", `The segmented image: ${answer.categories.slice(0, 5).map(({ name }) => name).join("; ")}`);
  showLegend($("legend"), answer.categories, (index) => isolate(index === state.isolated ? null : index));
  showKept($("kept"), answer.names.length, answer.kept);
  showTimes(document, answer.timings_ms, answer.queue_ms);
  isolate(state.isolated);
}

function isolate(index) {
  const former = state.isolated;
  state.isolated = index;
  stage.isolate(index);
  markIsolated($("legend"), index);
  $("show-all").hidden = index === null;
  if (index !== former) say(index === null ? "All categories are shown." : `${state.answer.names[index]} alone.`);
}

// Files

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${state.image.name.replace(/\.[^.]*$/, "")}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function saveJson() {
  const { labels, scores, ...content } = state.answer;
  const text = JSON.stringify({ image: state.image.name, ...content }, null, 1);
  save(new Blob([`${text}\n`], { type: "application/json" }), "json");
}

// Words

function say(text) {
  $("status").textContent = text;
}

function tellBusy(seconds) {
  say(`The server is busy; trying again in ${Math.max(1, Math.ceil(seconds))} s.`);
}

/** Show that something is under way, or with "" that nothing is. */
function working(text) {
  $("working").hidden = !text;
  $("stage").setAttribute("aria-busy", String(Boolean(text)));
  if (text) say(text);
}

function fail(error) {
  if (error.status === 401) {
    askForKey();
    return;
  }
  say("");
  $("error-text").textContent = error.message;
  // What the server refuses it would refuse again.
  const refused = error.status >= 400 && error.status < 500 && error.status !== 429;
  $("retry").hidden = refused;
  $("error").hidden = false;
}

function hideError() {
  $("error").hidden = true;
}

function askForKey() {
  $("key-dialog").onclose = () => {
    const key = $("key").value;
    $("key").value = "";
    if (key) {
      setKey(key);
      tryAgain();
    } else {
      fail(new RequestError("This server answers only with a key.", 0));
    }
  };
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

// What the user does

function take(files) {
  if (files.length) open(files[0], files[0].name || "pasted image");
}

$("file").addEventListener("change", () => {
  take($("file").files);
  // So that the same file may be chosen again after it was changed.
  $("file").value = "";
});
$("lists").addEventListener("change", takeList);
$("clear").addEventListener("click", () => {
  chips.replace([]);
  say("All categories removed.");
  $("entry").focus();
});
$("rejection").addEventListener("change", update);
$("short-side").addEventListener("change", encodeAgain);
$("opacity").addEventListener("input", () => { stage.opacity = $("opacity").value / 100; });
$("show-all").addEventListener("click", () => {
  isolate(null);
  $("legend").querySelector("button").focus();
});
$("download-labels").addEventListener("click", () => save(new Blob([bytesOf(state.answer.labels.data)], { type: "image/png" }), "labels.png"));
$("download-json").addEventListener("click", saveJson);
$("download-overlay").addEventListener("click", async () => save(await stage.saved(), "overlay.png"));
$("retry").addEventListener("click", tryAgain);
$("dismiss").addEventListener("click", hideError);

document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  take(event.clipboardData.files);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
});
window.addEventListener("pagehide", forgetEncoding);

stage.opacity = $("opacity").value / 100;
start();
