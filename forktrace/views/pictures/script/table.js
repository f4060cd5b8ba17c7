// The table, of which only what is in view is in the document.

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
  const box = $("table"), body = $("cells"), first = beforePrint ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW) - 4);
  const last = Math.min(order.length, beforePrint ? PRINTED : first + Math.ceil(box.clientHeight / ROW) + 10);
  const focused = document.activeElement?.dataset?.row;
  const made = [roomOf(first)];
  for (let place = first; place < last; place++) made.push(rowOfTable(order[place], place));
  made.push(beforePrint ? restOf(order.length - last) : roomOf(order.length - last));
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
