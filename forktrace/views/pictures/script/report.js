// The report and the key.

function tell() {
  $("title").textContent = facts.title;
  $("summary").replaceChildren(...facts.summary.map(([said, style]) => make("p", style, said)));
  const found = facts.sections.find(({ title }) => title === "What happened")?.lines ?? [];
  $("findings").replaceChildren(...found.map(([said, style]) => make("p", style, said)));
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
