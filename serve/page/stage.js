/** The image below its colours: pointing names a category, a click isolates it, arrow keys move a cross. */

// Longest side of the canvas of colours, in pixels; the label map itself stays whole.
const LONGEST_SIDE = 2048;
// Most pixels of an overlay that is saved; some browsers can hold no more in a canvas.
const MOST_SAVED = 16_000_000;
// What covers the other categories when one is isolated.
const VEIL = "#0c0e12";
// Steps of the cross from one side of the image to the other, with Shift and without.
const STEPS = { fine: 200, coarse: 25 };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Stage {
  #labels = null;
  #scores = null;
  #names = [];
  #colours = [];
  #isolated = null;
  #probe = { x: 0.5, y: 0.5 };

  /**
   * @param {object} parts the elements `stage`, `photo`, `overlay`, `tag`, `probe`
   * @param {object} listeners `pointed(index or null)`, `chosen(index or null)` and `announce(text)`
   */
  constructor(parts, listeners) {
    Object.assign(this, parts);
    this.listeners = listeners;
    this.stage.addEventListener("pointermove", (event) => this.#pointed(event));
    this.stage.addEventListener("pointerleave", () => this.#left());
    this.stage.addEventListener("click", (event) => this.#clicked(event));
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.stage.addEventListener("blur", () => this.#left());
    // The server reads formats that browsers do not; their colours are shown alone.
    this.photo.addEventListener("error", () => {
      this.photo.hidden = true;
      this.stage.hidden = !this.#labels;
    });
    this.photo.addEventListener("load", () => {
      this.photo.hidden = this.stage.hidden = false;
      if (!this.#labels) this.#setSize(this.photo.naturalWidth, this.photo.naturalHeight);
    });
  }

  /** Show another image, without colours yet. */
  showImage(blob) {
    URL.revokeObjectURL(this.photo.src);
    this.clear();
    this.photo.src = URL.createObjectURL(blob);
  }

  /** Take the colours away. */
  clear() {
    this.#labels = this.#scores = this.#isolated = null;
    this.overlay.hidden = true;
    this.#left();
  }

  /**
   * Show a label map.
   * @param {{width, height, values}} labels indices into `names`
   * @param {{depth, values} | null} scores of the labels, 0 to the largest value of their depth
   * @param {string[]} names
   * @param {{index, colour}[]} categories those in the image, with colours as CSS writes them: "#1f5f99"
   * @param {number | null} isolated the category to isolate
   */
  showLabels(labels, scores, names, categories, isolated) {
    this.#labels = labels;
    this.#scores = scores;
    this.#names = names;
    this.#colours = [];
    for (const { index, colour } of categories) this.#colours[index] = wordOf(colour);
    this.#setSize(labels.width, labels.height);
    this.isolate(isolated);
    this.overlay.hidden = false;
    this.stage.hidden = false;
  }

  /** Colour one category alone, or all for null. */
  isolate(index) {
    this.#isolated = index;
    if (this.#labels) this.#draw();
  }

  /** How strong the colours are: 0 shows the image alone, 1 the colours alone. */
  set opacity(opacity) {
    this.overlay.style.opacity = opacity;
  }

  /** The image with its colours as shown, as a PNG file. */
  async saved() {
    const { width, height } = this.#labels;
    const scale = Math.min(1, Math.sqrt(MOST_SAVED / (width * height)));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    if (!this.photo.hidden) context.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = Number(this.overlay.style.opacity);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.overlay, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #setSize(width, height) {
    this.stage.style.setProperty("--ratio", width / height);
  }

  #draw() {
    const { width, height, values } = this.#labels;
    const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
    const columns = Math.max(1, Math.round(width * scale));
    const rows = Math.max(1, Math.round(height * scale));
    const labels = scale === 1 ? values : sampled(values, width, height, columns, rows);
    const context = this.overlay.getContext("2d");
    this.overlay.width = columns;
    this.overlay.height = rows;
    const pixels = context.createImageData(columns, rows);
    const words = new Uint32Array(pixels.data.buffer);
    if (this.#isolated === null) paint(words, labels, this.#colours);
    else spotlight(words, labels, columns, this.#isolated, this.#colours[this.#isolated]);
    context.putImageData(pixels, 0, 0);
  }

  /** Index and score of the category at a place given by fractions of the sides. */
  #at({ x, y }) {
    const { width, height, values } = this.#labels;
    const column = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
    const row = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
    const pixel = row * width + column;
    const score = this.#scores && this.#scores.values[pixel] / (2 ** this.#scores.depth - 1);
    return { index: values[pixel], score };
  }

  #place(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #pointed(event) {
    this.probe.hidden = true;
    if (this.#labels) this.#showTag(this.#place(event));
  }

  #showTag(place) {
    const { index, score } = this.#at(place);
    this.tag.textContent = labelText(this.#names[index], score);
    this.tag.hidden = false;
    this.tag.style.left = `${100 * place.x}%`;
    this.tag.style.top = `${100 * place.y}%`;
    // It stays inside the image, on the side of the pointer that has room.
    this.tag.classList.toggle("to-left", place.x > 0.5);
    this.tag.classList.toggle("above", place.y > 0.5);
    this.listeners.pointed(index);
    return this.tag.textContent;
  }

  #left() {
    this.tag.hidden = this.probe.hidden = true;
    this.listeners.pointed(null);
  }

  #clicked(event) {
    if (!this.#labels) return;
    const { index } = this.#at(this.#place(event));
    this.listeners.chosen(index === this.#isolated ? null : index);
  }

  #key(event) {
    if (!this.#labels || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in ARROWS) {
      const step = 1 / (event.shiftKey ? STEPS.fine : STEPS.coarse);
      const [right, down] = ARROWS[event.key];
      this.#probe.x = Math.min(0.999, Math.max(0, this.#probe.x + right * step));
      this.#probe.y = Math.min(0.999, Math.max(0, this.#probe.y + down * step));
      this.probe.style.left = `${100 * this.#probe.x}%`;
      this.probe.style.top = `${100 * this.#probe.y}%`;
      this.listeners.announce(this.#showTag(this.#probe));
      this.probe.hidden = false;
    } else if (event.key === "Enter") {
      const { index } = this.#at(this.#probe);
      this.listeners.chosen(index === this.#isolated ? null : index);
    } else if (event.key === "Escape") {
      this.listeners.chosen(null);
    } else {
      return;
    }
    event.preventDefault();
  }
}

function labelText(name, score) {
  return score === null ? name : `${name} ${Math.round(100 * score)} %`;
}

/** The labels at the centres of the pixels of a smaller map. */
function sampled(values, width, height, columns, rows) {
  const labels = new values.constructor(columns * rows);
  for (let row = 0; row < rows; row += 1) {
    const start = Math.floor(((row + 0.5) * height) / rows) * width;
    for (let column = 0; column < columns; column += 1) {
      labels[row * columns + column] = values[start + Math.floor(((column + 0.5) * width) / columns)];
    }
  }
  return labels;
}

/** A pixel of a canvas as one word; all machines that run browsers today are little-endian. */
function wordOf(colour) {
  const [red, green, blue] = [1, 3, 5].map((start) => Number.parseInt(colour.slice(start, start + 2), 16));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function paint(words, labels, colours) {
  for (let pixel = 0; pixel < words.length; pixel += 1) words[pixel] = colours[labels[pixel]];
}

/** Leave one category as it is inside an outline of its colour, and cover all others. */
function spotlight(words, labels, columns, index, outline) {
  const veil = wordOf(VEIL);
  const thickness = Math.max(1, Math.round(columns / 400));
  const near = [-thickness, thickness, -thickness * columns, thickness * columns];
  for (let pixel = 0; pixel < words.length; pixel += 1) {
    if (labels[pixel] !== index) words[pixel] = veil;
    else if (near.some((offset) => (labels[pixel + offset] ?? index) !== index)) words[pixel] = outline;
  }
}
