// Rows: what is embedded in the page, decoded, filtered and searched.
//
// A column of text is a list of its values and one code for each row, so a search looks at each
// value once and not at each row's text.

const inflate = async (id) => {
  const element = document.getElementById(id);
  if (!element) return null;
  const text = atob(element.textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const running = (deltas, first) => {
  const sums = new Float64Array(deltas.length);
  let sum = first;
  for (let at = 0; at < deltas.length; at++) sums[at] = sum += deltas[at];
  return sums;
};

const hex = (bytes) => Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");

class Rows {
  constructor(data) {
    this.size = data.rows;
    this.groups = data.groups; // [{name, title}], in the order of their codes
    this.group = Uint8Array.from(data.group);
    this.time = running(data.time, 0);
    this.leaf = running(data.leaf, 0);
    this.columns = new Map(Object.entries(data.columns));
    this.titles = data.titles; // of each column
    for (const column of this.columns.values()) {
      column.codes = Uint32Array.from(column.codes);
      column.lower = column.values.map((one) => one.toLowerCase());
    }
    this.hashes = null;
    const named = [...this.columns.get("workload").values, ...this.columns.get("actor").values];
    this.domains = new Set(named.filter(Boolean).map((one) => one.split("/")[2]));
  }

  // A SPIFFE ID as it is told apart here: the trust domain only where there are several.
  short(name) {
    const rest = name.replace(/^spiffe:\/\//, "");
    if (this.domains.size > 1) return rest;
    return rest.replace(/^[^/]+\//, "").replace(/^ns\/([^/]+)\/sa\/([^/]+)$/, "$1/$2");
  }

  text(name, row) {
    const column = this.columns.get(name);
    return column ? column.values[column.codes[row]] : "";
  }

  // Intent, commitment and signature hash of each row, which take the most room: they are
  // decoded when a row is looked at or a hash is searched.
  async loadHashes() {
    if (this.hashes) return;
    const bytes = await inflate("hashes");
    const parts = new Map();
    let at = 0;
    for (const [name, width] of [["intent", 16], ["commitment", 32], ["signature_hash", 32]]) {
      const length = bytes ? width * this.size : 0;
      parts.set(name, { width, bytes: bytes?.subarray(at, at + length) });
      at += length;
    }
    this.hashes = parts;
  }

  hash(name, row) {
    const part = this.hashes?.get(name);
    if (!part?.bytes) return "";
    const found = part.bytes.subarray(row * part.width, (row + 1) * part.width);
    return found.some((one) => one) ? hex(found) : "";
  }

  // Rows whose intent, commitment or signature hash begins with these digits.
  #withHash(digits, kept) {
    const whole = digits.length >> 1;
    const wanted = new Uint8Array(whole);
    for (let at = 0; at < whole; at++) wanted[at] = parseInt(digits.substr(2 * at, 2), 16);
    const half = digits.length & 1 ? parseInt(digits.at(-1), 16) : -1;
    for (const { width, bytes } of this.hashes.values()) {
      if (!bytes || digits.length > 2 * width) continue;
      for (let row = 0; row < this.size; row++) {
        let at = row * width, same = 0;
        while (same < whole && bytes[at] === wanted[same]) { at++; same++; }
        if (same === whole && (half < 0 || bytes[at] >> 4 === half)) kept[row] = 1;
      }
    }
  }

  // For each row whether it has this word: in any column, or in the one that is named.
  #having({ field, value }) {
    const kept = new Uint8Array(this.size);
    if (field === "leaf") {
      for (let row = 0; row < this.size; row++) kept[row] = String(this.leaf[row]) === value;
      return kept;
    }
    for (const [name, column] of this.columns) {
      if (field && name !== field) continue;
      const hits = column.lower.map((text) => text.includes(value));
      if (!hits.includes(true)) continue;
      const { codes } = column;
      for (let row = 0; row < this.size; row++) if (hits[codes[row]]) kept[row] = 1;
    }
    const digits = value.replaceAll("-", "");
    const hashed = !field || this.hashes?.has(field);
    if (hashed && this.hashes && /^[0-9a-f]{6,64}$/.test(digits)) this.#withHash(digits, kept);
    return kept;
  }

  // Rows that have all words and are of none of the hidden groups; in the order of time.
  filter(words, hidden) {
    const tests = words.map((word) => this.#having(word));
    const found = new Uint32Array(this.size);
    let count = 0;
    for (let row = 0; row < this.size; row++) {
      if (hidden.has(this.group[row])) continue;
      let all = true;
      for (const test of tests) if (!test[row]) { all = false; break; }
      if (all) found[count++] = row;
    }
    return found.subarray(0, count);
  }

  // First place in `rows` whose row is not before this time.
  place(rows, time) {
    let low = 0, high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.time[rows[middle]] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

// "tenant:acme reason:"rate limit" 3f2a" as words; what is in quotes is one. A name before a colon
// that is no column is part of the word.
const parseQuery = (text, rows) => {
  const fields = new Set([...rows.columns.keys(), "leaf", "intent", "commitment", "signature_hash"]);
  const words = [];
  for (const found of text.toLowerCase().matchAll(/(?:([a-z_]+):)?(?:"([^"]*)"?|(\S+))/g)) {
    const [whole, field, quoted, plain] = found;
    const value = quoted ?? plain;
    if (field && !fields.has(field)) words.push({ field: "", value: whole.replaceAll('"', "") });
    else if (value) words.push({ field: field ?? "", value });
  }
  return words;
};

const wantsHashes = (words) =>
  words.some((one) => /^[0-9a-f-]{6,68}$/.test(one.value) || /^(intent|commitment|signature_hash)$/.test(one.field));
