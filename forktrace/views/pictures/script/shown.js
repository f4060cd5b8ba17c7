// What is shown: the time in view, the grouping, the order, the search.

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
