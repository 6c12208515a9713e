/** The categories as chips: typed or pasted names, removed by Backspace or ×, walked through with the arrow keys. */

const SEPARATOR = /[,;\n]/;

/**
 * Category names that a text lists, each with its synonyms separated by ", ".
 *
 * As on the command line, ";" and line breaks separate categories, and commas then separate synonyms; without
 * them commas separate categories. "|" always separates synonyms, and inside quotes a comma does too.
 * @param {string} text
 * @returns {string[]}
 */
export function parseNames(text) {
  const pieces = split(text.trim());
  const several = pieces.some(({ separator }) => separator !== ",");
  const entries = several ? joinedAtCommas(pieces) : pieces.map((piece) => piece.text);
  return entries.map(withSynonyms).filter((name) => name);
}

/** The parts of a text between separators outside quotes, each with the separator before it. */
function split(text) {
  const pieces = [{ text: "", separator: "," }];
  let quoted = false;
  for (const character of text) {
    if (character === '"') quoted = !quoted;
    else if (!quoted && SEPARATOR.test(character)) pieces.push({ text: "", separator: character });
    else pieces.at(-1).text += character;
  }
  return pieces;
}

function joinedAtCommas(pieces) {
  const entries = [];
  for (const { text, separator } of pieces) {
    if (separator === "," && entries.length) entries[entries.length - 1] += `,${text}`;
    else entries.push(text);
  }
  return entries;
}

function withSynonyms(entry) {
  return entry.split(/[,|]/).map(collapsed).filter((word) => word).join(", ");
}

function collapsed(text) {
  return text.trim().replace(/\s+/g, " ");
}

export class Chips {
  #names = [];

  /**
   * @param {HTMLUListElement} list
   * @param {HTMLInputElement} entry
   * @param {() => void} changed called after every change
   * @param {(text: string) => void} announce tells what changed to those who cannot see it
   */
  constructor(list, entry, changed, announce) {
    this.list = list;
    this.entry = entry;
    this.changed = changed;
    this.announce = announce;
    entry.addEventListener("input", (event) => this.#typed(event));
    entry.addEventListener("keydown", (event) => this.#entryKey(event));
    entry.addEventListener("paste", (event) => this.#pasted(event));
    entry.addEventListener("blur", () => this.#commit());
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("keydown", (event) => this.#chipKey(event));
    list.parentElement.addEventListener("click", (event) => {
      if (event.target === list.parentElement || event.target === list) entry.focus();
    });
  }

  /** The names, each with its synonyms separated by ", ". */
  get names() {
    return [...this.#names];
  }

  /** Put other names in place of all. */
  replace(names) {
    this.#names = [];
    this.list.replaceChildren();
    this.#append(names);
    this.list.parentElement.scrollTop = 0;
    this.changed();
  }

  /** Add names; those that are there already are left out. */
  add(names) {
    const added = this.#append(names);
    this.list.parentElement.scrollTop = this.list.parentElement.scrollHeight;
    if (added.length) this.changed();
    const left = names.length - added.length;
    const repeated = left ? `; ${left === 1 ? "one is" : `${left} are`} there already` : "";
    this.announce(`${added.length === 1 ? added[0] : `${added.length} categories`} added${repeated}.`);
  }

  #append(names) {
    const known = new Set(this.#names.map(folded));
    const added = names.filter((name) => !known.has(folded(name)) && known.add(folded(name)));
    this.#names.push(...added);
    this.list.append(...added.map(chip));
    return added;
  }

  #removeAt(index) {
    const [name] = this.#names.splice(index, 1);
    this.list.children[index].remove();
    const next = this.list.children[Math.min(index, this.#names.length - 1)];
    (next ? next.firstElementChild : this.entry).focus();
    this.announce(`${name} removed.`);
    this.changed();
  }

  #commit() {
    const names = parseNames(this.entry.value);
    this.entry.value = "";
    if (names.length) this.add(names);
  }

  #typed(event) {
    if (event.isComposing) return;
    if (split(this.entry.value).length > 1) this.#commit();
  }

  #pasted(event) {
    const text = event.clipboardData.getData("text/plain");
    // A line of input would lose the line breaks.
    if (!SEPARATOR.test(text)) return;
    event.preventDefault();
    this.entry.value = "";
    this.add(parseNames(text));
  }

  #entryKey(event) {
    if (event.isComposing) return;
    const atStart = this.entry.selectionStart === 0 && this.entry.selectionEnd === 0;
    if (event.key === "Enter") {
      event.preventDefault();
      this.#commit();
    } else if (event.key === "Backspace" && atStart && this.entry.value === "" && this.#names.length) {
      this.#removeAt(this.#names.length - 1);
      this.entry.focus();
    } else if (event.key === "ArrowLeft" && atStart && this.#names.length) {
      event.preventDefault();
      this.list.lastElementChild.firstElementChild.focus();
    }
  }

  #chipKey(event) {
    const index = this.#indexOf(event.target);
    const last = this.#names.length - 1;
    const target = { ArrowLeft: Math.max(0, index - 1), ArrowRight: index + 1, Home: 0, End: last + 1 }[event.key];
    if (target !== undefined) {
      event.preventDefault();
      (target > last ? this.entry : this.list.children[target].firstElementChild).focus();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.#removeAt(index);
    }
  }

  #clicked(event) {
    const index = this.#indexOf(event.target);
    if (index >= 0) this.#removeAt(index);
  }

  #indexOf(element) {
    return [...this.list.children].indexOf(element.closest("li"));
  }
}

function folded(name) {
  return collapsed(name).toLowerCase();
}

/** A chip: a button that removes it, out of the order of the Tab key, as there may be hundreds. */
function chip(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  button.setAttribute("aria-label", `Remove ${name}`);
  const text = document.createElement("span");
  text.className = "chip-name";
  text.textContent = name;
  const cross = document.createElement("span");
  cross.textContent = "×";
  button.append(text, cross);
  const item = document.createElement("li");
  item.append(button);
  return item;
}
