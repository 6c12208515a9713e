/** The legend with its shares, the kept counts and the times of the stages. */

// Steps that depend on the image alone: they are run once for any number of categories.
const ENCODING_STEPS = ["load", "resize", "pixels", "image"];

/**
 * A button for each category in the image, largest first.
 * @param {HTMLUListElement} list
 * @param {{index, name, share, colour}[]} categories
 * @param {(index: number) => void} chosen called on a click
 */
export function showLegend(list, categories, chosen) {
  list.replaceChildren(...categories.map(({ index, name, share, colour }) => {
    const button = element("button", { type: "button", "aria-pressed": "false" });
    button.dataset.index = index;
    const swatch = element("span", { class: "swatch" });
    swatch.style.backgroundColor = colour;
    const bar = element("span", { class: "share-bar" });
    bar.style.width = `${100 * share}%`;
    bar.style.backgroundColor = colour;
    button.append(swatch, element("span", { class: "name" }, name), element("span", { class: "share" }, percent(share)), bar);
    button.addEventListener("click", () => chosen(index));
    const item = element("li");
    item.append(button);
    return item;
  }));
}

/** Mark the category that is isolated, or none for null. */
export function markIsolated(list, isolated) {
  list.classList.toggle("isolating", isolated !== null);
  for (const button of list.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.index) === isolated));
  }
}

/** Mark the category below the pointer, or none for null. */
export function markPointed(list, index) {
  for (const button of list.querySelectorAll("button")) {
    button.classList.toggle("pointed", Number(button.dataset.index) === index);
  }
}

/** How many categories there were, and how many were left after each rejection. */
export function showKept(list, total, kept) {
  const points = ["named", "after the scout", "after decoder 1", "after decoder 2"];
  list.replaceChildren(...[total, ...kept].map((count, index) => {
    const item = element("li");
    const bar = element("span", { class: "kept-bar" });
    bar.style.height = `${Math.max(4, (100 * count) / total)}%`;
    const column = element("span", { class: "kept-column", "aria-hidden": "true" });
    column.append(bar);
    item.append(column, element("strong", {}, String(count)), element("span", {}, ` ${points[index] ?? ""}`));
    return item;
  }));
}

/**
 * The times of an answer, those of the encoding apart.
 * @param {Document} page
 * @param {Record<string, number>} timings milliseconds by step
 * @param {number} queue milliseconds that the request waited for others
 */
export function showTimes(page, timings, queue) {
  const steps = Object.entries(timings);
  const encoding = steps.filter(([name]) => ENCODING_STEPS.includes(name));
  const answer = steps.filter(([name]) => !ENCODING_STEPS.includes(name));
  showBar(page, "encoding", encoding);
  showBar(page, "answer", queue ? [["queue", queue], ...answer] : answer);
}

function showBar(page, which, steps) {
  const total = steps.reduce((sum, [, milliseconds]) => sum + milliseconds, 0);
  page.getElementById(`${which}-total`).textContent = duration(total);
  const bar = page.getElementById(`${which}-bar`);
  bar.setAttribute("aria-label", `${duration(total)}: ${steps.map(([name, time]) => `${name} ${duration(time)}`).join(", ")}`);
  bar.replaceChildren(...steps.map(([, milliseconds], index) => {
    const part = element("span", { class: `step-${index}` });
    part.style.flexGrow = milliseconds;
    return part;
  }));
  page.getElementById(`${which}-times`).replaceChildren(...steps.map(([name, milliseconds], index) => {
    const item = element("li");
    item.append(element("span", { class: `dot step-${index}` }), `${name} ${duration(milliseconds)}`);
    return item;
  }));
}

function duration(milliseconds) {
  if (milliseconds >= 10_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function element(name, attributes = {}, text = "") {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
