"use strict";
// Draws a recording that page.py has packed. What is said of it comes from there: this script only chooses, fills in and places.
// All text goes into the page by textContent.
(() => {
const OWN_LANES = 60; // processes that have a lane each; more share lanes, which is what makes a hundred thousand fit
const READABLE = 400; // lanes: as many are high enough to read, and scroll; more are as low as they can be told apart
const FEW = 400; // bars in view: with more, starts and their lines would hide them
const GUTTER = 168, GAP = 16, ROW = 22;
const MONO = "11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// --- what was packed

async function unpack() {
  const text = $("data").textContent;
  $("data").remove();
  let packed;
  if (Uint8Array.fromBase64) packed = Uint8Array.fromBase64(text);
  else {
    const raw = atob(text);
    packed = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) packed[i] = raw.charCodeAt(i);
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  return [JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size))), bytes.subarray(8 + size)];
}

let facts, planes, strings, rows;
const columns = new Map();

function number(stored) {
  return stored === 0 ? NaN : stored % 2 ? (stored - 1) / 2 : -stored / 2;
}

function stored(about, row) {
  let value = 0;
  for (let plane = about.planes - 1; plane >= 0; plane--) value = value * 256 + planes[about.at + plane * about.rows + row];
  return value;
}

// A whole column of numbers, NaN where one is not known.
function column(name) {
  if (!columns.has(name)) {
    const about = facts.columns[name], base = about.base ? column(about.base) : null;
    const values = new Float64Array(about.rows);
    for (let row = 0, sum = 0; row < about.rows; row++) {
      const value = number(stored(about, row));
      values[row] = about.delta ? (sum += value) : base ? base[row] + value : value;
    }
    columns.set(name, values);
  }
  return columns.get(name);
}

// One number of a column that is not worth unpacking.
function at(name, row) {
  const about = facts.columns[name];
  return number(stored(about, row)) + (about.base ? column(about.base)[row] : 0);
}

function text(name, row) {
  const place = at(name, row);
  return Number.isNaN(place) ? "" : strings[place];
}

const cell = (name, row) => name === "name" ? numberOf(row) : text(`cell_${name}`, row);

// What `why` calls a process: its number, with more where that is not enough.
function numberOf(row) {
  return cell("form", row).replace("{pid}", pids[row]).replace("{id}", ids[row]);
}

// --- rows and ids

let fork, exit, zombie, gone, ids, pids, kinds, startKinds, rowOfId;

function rowOf(id) {
  if (Number.isNaN(id)) return -1;
  if (!rowOfId) {
    rowOfId = new Map();
    ids.forEach((one, row) => rowOfId.set(one, row));
  }
  return rowOfId.get(id) ?? -1;
}

function nameById(id) {
  const row = rowOf(id);
  return row < 0 ? facts.others[id] ?? `#${id}` : numberOf(row);
}

const other = (name, row) => rowOf(ids[row] - at(name, row)); // the row of a column of ids

let clearedBy; // row -> the rows that its start cleared
function clearedOf(row) {
  if (!clearedBy) {
    clearedBy = new Map();
    const by = column("cleared_by_id");
    for (let one = 0; one < rows; one++) {
      if (Number.isNaN(by[one])) continue;
      const start = rowOf(ids[one] - by[one]);
      if (clearedBy.has(start)) clearedBy.get(start).push(one); else clearedBy.set(start, [one]);
    }
  }
  return clearedBy.get(row) ?? [];
}

// --- what is shown

const view = { since: 0, until: 1 }; // ns since the start
let whole = { since: 0, until: 1 };
let grouping = "none", sortBy = { column: "name", down: false }, clock = false, words = "", chosen = -1, hovered = -1;
let matches = null; // Uint8Array by row; null: all
let order = new Int32Array(0); // the rows of the table

function seconds(ns) {
  return ns / 1e9;
}

// As `why` writes it: +1.204
function mark(ns) {
  return (ns < 0 ? "" : "+") + seconds(ns).toFixed(3);
}

function clockText(ns, digits) {
  const when = new Date(facts.clock + ns / 1e6).toISOString();
  return digits ? when.slice(11, 19 + 1 + Math.min(digits, 3)) : when.slice(11, 19);
}

// --- lanes

let lanes = null; // { of, first, items, y, height, groups, total, own }

const KEYS = {
  none: () => 0,
  tree: (row) => { const up = column("parent_id")[row]; return Number.isNaN(up) ? -1 : ids[row] - up; },
  line: (row) => column("cell_started")[row],
  cause: (row) => column("cell_cause")[row],
};

const TITLES = {
  none: () => "",
  tree: (key) => key < 0 ? "parent outside of the recording" : rowOf(key) < 0 ? `parent #${key}` : `parent ${nameOf(rowOf(key))}`,
  line: (key) => strings[key] || "line not known",
  cause: (key) => strings[key] || "not reaped",
};

function nameOf(row) {
  return `${cell("name", row)} ${cell("comm", row)}`;
}

// Puts each process into a lane of its group: one of its own, or the one that has been free for longest.
function layOut() {
  const keyOf = KEYS[grouping], found = new Map(), own = rows <= OWN_LANES;
  for (let row = 0; row < rows; row++) {
    const key = keyOf(row);
    if (!found.has(key)) found.set(key, { key, count: 0, ends: [], base: 0 });
    found.get(key).count++;
  }
  const groups = [...found.values()];
  if (grouping !== "tree") groups.sort((a, b) => b.count - a.count);
  const of = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const group = found.get(keyOf(row));
    of[row] = own ? group.ends.push(Infinity) - 1 : freeLane(group, fork[row], Math.max(gone[row], exit[row]));
  }
  let total = 0;
  for (const group of groups) {
    group.base = total;
    group.lanes = group.ends.length;
    total += group.lanes;
    delete group.heap;
  }
  const first = new Int32Array(total + 1), items = new Int32Array(rows);
  for (let row = 0; row < rows; row++) first[(of[row] += found.get(keyOf(row)).base) + 1]++;
  for (let lane = 0; lane < total; lane++) first[lane + 1] += first[lane];
  const next = first.slice();
  for (let row = 0; row < rows; row++) items[next[of[row]]++] = row;
  lanes = { of, first, items, groups, total, own, titled: grouping !== "none" };
  measure();
}

