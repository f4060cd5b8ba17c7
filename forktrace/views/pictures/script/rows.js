// Which row a process is in, what it is called, and whom its start cleared.

let fork, exit, zombie, gone, ids, pids, kinds, startKinds, rowOfId;

function rowOf(id) {
  if (Number.isNaN(id)) return -1;
  if (!rowOfId) {
    rowOfId = new Map();
    ids.forEach((one, row) => rowOfId.set(one, row));
  }
  return rowOfId.get(id) ?? -1;
}

function nameById(id) {
  const row = rowOf(id);
  return row < 0 ? facts.others[id] ?? `#${id}` : numberOf(row);
}

const other = (name, row) => rowOf(ids[row] - at(name, row)); // the row of a column of ids

let clearedBy; // row -> the rows that its start cleared
function clearedOf(row) {
  if (!clearedBy) {
    clearedBy = new Map();
    const by = column("cleared_by_id");
    for (let one = 0; one < rows; one++) {
      if (Number.isNaN(by[one])) continue;
      const start = rowOf(ids[one] - by[one]);
      if (clearedBy.has(start)) clearedBy.get(start).push(one); else clearedBy.set(start, [one]);
    }
  }
  return clearedBy.get(row) ?? [];
}
