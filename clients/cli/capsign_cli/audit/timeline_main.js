// Wires search, groups, chart, table and details, and keeps what is looked at in the address.

const MARKS = {
  incident: { title: "Incidents", sign: "triangle", through: true },
  revocation: { title: "Revocations", sign: "cross", through: true },
  rollout: { title: "Rollouts", sign: "diamond", through: true },
  act: { title: "Keys, policy, people", sign: "circle", through: false },
};
const COLUMNS = ["time", "what", "who", "on", "algorithm", "purpose", "grant", "result", "stream", "leaf"];
const PRINTED = 500;

const $ = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");

const start = async () => {
  const data = JSON.parse(new TextDecoder().decode(await inflate("rows")));
  const rows = new Rows(data);
  const receipts = await inflate("receipts");
  const proof = receipts && new Proof(JSON.parse(new TextDecoder().decode(receipts)));
  const names = Object.keys(MARKS).filter((name) => rows.groups.some((one) => one.name === name));
  const marks = { names: names.map((one) => MARKS[one].title), lane: {}, signs: [], through: [] };
  names.forEach((name, lane) => {
    marks.lane[rows.groups.findIndex((one) => one.name === name)] = lane;
    marks.signs.push(MARKS[name].sign);
    marks.through.push(MARKS[name].through);
  });

  const state = { query: "", hidden: new Set(), shown: new Uint32Array(0), selected: -1 };
  const chart = new Chart(rows, marks, { overview: $("overview"), lanes: $("lanes") });
  const details = new Details(rows, proof, { panel: $("details") }, {
    close: () => unselect(),
    filter: (name, value) => { $("search").value = `${name}:"${value}"`; search(); },
    command: (leaf) => document.body.dataset.command.replace("LEAF", String(leaf)),
  });
  const table = new Table(rows, COLUMNS, {
    scroller: $("scroller"), body: $("lines"), space: $("space"),
  }, (row) => select(row));

  let asked = 0;
  const search = async () => {
    const mine = ++asked;
    state.query = $("search").value;
    const words = parseQuery(state.query, rows);
    if (wantsHashes(words)) await rows.loadHashes();
    if (mine !== asked) return;
    state.shown = rows.filter(words, state.hidden);
    chart.setRows(state.shown, rows.filter([], state.hidden));
    labels();
    look();
  };

  // What is in view has changed: the chart at the next frame, the table with it.
  let planned = 0;
  const look = () => {
    if (planned) return;
    planned = requestAnimationFrame(() => {
      planned = 0;
      chart.selected = state.selected;
      chart.draw();
      const [begin, end] = chart.inView();
      table.setRows(state.shown.subarray(begin, end), state.selected);
      tell(end - begin);
      remember();
    });
  };

  const tell = (inView) => {
    const [from, to] = chart.view;
    const texts = [`${count(inView)} of ${count(rows.size)} rows`];
    if (state.shown.length !== inView) texts.push(`${count(state.shown.length)} match at any time`);
    $("count").textContent = texts.join(", ");
    $("range").textContent = `${day(from)} ${clock(from).slice(0, 8)} to ${day(to)} ${clock(to).slice(0, 8)} UTC, ${span(to - from)}`;
    $("nothing").hidden = inView > 0;
  };

  const labels = () => {
    const made = marks.names.map((title) => element("li", { className: "mark", textContent: title }));
    for (const lane of chart.lanesShown) {
      const text = lane.others ? `${lane.others} others` : lane.value || "none";
      const short = rows.short(text);
      const label = element("button", { type: "button", title: text, disabled: Boolean(lane.others) || !lane.value });
      label.append(element("span", { textContent: short }), element("small", { textContent: count(lane.count) }));
      label.addEventListener("click", () => { $("search").value = `${chart.by}:"${lane.value}"`; search(); });
      made.push(element("li", {}, label));
    }
    $("labels").replaceChildren(...made);
  };

  const select = (row) => {
    state.selected = row;
    details.show(row);
    if (rows.time[row] < chart.view[0] || rows.time[row] > chart.view[1]) {
      const half = (chart.view[1] - chart.view[0]) / 2;
      chart.setView(rows.time[row] - half, rows.time[row] + half);
    }
    look();
  };
  const unselect = () => {
    state.selected = -1;
    details.close();
    look();
  };

  // The address says what is looked at, so that it can be handed on with the file.
  let written;
  const remember = () => {
    clearTimeout(written);
    written = setTimeout(() => {
      const parts = new URLSearchParams();
      if (state.query) parts.set("q", state.query);
      const hidden = [...state.hidden].map((one) => rows.groups[one].name);
      if (hidden.length) parts.set("without", hidden.join(","));
      if (chart.view[1] - chart.view[0] < chart.all[1] - chart.all[0]) parts.set("t", chart.view.map(Math.round).join("-"));
      if (chart.by !== "workload") parts.set("by", chart.by);
      if (state.selected >= 0) parts.set("row", String(state.selected));
      history.replaceState(null, "", `#${parts}`);
    }, 200);
  };
  const recall = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    $("search").value = parts.get("q") ?? "";
    const hidden = (parts.get("without") ?? "").split(",");
    state.hidden = new Set([...rows.groups.keys()].filter((one) => hidden.includes(rows.groups[one].name)));
    const [from, to] = (parts.get("t") ?? "").split("-").map(Number);
    chart.setView(...(to > from ? [from, to] : chart.all));
    chart.by = $("by").value = rows.columns.has(parts.get("by")) ? parts.get("by") : "workload";
    const row = Number(parts.get("row") ?? -1);
    if (row >= 0 && row < rows.size) select(row);
    else unselect();
    buttons();
  };

  const buttons = () => {
    for (const button of document.querySelectorAll("[data-group]")) {
      const group = rows.groups.findIndex((one) => one.name === button.dataset.group);
      button.setAttribute("aria-pressed", String(!state.hidden.has(group)));
    }
  };
  for (const button of document.querySelectorAll("[data-group]")) {
    button.disabled = false;
    button.addEventListener("click", (event) => {
      const group = rows.groups.findIndex((one) => one.name === button.dataset.group);
      const others = [...rows.groups.keys()].filter((one) => one !== group);
      const alone = !state.hidden.has(group) && others.every((one) => state.hidden.has(one));
      if (event.shiftKey) state.hidden = new Set(alone ? [] : others);
      else if (!state.hidden.delete(group)) state.hidden.add(group);
      buttons();
      search();
    });
  }

  const next = (step) => {
    const time = state.selected >= 0 ? rows.time[state.selected] : (chart.view[0] + chart.view[1]) / 2;
    let at = rows.place(chart.marked, time);
    const there = chart.marked.indexOf(state.selected);
    if (there >= 0) at = there + step;
    else if (step < 0) at--;
    if (at >= 0 && at < chart.marked.length) select(chart.marked[at]);
  };
  const show = (from, to) => { chart.setView(from, to); look(); };
  const actions = {
    "+": () => { chart.zoom(0.5); look(); },
    "=": () => { chart.zoom(0.5); look(); },
    "-": () => { chart.zoom(2); look(); },
    0: () => show(...chart.all),
    ArrowLeft: () => { chart.pan(-0.2); look(); },
    ArrowRight: () => { chart.pan(0.2); look(); },
    n: () => next(1),
    p: () => next(-1),
  };
  $("chart").addEventListener("keydown", (event) => {
    if (event.target.closest("button, select") || event.ctrlKey || event.altKey || event.metaKey) return;
    const action = actions[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("details").hidden) { unselect(); $("scroller").focus(); }
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "/") { event.preventDefault(); $("search").focus(); }
    else if ((event.key === "n" || event.key === "p") && !event.target.closest("#chart")) actions[event.key]();
  });
  for (const [id, key] of [["in", "+"], ["out", "-"], ["all", "0"], ["next", "n"], ["previous", "p"]]) {
    $(id).addEventListener("click", actions[key]);
  }
  $("search").addEventListener("input", search);
  $("by").addEventListener("change", () => { chart.by = $("by").value; chart.setRows(state.shown, chart.marked); labels(); look(); });
  for (const button of document.querySelectorAll("[data-row]")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      const row = Number(button.dataset.row), around = Math.min(36e5, (chart.all[1] - chart.all[0]) / 2);
      chart.setView(rows.time[row] - around, rows.time[row] + around);
      select(row);
      $("chart").scrollIntoView({ block: "start" });
    });
  }
  pointers(chart, {
    look,
    chosen: select,
    hint: (row) => { $("lanes").title = row < 0 ? "" : hint(row); },
  });
  const hint = (row) => [cellText(rows, "time", row), rows.text("what", row), cellText(rows, "who", row), cellText(rows, "on", row), cellText(rows, "result", row)].filter(Boolean).join("\n");

  const print = () => {
    const [begin, end] = chart.inView(), body = element("tbody", {});
    const head = element("tr", {});
    for (const name of COLUMNS) head.append(element("th", { scope: "col", textContent: document.querySelector(`.c-${name}`).textContent }));
    for (let at = begin; at < Math.min(end, begin + PRINTED); at++) {
      const line = element("tr", {});
      for (const column of COLUMNS) line.append(table.cell(column, state.shown[at], "td"));
      body.append(line);
    }
    const beyond = end - begin - PRINTED;
    $("paper").replaceChildren(element("table", {}, element("thead", {}, head), body));
    if (beyond > 0) $("paper").append(element("p", { textContent: `${count(beyond)} more rows are in view: zoom in or filter to print them.` }));
    chart.draw();
  };
  const media = matchMedia("print");
  media.addEventListener("change", () => (media.matches ? print() : chart.draw()));
  addEventListener("beforeprint", print);
  addEventListener("afterprint", () => { $("paper").replaceChildren(); look(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", look);
  addEventListener("resize", look);
  addEventListener("hashchange", () => { recall(); search(); });

  document.body.classList.add("ready");
  recall();
  await search();
};

// Wheel, drag and double click on the lanes; drag on the overview chooses what is in view.
const pointers = (chart, { look, chosen, hint }) => {
  const { lanes, overview } = chart;
  lanes.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) chart.pan((event.deltaX || event.deltaY) / 1200);
    else chart.zoom(Math.exp(Math.max(Math.min(event.deltaY, 200), -200) / 400), chart.timeAt(event.offsetX));
    look();
  }, { passive: false });
  let dragged = null;
  lanes.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    dragged = { x: event.offsetX, view: [...chart.view], moved: false };
    lanes.setPointerCapture(event.pointerId);
  });
  lanes.addEventListener("pointermove", (event) => {
    if (!dragged) { hint(chart.nearest(event.offsetX, event.offsetY)); return; }
    const by = event.offsetX - dragged.x;
    if (Math.abs(by) > 3) dragged.moved = true;
    if (!dragged.moved) return;
    const time = (by / lanes.clientWidth) * (dragged.view[1] - dragged.view[0]);
    chart.setView(dragged.view[0] - time, dragged.view[1] - time);
    look();
  });
  lanes.addEventListener("pointerup", (event) => {
    const still = dragged && !dragged.moved;
    dragged = null;
    if (!still) return;
    const row = chart.nearest(event.offsetX, event.offsetY);
    if (row >= 0) chosen(row);
  });
  lanes.addEventListener("pointercancel", () => { dragged = null; });
  lanes.addEventListener("dblclick", (event) => { chart.zoom(0.25, chart.timeAt(event.offsetX)); look(); });

  const all = (x) => chart.all[0] + (x / overview.clientWidth) * (chart.all[1] - chart.all[0]);
  let from = null;
  overview.addEventListener("pointerdown", (event) => {
    from = event.offsetX;
    overview.setPointerCapture(event.pointerId);
  });
  overview.addEventListener("pointermove", (event) => {
    if (from === null || Math.abs(event.offsetX - from) < 4) return;
    const [left, right] = [from, event.offsetX].sort((a, b) => a - b);
    chart.setView(all(left), all(right));
    look();
  });
  overview.addEventListener("pointerup", (event) => {
    if (from !== null && Math.abs(event.offsetX - from) < 4) {
      const half = (chart.view[1] - chart.view[0]) / 2;
      chart.setView(all(event.offsetX) - half, all(event.offsetX) + half);
      look();
    }
    from = null;
  });
};

start();