// The lane of a group that ended first, if it is free at `begin`; else a new one. `heap` has the lanes, the first to end on top.
function freeLane(group, begin, end) {
  const heap = group.heap ??= [], ends = group.ends;
  if (!heap.length || ends[heap[0]] > begin) {
    ends.push(end);
    let place = heap.push(ends.length - 1) - 1;
    while (place > 0 && ends[heap[(place - 1) >> 1]] > end) {
      heap[place] = heap[(place - 1) >> 1];
      place = (place - 1) >> 1;
    }
    heap[place] = ends.length - 1;
    return ends.length - 1;
  }
  const lane = heap[0];
  ends[lane] = end;
  for (let place = 0; ;) {
    let child = 2 * place + 1;
    if (child + 1 < heap.length && ends[heap[child + 1]] < ends[heap[child]]) child++;
    if (child >= heap.length || ends[heap[child]] >= end) { heap[place] = lane; return lane; }
    heap[place] = heap[child];
    place = child;
  }
}

// How high lanes are: as high as there is room for, within what can be seen and what is not too coarse.
function measure() {
  const room = $("lanes").clientHeight, titles = lanes.titled ? lanes.groups.length * GAP : 0;
  lanes.height = Math.max(lanes.total <= READABLE ? 10 : 3, Math.min(20, Math.floor((room - titles - 4) / Math.max(lanes.total, 1))));
  let y = 2;
  for (const group of lanes.groups) {
    y += lanes.titled ? GAP : 0;
    group.y = y;
    y += group.lanes * lanes.height;
  }
  $("height").style.height = `${y + 2}px`;
  $("lanes").style.maxHeight = `${titles + lanes.total * 20 + 6}px`;
}

// The group that is at a height, or begins first below it.
function groupAt(y) {
  let low = 0, high = lanes.groups.length;
  while (low < high) {
    const middle = (low + high) >> 1, group = lanes.groups[middle];
    if (group.y + group.lanes * lanes.height > y) high = middle; else low = middle + 1;
  }
  return low;
}

function yOf(row) {
  const lane = lanes.of[row];
  let low = 0, high = lanes.groups.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lanes.groups[middle].base <= lane) low = middle; else high = middle - 1;
  }
  return lanes.groups[low].y + (lane - lanes.groups[low].base) * lanes.height;
}

// --- drawing

const bars = $("bars"), strip = $("strip"), pen = bars.getContext("2d"), stripPen = strip.getContext("2d");
let styles = null, width = 0, height = 0, left = 8;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function isDark() {
  return document.documentElement.classList.contains("dark");
}

// A pattern of the key: the hatch of the PNG, with the colours the other way round on a dark page.
function pattern(style) {
  const tile = document.createElement("canvas"), size = 8;
  tile.width = tile.height = size;
  const brush = tile.getContext("2d"), dark = isDark();
  brush.fillStyle = dark ? style.edgecolor : style.facecolor;
  brush.fillRect(0, 0, size, size);
  brush.strokeStyle = dark ? style.facecolor : style.edgecolor;
  brush.lineWidth = 1.2;
  const hatch = style.hatch ? style.hatch[0] : "";
  for (const shift of [-size, 0, size]) {
    brush.beginPath();
    if ("/x".includes(hatch) && hatch) { brush.moveTo(shift, size); brush.lineTo(shift + size, 0); }
    if ("\\x".includes(hatch) && hatch) { brush.moveTo(shift, 0); brush.lineTo(shift + size, size); }
    if (hatch === "|") { brush.moveTo(shift + size / 2, 0); brush.lineTo(shift + size / 2, size); }
    if (hatch === "-") { brush.moveTo(0, shift + size / 2); brush.lineTo(size, shift + size / 2); }
    brush.stroke();
  }
  return pen.createPattern(tile, "repeat");
}

// A colour of the key that is dark, for a dark page: half way to white.
function paler(hex) {
  return `rgb(${[1, 3, 5].map((place) => 128 + (parseInt(hex.slice(place, place + 2), 16) >> 1)).join(", ")})`;
}

function prepareStyles() {
  styles = {
    run: facts.running.facecolor, runEdge: facts.running.edgecolor,
    zombies: facts.zombies.map((style) => ({ thin: style.edgecolor, wide: pattern(style), edge: style.edgecolor })),
    starts: facts.starts.map((style) => isDark() ? paler(style.color) : style.color),
    paper: colour("paper"), ink: colour("ink"), faint: colour("faint"), line: colour("line"), red: colour("red"), dim: colour("line"),
    failed: isDark() ? colour("red") : facts.failed.color,
  };
}

function fit(canvas, brush, wide, high) {
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(wide * scale) || canvas.height !== Math.round(high * scale)) {
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(high * scale);
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
  }
  brush.setTransform(scale, 0, 0, scale, 0, 0);
  brush.clearRect(0, 0, wide, high);
}

const xOf = (ns) => left + (ns - view.since) / (view.until - view.since) * (width - left);
const nsAt = (x) => view.since + (x - left) / (width - left) * (view.until - view.since);

