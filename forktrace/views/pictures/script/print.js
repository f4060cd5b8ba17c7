// Prints: light, with the report open, all lanes, and the table as far as a printer should go.

const PRINTED = 1000; // processes
const SHEET = 420, LONGEST = 3000; // px: what the lanes are made to fit, and how far down they go at most
let beforePrint = null; // what was shown; null: nothing is being printed

function beginPrint() {
  if (beforePrint) return;
  beforePrint = { dark: isDark(), open: $("report").open };
  document.documentElement.classList.add("printed");
  $("report").open = true;
  setTheme(false);
  drawPrinted();
}

function endPrint() {
  if (!beforePrint) return;
  const { dark, open } = beforePrint;
  beforePrint = null;
  document.documentElement.classList.remove("printed");
  $("report").open = open;
  $("lanes").style.height = "";
  setTheme(dark);
  measure();
  drawTable();
}

function drawPrinted() {
  $("lanes").style.height = `${SHEET}px`;
  measure();
  $("lanes").style.height = `${Math.min(parseFloat($("height").style.height) + 2, LONGEST)}px`;
  draw();
  drawTable();
}

// The last line of a table that does not go on.
function restOf(count) {
  const line = roomOf(0);
  line.hidden = count <= 0;
  line.firstChild.append(`and ${count.toLocaleString("en")} more processes`);
  line.removeAttribute("aria-hidden");
  return line;
}
