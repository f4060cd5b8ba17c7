// Explains a process: chooses sentences, and fills in their blanks.

const MOMENTS = { fork: () => column("fork"), exec: () => column("moment_exec"), lost: () => column("moment_lost"),
  exit: () => column("moment_exit"), gone: () => column("moment_gone") };

function fill(sentence, row) {
  return sentence.replace(/\x01([\w+-]+)\x02/g, (_, name) => {
    if (facts.columns[`value_${name}`]) return fill(text(`value_${name}`, row), row);
    if (name.endsWith("_at")) return mark(MOMENTS[name.slice(0, -3)]()[row]);
    if (name === "pid") return String(pids[row]);
    return nameById(ids[row] + Number(name.slice("name".length)));
  });
}

// Lines as `why` prints them: { mark, text, source, style }, the headline first; none: this process is not told of in the page.
function chain(row) {
  const sections = Object.keys(facts.said), lines = [], events = [], shown = new Set();
  if (sections.some((section) => Number.isNaN(at(`said_${section}`, row)))) return [];
  const of = (section) => facts.said[section][at(`said_${section}`, row)];
  for (const section of facts.events) events.push(...of(section));
  const when = ([moment]) => typeof moment === "string" ? MOMENTS[moment]()[row] : moment;
  events.sort((a, b) => when(a) - when(b));
  const begin = sections.indexOf(facts.events[0]);
  const line = ([, mark, text, source, style]) => ({ mark: fill(mark, row), text: fill(text, row), source, style });
  for (const section of sections.slice(0, begin)) lines.push(...of(section).map(line));
  for (const event of events) {
    const made = line(event);
    if (shown.has(made.source)) made.source = null; else shown.add(made.source);
    lines.push(made);
  }
  for (const section of sections.slice(begin + facts.events.length)) lines.push(...of(section).map(line));
  return lines;
}

function choose(row, move = false) {
  chosen = row;
  const panel = $("one");
  panel.replaceChildren();
  if (row >= 0) {
    const [head, ...lines] = chain(row);
    panel.append(make("h2", head ? head.style : "", head ? head.text : nameOf(row)));
    panel.append(make("p", "faint", cell("argv", row)));
    if (head) panel.append(linesOf(lines));
    else panel.append(make("p", "", `This page explains only zombies of 10 ms or more. Of this process: ${facts.why} '#${ids[row]}'`));
    panel.append(...neighbours(row), ...stackOf("forked here", cell("fork_stack", row)), ...stackOf("reaped here", cell("reap_stack", row)));
    if (move) reveal(row);
  }
  drawTable();
  redraw();
  keep();
}

function linesOf(lines) {
  const grid = make("div", "lines");
  for (const { mark, text, source, style } of lines) {
    const said = make("span", style, text);
    if (source) said.append(make("span", "source", `   ${source}`));
    grid.append(make("span", "faint", mark), said);
  }
  return grid;
}

function neighbours(row) {
  const parts = [["parent", [other("parent_id", row)]], ["cleared by the start of", [other("cleared_by_id", row)]], ["its start cleared", clearedOf(row)]];
  const found = [];
  for (const [title, some] of parts) {
    const there = some.filter((one) => one >= 0);
    if (!there.length) continue;
    const line = make("p", "", make("span", "faint", `${title} `));
    for (const one of there.slice(0, 20)) {
      const link = make("a", "", nameOf(one));
      link.href = `#p=${ids[one]}`;
      line.append(link);
    }
    if (there.length > 20) line.append(`and ${(there.length - 20).toLocaleString("en")} more`);
    found.push(line);
  }
  return found.length ? [make("h2", "", "Neighbours"), ...found] : [];
}

function stackOf(title, stack) {
  return stack ? [make("h2", "", `Stack: ${title}`), make("pre", "", stack)] : [];
}

// Brings a process into view.
function reveal(row) {
  const end = Math.max(gone[row], exit[row]), span = view.until - view.since;
  if (end < view.since || fork[row] > view.until) show((fork[row] + end - span) / 2, (fork[row] + end + span) / 2);
  const y = yOf(row), box = $("lanes");
  if (y < box.scrollTop || y + lanes.height > box.scrollTop + box.clientHeight) box.scrollTop = y - box.clientHeight / 2;
  const place = order.indexOf(row), table = $("table");
  const top = place * ROW;
  if (place >= 0 && (top < table.scrollTop || top + 3 * ROW > table.scrollTop + table.clientHeight)) table.scrollTop = Math.max(0, top - 2 * ROW);
}