// The first of `items` from `low` to `high` that is not gone before a moment: those of a lane end one after the other.
function firstAfter(low, high, ns) {
  while (low < high) {
    const middle = (low + high) >> 1, row = lanes.items[middle];
    if (Math.max(gone[row], exit[row]) < ns) low = middle + 1; else high = middle;
  }
  return low;
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  const box = $("lanes");
  width = box.clientWidth;
  height = box.clientHeight;
  left = lanes.own ? GUTTER : 8;
  fit(bars, pen, width, height);
  const scroll = box.scrollTop, ticks = ticksOf();
  pen.fillStyle = styles.line;
  for (const tick of ticks.at) pen.fillRect(Math.round(xOf(tick)), 0, 1, height);
  const seen = drawLanes(scroll);
  drawLosses(pen, height);
  if (seen <= FEW) drawStarts(scroll);
  drawMarks("signal", scroll);
  drawMarks("failure", scroll);
  if (chosen >= 0) drawChosen(scroll);
  drawStrip(ticks);
}

// Bars, gathered by colour: what is narrower than a pixel is drawn once for each pixel of its lane. Returns how many there are.
function drawLanes(scroll) {
  const gathered = new Map(), labels = [], wide = Math.max(lanes.height - (lanes.height > 5 ? 2 : 1), 1);
  const perPixel = (view.until - view.since) / (width - left);
  const put = (style, x, y, w) => {
    let list = gathered.get(style);
    if (!list) gathered.set(style, list = []);
    list.push(x, y, w);
  };
  let seen = 0;
  pen.font = MONO;
  pen.textBaseline = "middle";
  for (let number = groupAt(scroll); number < lanes.groups.length; number++) {
    const group = lanes.groups[number];
    if (group.y - scroll > height + GAP) break;
    if (lanes.titled) labels.push([group, group.y - scroll - GAP / 2]);
    const from = Math.max(0, Math.floor((scroll - group.y) / lanes.height));
    for (let one = from; one < group.lanes; one++) {
      const y = group.y + one * lanes.height - scroll;
      if (y > height) break;
      seen += drawLane(group.base + one, y, put, perPixel);
    }
  }
  for (const [style, list] of gathered) {
    pen.fillStyle = style;
    for (let i = 0; i < list.length; i += 3) pen.fillRect(list[i], list[i + 1], list[i + 2], wide);
  }
  if (seen <= FEW) drawLabels(scroll);
  pen.fillStyle = styles.ink;
  for (const [group, y] of labels) pen.fillText(`${TITLES[grouping](group.key)}: ${group.count.toLocaleString("en")}`, 8, y, width - 16);
  return seen;
}

function drawLane(lane, y, put, perPixel) {
  const last = lanes.first[lane + 1];
  let seen = 0;
  for (let place = firstAfter(lanes.first[lane], last, view.since); place < last;) {
    const row = lanes.items[place];
    if (fork[row] > view.until) break;
    const pale = matches !== null && !matches[row], kind = styles.zombies[kinds[row]];
    const x0 = Math.max(xOf(fork[row]), left), x1 = Math.min(Math.max(xOf(exit[row]), left), width);
    const dead = !Number.isNaN(zombie[row]) && kind;
    const end = dead ? Math.min(xOf(gone[row]), width) : x1;
    seen++;
    if (end - x0 < 1) {
      const more = dead && gone[row] - zombie[row] > exit[row] - fork[row];
      put(pale ? styles.dim : more ? kind.thin : styles.run, Math.floor(x0), y, 1);
      place = firstAfter(place + 1, last, view.since + (Math.floor(x0) + 1 - left) * perPixel);
      continue;
    }
    if (x1 > x0) put(pale ? styles.dim : styles.run, x0, y, Math.max(x1 - x0, 1));
    if (dead) {
      const z0 = Math.max(xOf(zombie[row]), left);
      if (end > z0) put(pale ? styles.dim : end - z0 > 4 && lanes.height > 4 ? kind.wide : kind.thin, z0, y, Math.max(end - z0, 1));
    }
    place++;
  }
  return seen;
}

// Of few bars: who they are, how long they were zombies, and that they still are.
function drawLabels(scroll) {
  pen.font = MONO;
  for (let number = groupAt(scroll); number < lanes.groups.length; number++) {
    const group = lanes.groups[number];
    if (group.y - scroll > height) break;
    for (let one = Math.max(0, Math.floor((scroll - group.y) / lanes.height)); one < group.lanes; one++) {
      const lane = group.base + one, y = group.y + one * lanes.height - scroll + lanes.height / 2;
      if (y > height + lanes.height) break;
      for (let place = firstAfter(lanes.first[lane], lanes.first[lane + 1], view.since); place < lanes.first[lane + 1]; place++) {
        const row = lanes.items[place];
        if (fork[row] > view.until) break;
        drawLabel(row, y);
      }
    }
  }
}

function drawLabel(row, y) {
  if (lanes.own && lanes.height >= 10) {
    pen.fillStyle = styles.ink;
    pen.textAlign = "right";
    pen.fillText(nameOf(row), GUTTER - 6, y, GUTTER - 10);
    pen.textAlign = "left";
  }
  if (Number.isNaN(zombie[row])) return;
  const x0 = Math.max(xOf(zombie[row]), left), x1 = Math.min(xOf(gone[row]), width);
  const lasted = cell("lasted", row), room = pen.measureText(lasted).width + 6;
  if (x1 - x0 > room + 8 && lanes.height > 11) {
    pen.fillStyle = styles.paper;
    pen.fillRect((x0 + x1 - room) / 2, y - lanes.height / 2 + 1, room, lanes.height - 4);
    pen.fillStyle = styles.ink;
    pen.fillText(lasted, (x0 + x1 - room) / 2 + 3, y);
  }
  if (at("open", row) && x1 > x0) triangle(x1 - 1, y, 5, styles.zombies[kinds[row]].edge, pen);
}

