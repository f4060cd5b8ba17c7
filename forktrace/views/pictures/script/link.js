// The link that leads back.

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
