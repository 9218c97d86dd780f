// The table: all rows in view, of which only those on the screen are elements. Its scroll height is
// bounded, since browsers bound the height of an element; beyond that, a pixel is several rows.

const ROW = 33;
const HEAD = 34; // of the line of column names, which stays
const MOST_HEIGHT = 8e6;

class Table {
  constructor(rows, columns, elements, chosen) {
    Object.assign(this, { rows, columns, ...elements }); // scroller, body, space: elements
    this.list = new Uint32Array(0);
    this.at = -1; // place in the list of the row that is selected
    this.chosen = chosen;
    this.scroller.addEventListener("scroll", () => this.#paint());
    this.scroller.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => {
      const line = event.target.closest("[data-at]");
      if (line) this.select(Number(line.dataset.at));
    });
  }

  setRows(list, selected) {
    this.list = list;
    this.at = selected < 0 ? -1 : list.indexOf(selected);
    this.scroller.setAttribute("aria-rowcount", String(list.length + 1));
    this.height = Math.min(list.length * ROW, MOST_HEIGHT);
    this.space.style.height = `${this.height + HEAD}px`;
    this.#paint();
  }

  #room() {
    return Math.max(Math.floor((this.scroller.clientHeight - HEAD) / ROW), 1);
  }

  #first() {
    const travel = this.height + HEAD - this.scroller.clientHeight;
    if (travel <= 0) return 0;
    const share = Math.min(this.scroller.scrollTop / travel, 1);
    return Math.min(Math.round(share * (this.list.length - this.#room())), this.list.length - 1);
  }

  show(at) {
    const room = this.#room(), first = this.#first();
    if (at >= first && at < first + room) { this.#paint(); return; }
    const travel = this.height + HEAD - this.scroller.clientHeight;
    const wanted = Math.max(at < first ? at : at - room + 1, 0);
    this.scroller.scrollTop = (wanted / Math.max(this.list.length - room, 1)) * travel;
    this.#paint();
  }

  select(at, quiet) {
    if (!this.list.length) return;
    this.at = Math.min(Math.max(at, 0), this.list.length - 1);
    this.show(this.at);
    if (!quiet) this.chosen(this.list[this.at]);
  }

  #key(event) {
    const page = this.#room() - 1;
    const moves = {
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page,
      Home: -Infinity, End: Infinity,
    };
    if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.select(this.at + moves[event.key]); // -1 before the first
  }

  #paint() {
    const first = this.#first(), last = Math.min(first + this.#room() + 2, this.list.length);
    const lines = [];
    for (let at = first; at < last; at++) lines.push(this.#line(at));
    this.body.replaceChildren(...lines);
    this.body.style.transform = `translateY(${this.scroller.scrollTop}px)`;
    if (this.at >= first && this.at < last) this.scroller.setAttribute("aria-activedescendant", `row-${this.at}`);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  #line(at) {
    const row = this.list[at], line = document.createElement("div");
    line.className = "line";
    line.id = `row-${at}`;
    line.dataset.at = String(at);
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", String(at + 2));
    line.setAttribute("aria-selected", String(at === this.at));
    for (const column of this.columns) line.append(this.cell(column, row, "div"));
    return line;
  }

  cell(column, row, tag) {
    const cell = document.createElement(tag);
    cell.className = `c-${column}`;
    if (tag === "div") cell.setAttribute("role", "gridcell");
    if (column === "what") {
      const chip = document.createElement("span");
      chip.className = `chip g-${this.rows.groups[this.rows.group[row]].name}`;
      chip.textContent = this.rows.text("what", row);
      cell.append(chip);
    } else {
      cell.textContent = cellText(this.rows, column, row);
      if (tag === "div") cell.title = cell.textContent;
    }
    return cell;
  }
}

const cellText = (rows, column, row) => {
  if (column === "time") return `${day(rows.time[row])} ${clock(rows.time[row])}`;
  if (column === "leaf") return String(rows.leaf[row]);
  if (column === "who") return rows.short(rows.text("workload", row) || rows.text("actor", row));
  if (column === "on") {
    const key = [rows.text("tenant", row), rows.text("key", row)].filter(Boolean).join("/");
    const version = rows.text("version", row);
    return version ? `${key} v${version}` : key || rows.text("target", row);
  }
  if (column === "result") return [rows.text("outcome", row), rows.text("reason", row)].filter(Boolean).join(": ");
  return rows.text(column, row);
};