function triangle(x, y, size, style, brush) {
  brush.fillStyle = style;
  brush.beginPath();
  brush.moveTo(x, y - size / 1.3);
  brush.lineTo(x + size, y);
  brush.lineTo(x, y + size / 1.3);
  brush.fill();
}

function dot(x, y) {
  pen.beginPath();
  pen.arc(x, y, 2.6, 0, 7);
  pen.fill();
}

// A triangle at each start in view, and a line to the ends of the zombies that it cleared.
function drawStarts(scroll) {
  for (let number = groupAt(scroll); number < lanes.groups.length; number++) {
    const group = lanes.groups[number];
    if (group.y - scroll > height) break;
    for (let one = Math.max(0, Math.floor((scroll - group.y) / lanes.height)); one < group.lanes; one++) {
      const lane = group.base + one;
      if (group.y + one * lanes.height - scroll > height) break;
      for (let place = firstAfter(lanes.first[lane], lanes.first[lane + 1], view.since); place < lanes.first[lane + 1]; place++) {
        const row = lanes.items[place];
        if (fork[row] > view.until) break;
        const style = styles.starts[startKinds[row]];
        if (style && fork[row] >= view.since && lanes.height > 5) triangle(xOf(fork[row]), yOf(row) - scroll + lanes.height / 2, 5, style, pen);
        drawCleared(row, style || styles.ink, scroll);
      }
    }
  }
}

function drawCleared(start, style, scroll) {
  const swept = clearedOf(start), x = xOf(fork[start]);
  if (!swept.length || x < left || x > width) return;
  const middle = lanes.height / 2, heights = [start, ...swept].map((row) => yOf(row) - scroll + middle);
  pen.fillStyle = pen.strokeStyle = style;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(Math.round(x) + 0.5, Math.min(...heights));
  pen.lineTo(Math.round(x) + 0.5, Math.max(...heights));
  pen.stroke();
  for (const y of heights.slice(1)) dot(x, y);
}

function drawMarks(name, scroll) {
  const times = column(`${name}_ns`), who = column(`${name}_id`), taken = new Set();
  for (let one = 0; one < times.length; one++) {
    const row = times[one] < view.since || times[one] > view.until ? -1 : rowOf(who[one]);
    if (row < 0) continue;
    const x = xOf(times[one]), y = yOf(row) - scroll + lanes.height / 2, place = Math.round(x / 3) * 1e6 + Math.round(y);
    if (y < 0 || y > height || taken.has(place)) continue;
    taken.add(place);
    pen.strokeStyle = pen.fillStyle = name === "failure" ? styles.failed : styles.ink;
    pen.lineWidth = 1.6;
    pen.beginPath();
    if (name === "failure") { pen.moveTo(x - 3, y - 3); pen.lineTo(x + 3, y + 3); pen.moveTo(x - 3, y + 3); pen.lineTo(x + 3, y - 3); pen.stroke(); }
    else { pen.moveTo(x - 4, y - 5); pen.lineTo(x + 4, y - 5); pen.lineTo(x, y + 2); pen.fill(); }
  }
}

function drawLosses(brush, high) {
  brush.strokeStyle = styles.red;
  brush.lineWidth = 1.5;
  brush.setLineDash([4, 3]);
  for (const [ns] of facts.losses) {
    if (ns < view.since || ns > view.until) continue;
    brush.beginPath();
    brush.moveTo(xOf(ns), 0);
    brush.lineTo(xOf(ns), high);
    brush.stroke();
  }
  brush.setLineDash([]);
}

function drawChosen(scroll) {
  const y = yOf(chosen) - scroll, x0 = Math.max(xOf(fork[chosen]), left), x1 = Math.min(xOf(Math.max(gone[chosen], exit[chosen])), width);
  pen.strokeStyle = colour("mark");
  pen.lineWidth = 2;
  if (x1 >= left && x0 <= width) pen.strokeRect(x0 - 2, y - 1.5, Math.max(x1 - x0, 1) + 4, lanes.height + 1);
  drawCleared(chosen, colour("mark"), scroll);
  const by = other("cleared_by_id", chosen);
  if (by >= 0) drawCleared(by, colour("mark"), scroll);
}

// Round steps of time, some 90 pixels apart.
function ticksOf() {
  const span = view.until - view.since, rough = span / Math.max((width - left) / 90, 1);
  const ten = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find((one) => one * ten >= rough) * ten;
  const found = [];
  for (let tick = Math.ceil(view.since / step) * step; tick <= view.until && found.length < 100; tick += step) found.push(tick);
  return { at: found, digits: Math.max(0, -Math.floor(Math.log10(step / 1e9) + 1e-9)) };
}

// --- the number of zombies over time

let levels = null; // { times, counts }: `counts[i]` from `times[i]` on

function countZombies() {
  const dead = [];
  for (let row = 0; row < rows; row++) if (!Number.isNaN(zombie[row]) && kinds[row] >= 0) dead.push(row);
  const begins = Float64Array.from(dead, (row) => zombie[row]).sort(), ends = Float64Array.from(dead, (row) => at("open", row) ? Infinity : gone[row]).sort();
  const times = new Float64Array(2 * dead.length), counts = new Int32Array(2 * dead.length);
  for (let b = 0, e = 0, n = 0; n < times.length; n++) {
    const begins_now = b < begins.length && begins[b] < ends[e];
    times[n] = begins_now ? begins[b++] : ends[e++];
    counts[n] = b - e;
  }
  levels = { times, counts, most: counts.reduce((a, b) => Math.max(a, b), 0) };
}

function after(times, ns) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= ns) low = middle + 1; else high = middle;
  }
  return low;
}

