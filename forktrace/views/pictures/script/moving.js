// Zooms, moves, shows who the pointer is over.

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
