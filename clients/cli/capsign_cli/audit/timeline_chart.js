// The chart: an overview of everything, and lanes of what is looked at, drawn on two canvases.

const STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 15e3, 30e3, 6e4, 3e5, 9e5, 18e5, 36e5, 108e5,
  216e5, 432e5, 864e5, 1728e5, 6048e5, 26784e5, 80352e5, 315576e5,
];
const iso = (time) => new Date(time).toISOString();
const clock = (time) => iso(time).slice(11, 23);
const day = (time) => iso(time).slice(0, 10);

// What is written at a tick: as much of the time as the step between ticks tells apart.
const tickText = (time, step) => {
  const text = iso(time);
  if (step >= 864e5) return text.slice(0, 10);
  if (time % 864e5 === 0) return text.slice(5, 10);
  if (step >= 6e4) return text.slice(11, 16);
  return step >= 1e3 ? text.slice(11, 19) : text.slice(14, 23);
};

const span = (ms) => {
  const units = [[864e5, "d"], [36e5, "h"], [6e4, "min"], [1e3, "s"]];
  for (const [size, unit] of units) if (ms >= 2 * size) return `${+(ms / size).toFixed(1)} ${unit}`;
  return `${Math.round(ms)} ms`;
};

const BIN = 3; // pixels
const LANE = 26;
const MARK_LANE = 24;
const AXIS = 22;
const MOST_LANES = 14;

class Chart {
  constructor(rows, marks, elements) {
    Object.assign(this, { rows, marks, ...elements }); // overview, lanes, labels: elements
    const first = rows.size ? rows.time[0] : 0;
    const last = rows.size ? rows.time[rows.size - 1] : 1;
    const edge = Math.max((last - first) * 0.01, 5);
    this.all = [first - edge, last + edge];
    this.view = [...this.all];
    this.shown = new Uint32Array(0); // rows that match
    this.marked = new Uint32Array(0); // those that stand out, whether they match or not
    this.by = "workload";
    this.selected = -1;
  }

  setRows(shown, marked) {
    this.shown = shown;
    this.marked = marked.filter((row) => this.isMark(row));
    this.#chooseLanes();
  }