function drawStrip(ticks) {
  const high = 74, foot = 18;
  fit(strip, stripPen, width, high);
  const most = Math.max(levels.most, 1), scale = (high - foot - 6) / most, step = (view.until - view.since) / (width - left);
  stripPen.fillStyle = styles.zombies.length === 1 ? styles.zombies[0].edge : isDark() ? "#9aa0a6" : "#777777";
  let place = after(levels.times, view.since);
  for (let x = left; x < width; x++) {
    let level = place ? levels.counts[place - 1] : 0;
    const end = view.since + (x + 1 - left) * step;
    while (place < levels.times.length && levels.times[place] < end) level = Math.max(level, levels.counts[place++]);
    if (level) stripPen.fillRect(x, high - foot - level * scale, 1, level * scale);
  }
  stripPen.fillStyle = styles.faint;
  stripPen.fillRect(left, high - foot, width - left, 1);
  stripPen.font = MONO;
  stripPen.textBaseline = "top";
  stripPen.textAlign = "left";
  drawLosses(stripPen, high - foot);
  stripPen.fillStyle = styles.ink;
  const said = `zombies, at most ${levels.most.toLocaleString("en")} at once`;
  if (lanes.own) { stripPen.textAlign = "right"; stripPen.fillText(said, GUTTER - 6, 22, GUTTER - 10); }
  else {
    stripPen.fillStyle = styles.paper;
    stripPen.fillRect(left, 0, stripPen.measureText(said).width + 8, 13);
    stripPen.fillStyle = styles.ink;
    stripPen.fillText(said, left + 4, 1);
  }
  stripPen.textAlign = "center";
  stripPen.fillStyle = styles.faint;
  for (const tick of ticks.at) {
    const when = clock ? clockText(tick, ticks.digits) : `${seconds(tick).toFixed(ticks.digits)} s`;
    stripPen.fillText(when, Math.min(Math.max(xOf(tick), left + 20), width - 30), high - foot + 4);
  }
}

// --- moving

function show(since, until) {
  const most = whole.until - whole.since, span = Math.min(Math.max(until - since, 1000), most);
  view.since = Math.min(Math.max((since + until - span) / 2, whole.since), whole.until - span);
  view.until = view.since + span;
  redraw();
  keep();
}

function zoom(factor, x) {
  const ns = nsAt(Math.min(Math.max(x, left), width));
  show(ns - (ns - view.since) * factor, ns + (view.until - ns) * factor);
}

function pan(pixels) {
  const ns = pixels * (view.until - view.since) / (width - left);
  const shift = Math.min(Math.max(ns, whole.since - view.since), whole.until - view.until);
  show(view.since + shift, view.until + shift);
}

function movable(canvas) {
  const fingers = new Map();
  let moved = 0, apart = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey) $("lanes").scrollTop += event.deltaY || event.deltaX;
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX);
    else zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY * (event.ctrlKey ? 0.01 : 0.002)))), event.offsetX);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
    moved = fingers.size > 1 ? 1e9 : 0;
    apart = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { if (canvas === bars) hover(event); return; }
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()], now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (apart && now) zoom(apart / now, (a.clientX + b.clientX) / 2 - canvas.getBoundingClientRect().left);
      apart = now;
      return;
    }
    moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
    if (moved < 4) return;
    pan(before.clientX - event.clientX);
    $("lanes").scrollTop += before.clientY - event.clientY;
  });
  const up = (event) => {
    if (fingers.delete(event.pointerId) && event.type === "pointerup" && moved < 4 && canvas === bars) {
      const row = hit(event.offsetX, event.offsetY);
      if (row >= 0) choose(row);
    }
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; hovered = -1; });
}

// The process that is drawn at a place.
function hit(x, y) {
  const above = y + $("lanes").scrollTop, group = lanes.groups[groupAt(above)];
  if (!group || above < group.y) return -1;
  const lane = group.base + Math.floor((above - group.y) / lanes.height), near = 3 * (view.until - view.since) / (width - left);
  const place = firstAfter(lanes.first[lane], lanes.first[lane + 1], nsAt(x) - near), row = lanes.items[place];
  if (x < left) return lanes.own ? lanes.items[lanes.first[lane]] : -1;
  return place < lanes.first[lane + 1] && fork[row] <= nsAt(x) + near ? row : -1;
}

