// Unpacks what packing.py has packed. All text gets into the page by textContent.

const OWN_LANES = 60; // processes that have a lane each; more share lanes, which is what makes a hundred thousand fit
const READABLE = 400; // lanes: as many are high enough to read, and scroll; more are as low as they can be told apart
const FEW = 400; // bars in view: with more, starts and their lines would hide them
const GUTTER = 168, GAP = 16, ROW = 22, NAMED = 13; // px: NAMED is the least height of a lane that has a name beside it
const MONO = "11px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";
const $ = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

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
