// Puts processes into lanes.

let lanes = null; // { of, first, items, y, height, groups, total, own }

const KEYS = {
  none: () => 0,
  tree: (row) => { const up = column("parent_id")[row]; return Number.isNaN(up) ? -1 : ids[row] - up; },
  line: (row) => column("cell_started")[row],
  cause: (row) => column("cell_cause")[row],
};

const TITLES = {
  none: () => "",
  tree: (key) => key < 0 ? "parent outside of the recording" : rowOf(key) < 0 ? `parent #${key}` : `parent ${nameOf(rowOf(key))}`,
  line: (key) => strings[key] || "line not known",
  cause: (key) => strings[key] || "not reaped",
};

function nameOf(row) {
  return `${cell("name", row)} ${cell("comm", row)}`;
}

// Puts each process into a lane of its group: one of its own, or the one that has been free for longest.
function layOut() {
  const keyOf = KEYS[grouping], found = new Map(), own = rows <= OWN_LANES;
  for (let row = 0; row < rows; row++) {
    const key = keyOf(row);
    if (!found.has(key)) found.set(key, { key, count: 0, ends: [], base: 0 });
    found.get(key).count++;
  }
  const groups = [...found.values()];
  if (grouping !== "tree") groups.sort((a, b) => b.count - a.count);
  const of = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const group = found.get(keyOf(row));
    of[row] = own ? group.ends.push(Infinity) - 1 : freeLane(group, fork[row], Math.max(gone[row], exit[row]));
  }
  let total = 0;
  for (const group of groups) {
    group.base = total;
    group.lanes = group.ends.length;
    total += group.lanes;
    delete group.heap;
  }
  const first = new Int32Array(total + 1), items = new Int32Array(rows);
  for (let row = 0; row < rows; row++) first[(of[row] += found.get(keyOf(row)).base) + 1]++;
  for (let lane = 0; lane < total; lane++) first[lane + 1] += first[lane];
  const next = first.slice();
  for (let row = 0; row < rows; row++) items[next[of[row]]++] = row;
  lanes = { of, first, items, groups, total, own, titled: grouping !== "none" };
  measure();
}

// The lane of a group that ended first, if it is free at `begin`; else a new one. `heap` has the lanes, the first to end on top.
function freeLane(group, begin, end) {
  const heap = group.heap ??= [], ends = group.ends;
  if (!heap.length || ends[heap[0]] > begin) {
    ends.push(end);
    let place = heap.push(ends.length - 1) - 1;
    while (place > 0 && ends[heap[(place - 1) >> 1]] > end) {
      heap[place] = heap[(place - 1) >> 1];
      place = (place - 1) >> 1;
    }
    heap[place] = ends.length - 1;
    return ends.length - 1;
  }
  const lane = heap[0];
  ends[lane] = end;
  for (let place = 0; ;) {
    let child = 2 * place + 1;
    if (child + 1 < heap.length && ends[heap[child + 1]] < ends[heap[child]]) child++;
    if (child >= heap.length || ends[heap[child]] >= end) { heap[place] = lane; return lane; }
    heap[place] = heap[child];
    place = child;
  }
}

// How high lanes are: as high as there is room for, within what can be seen and what is not too coarse.
function measure() {
  const room = $("lanes").clientHeight, titles = lanes.titled ? lanes.groups.length * GAP : 0;
  lanes.height = Math.max(lanes.own ? NAMED : lanes.total <= READABLE ? 10 : 3, Math.min(20, Math.floor((room - titles - 4) / Math.max(lanes.total, 1))));
  let y = 2;
  for (const group of lanes.groups) {
    y += lanes.titled ? GAP : 0;
    group.y = y;
    y += group.lanes * lanes.height;
  }
  $("height").style.height = `${y + 2}px`;
  $("lanes").style.maxHeight = `${titles + lanes.total * 20 + 6}px`;
}

// The group that is at a height, or begins first below it.
function groupAt(y) {
  let low = 0, high = lanes.groups.length;
  while (low < high) {
    const middle = (low + high) >> 1, group = lanes.groups[middle];
    if (group.y + group.lanes * lanes.height > y) high = middle; else low = middle + 1;
  }
  return low;
}

function yOf(row) {
  const lane = lanes.of[row];
  let low = 0, high = lanes.groups.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lanes.groups[middle].base <= lane) low = middle; else high = middle - 1;
  }
  return lanes.groups[low].y + (lane - lanes.groups[low].base) * lanes.height;
}