function hover(event) {
  const row = hit(event.offsetX, event.offsetY), tip = $("tip");
  bars.style.cursor = row >= 0 ? "pointer" : "crosshair";
  tip.hidden = row < 0;
  if (row < 0) { hovered = -1; return; }
  if (row !== hovered) { tip.replaceChildren(...tipOf(row)); hovered = row; }
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${event.clientY + 18 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
}

function tipOf(row) {
  const lasted = cell("lasted", row), cause = cell("cause", row);
  const told = [["bold", nameOf(row)], ["", `ran ${cell("ran", row) || "until the end"}, ${cell("ended", row)}`]];
  if (lasted) told.push(["", `zombie for ${lasted}${at("open", row) ? ", not reaped" : ""}`]);
  if (cell("started", row)) told.push(["", `started at ${cell("started", row)}`], ["source", sourceOf("forked", row)]);
  if (cell("reaped", row)) told.push(["", `reaped by ${cell("reaped", row)}`], ["source", sourceOf("gone", row)]);
  if (cause) told.push(["", `${cell("short", row)} (${cause})`]);
  for (const name of ["signal", "failure"]) told.push(...marksOf(name, row).slice(0, 4).map((said) => ["", said]));
  return told.filter(([, said]) => said).map(([className, said]) => make("p", className, said));
}

function marksOf(name, row) {
  const who = column(`${name}_id`), times = column(`${name}_ns`), found = [];
  for (let one = 0; one < who.length && found.length < 20; one++) {
    if (who[one] === ids[row]) found.push(`${mark(times[one])} ${strings[at(`${name}_text`, one)]}`);
  }
  return found;
}

function sourceOf(section, row) {
  const place = at(`said_${section}`, row);
  return Number.isNaN(place) ? "" : facts.said[section][place].map((event) => event[3]).find((one) => one) ?? "";
}

// --- the chain of a process: sentences whose blanks are filled in

const MOMENTS = { fork: () => column("fork"), exec: () => column("moment_exec"), lost: () => column("moment_lost"),
  exit: () => column("moment_exit"), gone: () => column("moment_gone") };

function fill(sentence, row) {
  return sentence.replace(/\x01([\w+-]+)\x02/g, (_, name) => {
    if (facts.columns[`value_${name}`]) return fill(text(`value_${name}`, row), row);
    if (name.endsWith("_at")) return mark(MOMENTS[name.slice(0, -3)]()[row]);
    if (name === "pid") return String(pids[row]);
    return nameById(ids[row] + Number(name.slice("name".length)));
  });
}

// Lines as `why` prints them: { mark, text, source, style }, the headline first; none: this process is not told of in the page.
function chain(row) {
  const sections = Object.keys(facts.said), lines = [], events = [], shown = new Set();
  if (sections.some((section) => Number.isNaN(at(`said_${section}`, row)))) return [];
  const of = (section) => facts.said[section][at(`said_${section}`, row)];
  for (const section of facts.events) events.push(...of(section));
  const when = ([moment]) => typeof moment === "string" ? MOMENTS[moment]()[row] : moment;
  events.sort((a, b) => when(a) - when(b));
  const begin = sections.indexOf(facts.events[0]);
  const line = ([, mark, text, source, style]) => ({ mark: fill(mark, row), text: fill(text, row), source, style });
  for (const section of sections.slice(0, begin)) lines.push(...of(section).map(line));
  for (const event of events) {
    const made = line(event);
    if (shown.has(made.source)) made.source = null; else shown.add(made.source);
    lines.push(made);
  }
  for (const section of sections.slice(begin + facts.events.length)) lines.push(...of(section).map(line));
  return lines;
}

function choose(row, move = false) {
  chosen = row;
  const panel = $("one");
  panel.replaceChildren();
  if (row >= 0) {
    const [head, ...lines] = chain(row);
    panel.append(make("h2", head ? head.style : "", head ? head.text : nameOf(row)));
    panel.append(make("p", "faint", cell("argv", row)));
    if (head) panel.append(linesOf(lines));
    else panel.append(make("p", "", `This page explains only zombies of 10 ms or more. Of this process: ${facts.why} '#${ids[row]}'`));
    panel.append(...neighbours(row), ...stackOf("forked here", cell("fork_stack", row)), ...stackOf("reaped here", cell("reap_stack", row)));
    if (move) reveal(row);
  }
  drawTable();
  redraw();
  keep();
}

function linesOf(lines) {
  const grid = make("div", "lines");
  for (const { mark, text, source, style } of lines) {
    const said = make("span", style, text);
    if (source) said.append(make("span", "source", `   ${source}`));
    grid.append(make("span", "faint", mark), said);
  }
  return grid;
}

function neighbours(row) {
  const parts = [["parent", [other("parent_id", row)]], ["cleared by the start of", [other("cleared_by_id", row)]], ["its start cleared", clearedOf(row)]];
  const found = [];
  for (const [title, some] of parts) {
    const there = some.filter((one) => one >= 0);
    if (!there.length) continue;
    const line = make("p", "", make("span", "faint", `${title} `));
    for (const one of there.slice(0, 20)) {
      const link = make("a", "", nameOf(one));
      link.href = `#p=${ids[one]}`;
      line.append(link);
    }
    if (there.length > 20) line.append(`and ${(there.length - 20).toLocaleString("en")} more`);
    found.push(line);
  }
  return found.length ? [make("h2", "", "Neighbours"), ...found] : [];
}

function stackOf(title, stack) {
  return stack ? [make("h2", "", `Stack: ${title}`), make("pre", "", stack)] : [];
}

// Brings a process into view.
function reveal(row) {
  const end = Math.max(gone[row], exit[row]), span = view.until - view.since;
  if (end < view.since || fork[row] > view.until) show((fork[row] + end - span) / 2, (fork[row] + end + span) / 2);
  const y = yOf(row), box = $("lanes");
  if (y < box.scrollTop || y + lanes.height > box.scrollTop + box.clientHeight) box.scrollTop = y - box.clientHeight / 2;
  const place = order.indexOf(row), table = $("table");
  const top = place * ROW;
  if (place >= 0 && (top < table.scrollTop || top + 3 * ROW > table.scrollTop + table.clientHeight)) table.scrollTop = Math.max(0, top - 2 * ROW);
}

// --- the table

const HEADS = [ // column, title, side, and what it is sorted by, unless by its text
  ["name", "process", "", (row) => ids[row]],
  ["lasted", "zombie", "right", (row) => Number.isNaN(zombie[row]) ? -1 : gone[row] - zombie[row]],
  ["cause", "why", ""],
  ["ran", "ran", "right", (row) => exit[row] - fork[row]],
  ["ended", "ended", ""],
  ["started", "started at", ""],
  ["reaped", "reaped by", ""],
  ["made", "made by", ""],
  ["argv", "command", ""],
];

function makeHeads() {
  for (const [name, title, side] of HEADS) {
    const button = make("button", "", title);
    button.type = "button";
    button.addEventListener("click", () => sort(name));
    const head = make("th", side, button);
    head.scope = "col";
    head.dataset.column = name;
    $("heads").append(head);
  }
}

function sort(name) {
  sortBy = { column: name, down: sortBy.column === name ? !sortBy.down : name === "lasted" || name === "ran" };
  arrange();
  $("table").scrollTop = 0;
}

// The rows that match, in the order of the chosen column.
function arrange() {
  const wanted = [];
  for (let row = 0; row < rows; row++) if (matches === null || matches[row]) wanted.push(row);
  order = Int32Array.from(wanted);
  const value = HEADS.find(([name]) => name === sortBy.column)[3];
  const key = value ? Float64Array.from({ length: rows }, (_, row) => value(row)) : ranks(`cell_${sortBy.column}`);
  if (sortBy.column !== "name") order.sort((a, b) => key[a] - key[b] || a - b); // by name they are already
  if (sortBy.down) order.reverse();
  for (const head of $("heads").children) {
    const mine = head.dataset.column === sortBy.column;
    if (mine) head.setAttribute("aria-sort", sortBy.down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
    head.firstChild.textContent = HEADS.find(([name]) => name === head.dataset.column)[1] + (mine ? (sortBy.down ? " ▾" : " ▴") : "");
  }
  $("found").textContent = matches === null ? `${rows.toLocaleString("en")} processes` : `${order.length.toLocaleString("en")} of ${rows.toLocaleString("en")} processes`;
  drawTable();
}

// The place of each row's text in the order of the alphabet.
function ranks(name) {
  const codes = column(name), used = [...new Set(codes)].filter((code) => !Number.isNaN(code));
  used.sort((a, b) => strings[a] < strings[b] ? -1 : 1);
  const rank = new Map(used.map((code, place) => [code, place]));
  return Float64Array.from(codes, (code) => rank.get(code) ?? -1);
}

// Only the rows in view are in the document, between two that keep the place of the others.
function drawTable() {
  const box = $("table"), body = $("cells"), first = Math.max(0, Math.floor(box.scrollTop / ROW) - 4);
  const last = Math.min(order.length, first + Math.ceil(box.clientHeight / ROW) + 10);
  const focused = document.activeElement?.dataset?.row;
  const made = [roomOf(first)];
  for (let place = first; place < last; place++) made.push(rowOfTable(order[place], place));
  made.push(roomOf(order.length - last));
  body.replaceChildren(...made);
  body.parentElement.setAttribute("aria-rowcount", order.length + 1);
  if (focused) body.querySelector(`button[data-row="${focused}"]`)?.focus({ preventScroll: true });
}

function roomOf(count) {
  const room = make("td", "room");
  room.colSpan = HEADS.length;
  room.style.height = `${count * ROW}px`;
  const line = make("tr", "", room);
  line.setAttribute("aria-hidden", "true");
  line.hidden = count === 0;
  return line;
}

function rowOfTable(row, place) {
  const line = make("tr", row === chosen ? "chosen" : "");
  line.setAttribute("aria-rowindex", place + 2);
  for (const [name, , side] of HEADS) {
    const said = name === "name" ? nameOf(row) : cell(name, row);
    const box = make("td", side);
    if (name === "name") {
      const button = make("button", "mono", said);
      button.type = "button";
      button.dataset.row = row;
      box.append(button);
    } else box.append(said);
    box.title = said;
    line.append(box);
  }
  line.addEventListener("click", () => choose(row, true));
  return line;
}

// --- the search

const SEARCHED = ["comm", "argv", "started", "reap_line", "cause", "short", "ended", "made"];

// Rows of which each word is in some text: each distinct text is looked at once.
function search(said) {
  words = said.trim();
  const wanted = words.toLowerCase().split(/\s+/).filter((one) => one);
  matches = wanted.length ? new Uint8Array(rows).fill(1) : null;
  for (const word of wanted) {
    const fits = Uint8Array.from(strings, (one) => one.toLowerCase().includes(word) ? 1 : 0);
    const found = new Uint8Array(rows);
    for (const name of SEARCHED) {
      const about = facts.columns[`cell_${name}`];
      for (let row = 0; row < rows; row++) { const place = number(stored(about, row)); if (place === place && fits[place]) found[row] = 1; }
    }
    if (/^[\d#*]+$/.test(word)) for (let row = 0; row < rows; row++) if (numberOf(row).includes(word)) found[row] = 1;
    for (let row = 0; row < rows; row++) matches[row] &= found[row];
  }
  arrange();
  $("table").scrollTop = 0;
  redraw();
  keep();
}

// --- the link

let keeping = 0;
function keep() {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const parts = [];
    if (chosen >= 0) parts.push(`p=${ids[chosen]}`);
    if (view.since !== whole.since || view.until !== whole.until) parts.push(`t=${seconds(view.since).toFixed(9)},${seconds(view.until).toFixed(9)}`);
    if (words) parts.push(`q=${encodeURIComponent(words)}`);
    if (grouping !== "none") parts.push(`g=${grouping}`);
    try { history.replaceState(null, "", `#${parts.join("&")}`); } catch { /* a frame without an address of its own */ }
  }, 150);
}

// What a link says; its event has it even where `keep` has written another in the meantime.
function follow(event) {
  const parts = new Map((event ? new URL(event.newURL) : location).hash.slice(1).split("&").map((part) => part.split("=", 2)));
  if (KEYS[parts.get("g")] && Object.hasOwn(KEYS, parts.get("g")) && parts.get("g") !== grouping) { grouping = $("group").value = parts.get("g"); layOut(); }
  if (parts.has("q")) { try { $("search").value = decodeURIComponent(parts.get("q")); } catch { /* no text */ } search($("search").value); }
  const [since, until] = (parts.get("t") ?? "").split(",").map(Number);
  if (until > since) show(since * 1e9, until * 1e9);
  const row = /^\d+$/.test(parts.get("p") ?? "") ? rowOf(Number(parts.get("p"))) : -1;
  if (row >= 0) choose(row, true);
}

// --- the report and the key

function tell() {
  $("title").textContent = facts.title;
  $("summary").replaceChildren(...facts.summary.map(([said, style]) => make("p", style, said)));
  for (const { title, lines, columns: heads, rows: cells, styles: looks } of facts.sections) {
    $("sections").append(make("h2", "", title));
    if (lines) $("sections").append(...lines.map(([said, style]) => make("p", style, said)));
    else $("sections").append(gridOf(heads, cells, looks));
  }
  $("report").hidden = !facts.sections.length;
}

function gridOf(heads, cells, looks) {
  const head = make("tr", "", ...heads.map(([title, side]) => { const one = make("th", side, title); one.scope = "col"; return one; }));
  const lines = cells.map((line, place) => make("tr", looks[place] ?? "", ...line.map((said, column) => make("td", heads[column][1], said))));
  return make("table", "", make("thead", "", head), make("tbody", "", ...lines));
}

function drawKey() {
  const entries = [["running", (brush) => { brush.fillStyle = styles.run; brush.fillRect(0, 1, 26, 10); }]];
  facts.zombies.forEach((style, number) => entries.push([style.label, (brush) => { brush.fillStyle = styles.zombies[number].wide; brush.fillRect(0, 1, 26, 10); }]));
  facts.starts.forEach((style, number) => entries.push([style.label, (brush) => triangle(10, 6, 7, styles.starts[number], brush)]));
  for (const label of facts.failed.labels) entries.push([label, (brush) => { brush.strokeStyle = styles.failed; brush.lineWidth = 2; brush.beginPath(); brush.moveTo(9, 2); brush.lineTo(17, 10); brush.moveTo(17, 2); brush.lineTo(9, 10); brush.stroke(); }]);
  if (facts.columns.signal_ns.rows) entries.push(["signal", (brush) => { brush.fillStyle = styles.ink; brush.beginPath(); brush.moveTo(8, 2); brush.lineTo(18, 2); brush.lineTo(13, 10); brush.fill(); }]);
  if (facts.losses.length) entries.push(["events were lost", (brush) => { brush.fillStyle = styles.red; for (const y of [0, 5, 10]) brush.fillRect(12, y, 2, 3); }]);
  $("key").replaceChildren(...entries.map(([label, paint]) => {
    const sample = make("canvas"), scale = window.devicePixelRatio || 1;
    sample.width = 26 * scale;
    sample.height = 12 * scale;
    const brush = sample.getContext("2d");
    brush.scale(scale, scale);
    paint(brush);
    sample.setAttribute("aria-hidden", "true");
    return make("li", "", sample, label);
  }));
}

// --- keyboard and the rest

function step(by) {
  if (!order.length) return;
  const place = order.indexOf(chosen);
  choose(order[place < 0 ? 0 : Math.min(Math.max(place + by, 0), order.length - 1)], true);
}

const PRESSED = {
  "/": () => { $("search").focus(); $("search").select(); },
  "+": () => zoom(0.6, (left + width) / 2), "=": () => zoom(0.6, (left + width) / 2), "-": () => zoom(1 / 0.6, (left + width) / 2),
  ArrowLeft: () => pan(-80), ArrowRight: () => pan(80),
  ArrowUp: () => { $("lanes").scrollTop -= 60; }, ArrowDown: () => { $("lanes").scrollTop += 60; },
  "0": () => show(whole.since, whole.until), n: () => step(1), p: () => step(-1), Escape: () => choose(-1),
};

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.target === $("search")) {
    if (event.key === "Escape") { $("search").value = ""; search(""); $("search").blur(); }
    if (event.key === "Enter" && order.length) choose(order[0], true);
    return;
  }
  if (event.key.startsWith("Arrow") && $("table").contains(event.target)) return;
  if (!Object.hasOwn(PRESSED, event.key)) return;
  event.preventDefault();
  PRESSED[event.key]();
}

