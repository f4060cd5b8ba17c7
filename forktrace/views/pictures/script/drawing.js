// Draws the timeline.

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
