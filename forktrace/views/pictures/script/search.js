// The search.

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