function setTheme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  if (!facts) return;
  prepareStyles();
  drawKey();
  redraw();
}

function listen() {
  movable(bars);
  movable(strip);
  $("lanes").addEventListener("scroll", redraw);
  $("table").addEventListener("scroll", drawTable);
  let typing = 0;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => search($("search").value), rows > 20000 ? 250 : 30); });
  $("group").addEventListener("change", () => { grouping = $("group").value; layOut(); redraw(); keep(); });
  $("clock").addEventListener("change", () => { clock = $("clock").value === "clock"; redraw(); });
  $("whole").addEventListener("click", () => show(whole.since, whole.until));
  $("theme").addEventListener("click", () => setTheme(!isDark()));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => setTheme(event.matches));
  document.addEventListener("keydown", press);
  window.addEventListener("hashchange", follow);
  new ResizeObserver(() => { measure(); redraw(); drawTable(); }).observe($("lanes"));
}

async function begin() {
  setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches);
  [facts, planes] = await unpack();
  ({ strings, rows } = facts);
  [fork, exit, zombie, gone, ids, pids] = ["fork", "exit", "zombie", "gone", "id", "pid"].map(column);
  [kinds, startKinds] = ["kind", "start"].map((name) => Int8Array.from(column(name), (one) => Number.isNaN(one) ? -1 : one));
  const since = facts.since ?? Math.min(0, rows ? fork[0] : 0), until = facts.until ?? facts.end;
  whole = { since, until: Math.max(until, since + 1000) + Math.max(until - since, 1000) * 0.015 };
  Object.assign(view, whole);
  prepareStyles();
  tell();
  drawKey();
  makeHeads();
  layOut();
  countZombies();
  draw();
  arrange();
  listen();
  follow();
  document.documentElement.dataset.ready = performance.now(); // ms since it was opened
}

begin().catch((error) => {
  $("failure").hidden = false;
  $("failure").textContent = `This page cannot be drawn here: ${error.message}. A browser of 2023 or later can: Chrome 80, Firefox 113, Safari 16.4.`;
});
})();