  // The values with the most rows have a lane each; one more has all others.
  #chooseLanes() {
    const column = this.rows.columns.get(this.by);
    const counts = new Float64Array(column.values.length);
    for (const row of this.shown) if (!this.isMark(row)) counts[column.codes[row]]++;
    const order = [...counts.keys()].filter((one) => counts[one]);
    order.sort((a, b) => counts[b] - counts[a] || (column.values[a] < column.values[b] ? -1 : 1));
    const alone = order.length > MOST_LANES + 1 ? order.slice(0, MOST_LANES) : order;
    const rest = order.slice(alone.length);
    this.laneOf = new Int32Array(column.values.length).fill(-1);
    this.lanesShown = alone.map((code, lane) => {
      this.laneOf[code] = lane;
      return { value: column.values[code], count: counts[code] };
    });
    if (rest.length) {
      for (const code of rest) this.laneOf[code] = alone.length;
      const count = rest.reduce((sum, code) => sum + counts[code], 0);
      this.lanesShown.push({ value: null, others: rest.length, count });
    }
  }

  isMark(row) {
    return this.marks.lane[this.rows.group[row]] !== undefined;
  }

  setView(from, to) {
    const [first, last] = this.all;
    let width = Math.min(Math.max(to - from, 4), last - first);
    let start = Math.min(Math.max(from, first), last - width);
    this.view = [start, start + width];
  }

  zoom(factor, around) {
    const [from, to] = this.view;
    const at = around ?? (from + to) / 2;
    const width = Math.min(Math.max((to - from) * factor, 4), this.all[1] - this.all[0]);
    const share = (at - from) / (to - from);
    this.setView(at - share * width, at + (1 - share) * width);
  }

  pan(share) {
    const by = (this.view[1] - this.view[0]) * share;
    this.setView(this.view[0] + by, this.view[1] + by);
  }

  // Places in `shown` of the first row in view, and of the first after it.
  inView() {
    return [
      this.rows.place(this.shown, this.view[0]),
      this.rows.place(this.shown, this.view[1] + 1e-6),
    ];
  }

  timeAt(x) {
    const width = this.lanes.clientWidth;
    return this.view[0] + (x / width) * (this.view[1] - this.view[0]);
  }

  // The row that is nearest to this point of its lane; -1 if none is near.
  nearest(x, y) {
    const lane = this.#laneAt(y);
    const rows = lane < this.marks.names.length ? this.marked : this.shown;
    const near = (4 * (this.view[1] - this.view[0])) / this.lanes.clientWidth;
    const time = this.timeAt(x);
    const end = this.rows.place(rows, time + near);
    let found = -1, distance = Infinity;
    for (let at = this.rows.place(rows, time - near); at < end; at++) {
      const row = rows[at], off = Math.abs(this.rows.time[row] - time);
      if (off < distance && this.#laneOfRow(row) === lane) { found = row; distance = off; }
    }
    return found;
  }

  #laneOfRow(row) {
    if (this.isMark(row)) return this.marks.lane[this.rows.group[row]];
    return this.marks.names.length + this.laneOf[this.rows.columns.get(this.by).codes[row]];
  }

  #laneAt(y) {
    const marks = this.marks.names.length;
    if (y < AXIS) return -1;
    const at = y - AXIS;
    if (at < marks * MARK_LANE) return Math.floor(at / MARK_LANE);
    return marks + Math.floor((at - marks * MARK_LANE) / LANE);
  }

  height() {
    return AXIS + this.marks.names.length * MARK_LANE + this.lanesShown.length * LANE + 4;
  }

  #context(canvas, height) {
    const width = canvas.clientWidth, scale = Math.max(window.devicePixelRatio || 1, 2);
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.clearRect(0, 0, width, height);
    return [context, width];
  }

  #colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colour = {
      groups: this.rows.groups.map((one) => read(`group-${one.name}`)),
      line: read("line"), soft: read("soft"), accent: read("accent"), ink: read("ink"),
      card: read("card"), chip: read("chip"),
    };
  }

  draw() {
    this.#colours();
    this.#drawOverview();
    this.#drawLanes();
  }

  // Rows counted by lane, bin and group.
  #count(from, to, width, lanes, laneOf) {
    const bins = Math.ceil(width / BIN), groups = this.rows.groups.length;
    const counts = new Float32Array(lanes * bins * groups);
    const begin = this.rows.place(this.shown, from), end = this.rows.place(this.shown, to);
    const scale = bins / (to - from);
    for (let at = begin; at < end; at++) {
      const row = this.shown[at], lane = laneOf(row);
      if (lane < 0) continue;
      const bin = Math.min(Math.floor((this.rows.time[row] - from) * scale), bins - 1);
      counts[(lane * bins + bin) * groups + this.rows.group[row]]++;
    }
    return { counts, bins, groups };
  }

  #bars(context, found, lane, top, height) {
    const { counts, bins, groups } = found;
    let most = 1;
    for (let bin = 0; bin < bins; bin++) {
      let sum = 0;
      for (let group = 0; group < groups; group++) sum += counts[(lane * bins + bin) * groups + group];
      most = Math.max(most, sum);
    }
    for (let bin = 0; bin < bins; bin++) {
      const first = (lane * bins + bin) * groups;
      let sum = 0;
      for (let group = 0; group < groups; group++) sum += counts[first + group];
      const whole = Math.max(height * Math.sqrt(sum / most), 3);
      let bottom = top + height;
      for (let group = 0; group < groups; group++) {
        const count = counts[first + group];
        if (!count) continue;
        // what is rare among much is seen all the same
        const tall = Math.min(Math.max((whole * count) / sum, 2), bottom - top);
        context.fillStyle = this.colour.groups[group];
        context.fillRect(bin * BIN, bottom - tall, BIN - 0.5, tall);
        bottom -= tall;
      }
    }
  }

  #drawOverview() {
    const height = 46;
    const [context, width] = this.#context(this.overview, height);
    const [from, to] = this.all;
    const found = this.#count(from, to, width, 1, () => 0);
    this.#bars(context, found, 0, 2, height - 4);
    const x = (time) => ((time - from) / (to - from)) * width;
    const left = x(this.view[0]), right = x(this.view[1]);
    context.fillStyle = this.colour.card;
    context.globalAlpha = 0.72;
    context.fillRect(0, 0, left, height);
    context.fillRect(right, 0, width - right, height);
    context.globalAlpha = 1;
    context.strokeStyle = this.colour.accent;
    context.lineWidth = 1.5;
    context.strokeRect(left + 0.75, 0.75, Math.max(right - left - 1.5, 3), height - 1.5);
  }

  #ticks(context, width, height) {
    const [from, to] = this.view;
    const wanted = ((to - from) / width) * 110;
    const step = STEPS.find((one) => one >= wanted) ?? STEPS.at(-1);
    context.font = '12px system-ui, "Noto Sans", "DejaVu Sans", sans-serif';
    context.textBaseline = "middle";
    for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
      const x = Math.round(((time - from) / (to - from)) * width) + 0.5;
      context.strokeStyle = this.colour.line;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x, AXIS - 5);
      context.lineTo(x, height);
      context.stroke();
      context.fillStyle = this.colour.soft;
      const text = tickText(time, step), wide = context.measureText(text).width;
      context.fillText(text, Math.min(Math.max(x - wide / 2, 2), width - wide - 2), AXIS / 2 - 2);
    }
  }

  #drawLanes() {
    const height = this.height();
    const [context, width] = this.#context(this.lanes, height);
    const marks = this.marks.names.length, [from, to] = this.view;
    this.#ticks(context, width, height);
    context.strokeStyle = this.colour.line;
    for (let lane = 0; lane <= marks + this.lanesShown.length; lane++) {
      const y = AXIS + Math.min(lane, marks) * MARK_LANE + Math.max(lane - marks, 0) * LANE + 0.5;
      context.lineWidth = lane === marks ? 2 : 1;
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.stroke();
    }
    const { codes } = this.rows.columns.get(this.by);
    const found = this.#count(from, to, width, this.lanesShown.length, (row) =>
      this.isMark(row) ? -1 : this.laneOf[codes[row]]);
    for (let lane = 0; lane < this.lanesShown.length; lane++) {
      this.#bars(context, found, lane, AXIS + marks * MARK_LANE + lane * LANE + 3, LANE - 4);
    }
    this.#drawMarks(context, width, height);
    if (this.selected >= 0) this.#drawSelected(context, width, height);
  }

  // Each mark is a sign of its own in its lane, and a line through the lanes below. Of those on
  // the same pixel one is drawn.
  #drawMarks(context, width, height) {
    const [from, to] = this.view, drawn = new Set();
    const end = this.rows.place(this.marked, to + 1e-6);
    for (let at = this.rows.place(this.marked, from); at < end; at++) {
      const row = this.marked[at], group = this.rows.group[row], lane = this.marks.lane[group];
      const x = Math.round(((this.rows.time[row] - from) / (to - from)) * width);
      if (drawn.has(lane * 1e5 + x)) continue;
      drawn.add(lane * 1e5 + x);
      context.strokeStyle = context.fillStyle = this.colour.groups[group];
      if (this.marks.through[lane]) {
        context.globalAlpha = 0.35;
        context.lineWidth = 1;
        context.beginPath();
        context.moveTo(x + 0.5, AXIS + (lane + 1) * MARK_LANE);
        context.lineTo(x + 0.5, height);
        context.stroke();
        context.globalAlpha = 1;
      }
      sign(context, this.marks.signs[lane], x, AXIS + lane * MARK_LANE + MARK_LANE / 2);
    }
  }

  #drawSelected(context, width, height) {
    const [from, to] = this.view;
    const x = Math.round(((this.rows.time[this.selected] - from) / (to - from)) * width) + 0.5;
    context.strokeStyle = this.colour.ink;
    context.setLineDash([4, 3]);
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x, AXIS - 4);
    context.lineTo(x, height);
    context.stroke();
    context.setLineDash([]);
  }
}

// The signs differ in form too, not in colour alone.
const sign = (context, form, x, y) => {
  const size = 6;
  context.beginPath();
  if (form === "triangle") {
    context.moveTo(x, y - size - 1);
    context.lineTo(x + size + 1, y + size - 1);
    context.lineTo(x - size - 1, y + size - 1);
    context.closePath();
    context.fill();
  } else if (form === "diamond") {
    context.moveTo(x, y - size);
    context.lineTo(x + size, y);
    context.lineTo(x, y + size);
    context.lineTo(x - size, y);
    context.closePath();
    context.fill();
  } else if (form === "cross") {
    context.lineWidth = 3;
    context.moveTo(x - size + 1, y - size + 1);
    context.lineTo(x + size - 1, y + size - 1);
    context.moveTo(x + size - 1, y - size + 1);
    context.lineTo(x - size + 1, y + size - 1);
    context.stroke();
  } else {
    context.arc(x, y, size - 1.5, 0, 2 * Math.PI);
    context.fill();
  }
};
