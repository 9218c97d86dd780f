// Everything about one row: its fields, and how to prove it.

const element = (name, properties, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const save = (name, bytes) => {
  const url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
};

const copying = (text) => {
  const button = element("button", { type: "button", className: "copy", textContent: "Copy" });
  button.setAttribute("aria-label", `Copy ${text}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page opened from a file may not be let
      const field = element("textarea", { value: text });
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
};

const code = (text) => element("div", { className: "code" }, element("code", { textContent: text }), copying(text));

class Details {
  constructor(rows, proof, elements, actions) {
    Object.assign(this, { rows, proof, actions, ...elements }); // panel: the element
  }

  close() {
    this.panel.hidden = true;
  }

  async show(row) {
    this.row = row;
    await this.rows.loadHashes();
    if (this.row !== row) return;
    const title = element("h2", { id: "details-title", textContent: this.rows.text("what", row) });
    const close = element("button", { type: "button", className: "close", textContent: "Close" });
    close.addEventListener("click", () => this.actions.close());
    this.panel.replaceChildren(element("div", { className: "head" }, title, close), this.#fields(row));
    this.panel.append(this.#proof(row));
    this.panel.hidden = false;
    this.panel.scrollTop = 0;
  }

  #fields(row) {
    const list = element("dl", {});
    const add = (name, text, value) => {
      if (!text) return;
      const shown = element("dd", {});
      if (/^[0-9a-f-]{16,}$/.test(text) || text.includes("/")) shown.append(element("code", { textContent: text }), copying(text));
      else shown.textContent = text;
      if (value) shown.append(this.#filter(name, value));
      list.append(element("dt", { textContent: this.rows.titles[name] ?? name }), shown);
    };
    add("time", `${day(this.rows.time[row])} ${clock(this.rows.time[row])} UTC`);
    for (const name of this.rows.columns.keys()) {
      const text = this.rows.text(name, row);
      if (name !== "what") add(name, text, text);
    }
    for (const name of ["intent", "commitment", "signature_hash"]) add(name, this.rows.hash(name, row));
    add("leaf", String(this.rows.leaf[row]));
    return list;
  }

  #filter(name, value) {
    const button = element("button", { type: "button", className: "copy only", textContent: "Only these" });
    button.setAttribute("aria-label", `Only rows with ${this.rows.titles[name] ?? name} ${value}`);
    button.addEventListener("click", () => this.actions.filter(name, value));
    return button;
  }

  #proof(row) {
    const leaf = this.rows.leaf[row], part = element("section", { className: "proof" });
    part.append(element("h3", { textContent: "Proof" }));
    const receipt = this.proof?.receipt(leaf);
    if (receipt) {
      const note = element("p", { textContent: "Entry and receipt are in this page: save both, and check them with the log's key alone." });
      const entry = element("button", { type: "button", textContent: `Save ${leaf}.entry` });
      const proof = element("button", { type: "button", textContent: `Save ${leaf}.tlog-proof` });
      entry.addEventListener("click", () => save(`${leaf}.entry`, this.proof.entry(leaf)));
      proof.addEventListener("click", () => save(`${leaf}.tlog-proof`, receipt));
      part.append(note, element("p", { className: "buttons" }, entry, proof));
    } else {
      part.append(element("p", { textContent: "This prints the entry with its receipt:" }));
    }
    part.append(code(this.actions.command(leaf)));
    return part;
  }
}

// Receipts that came with the page: entries, and the hashes of all their proofs, each once.
class Proof {
  constructor(data) {
    this.checkpoint = data.checkpoint;
    this.nodes = data.nodes;
    this.leaves = new Map(data.leaves.map((one) => [one[0], one]));
  }

  entry(leaf) {
    const text = atob(this.leaves.get(leaf)[1]);
    return Uint8Array.from(text, (one) => one.charCodeAt(0));
  }

  // C2SP tlog-proof, byte for byte.
  receipt(leaf) {
    const found = this.leaves.get(leaf);
    if (!found) return null;
    const lines = ["c2sp.org/tlog-proof@v1", `index ${leaf}`, ...found[2].map((one) => this.nodes[one])];
    return new TextEncoder().encode(`${lines.join("\n")}\n\n${this.checkpoint}`);
  }
}
