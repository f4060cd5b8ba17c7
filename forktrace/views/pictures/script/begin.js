// The keyboard, and how it all begins.

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
  window.addEventListener("beforeprint", beginPrint);
  window.addEventListener("afterprint", endPrint);
  new ResizeObserver(() => { if (!beforePrint) { measure(); redraw(); drawTable(); } }).observe($("lanes"));
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
