// Counts zombies and draws the strip.

let levels = null; // { times, counts }: `counts[i]` from `times[i]` on

function countZombies() {
  const dead = [];
  for (let row = 0; row < rows; row++) if (!Number.isNaN(zombie[row]) && kinds[row] >= 0) dead.push(row);
  const begins = Float64Array.from(dead, (row) => zombie[row]).sort(), ends = Float64Array.from(dead, (row) => at("open", row) ? Infinity : gone[row]).sort();
  const times = new Float64Array(2 * dead.length), counts = new Int32Array(2 * dead.length);
  for (let b = 0, e = 0, n = 0; n < times.length; n++) {
    const begins_now = b < begins.length && begins[b] < ends[e];
    times[n] = begins_now ? begins[b++] : ends[e++];
    counts[n] = b - e;
  }
  levels = { times, counts, most: counts.reduce((a, b) => Math.max(a, b), 0) };
}

function after(times, ns) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= ns) low = middle + 1; else high = middle;
  }
  return low;
}

function drawStrip(ticks) {
  const high = 74, foot = 18;
  fit(strip, stripPen, width, high);
  const most = Math.max(levels.most, 1), scale = (high - foot - 6) / most, step = (view.until - view.since) / (width - left);
  stripPen.fillStyle = styles.zombies.length === 1 ? styles.zombies[0].edge : isDark() ? "#9aa0a6" : "#777777";
  for (let x = left, place = after(levels.times, view.since), begun = left, before = 0; x <= width; x++) {
    let level = x < width && place ? levels.counts[place - 1] : 0;
    const end = view.since + (x + 1 - left) * step;
    while (x < width && place < levels.times.length && levels.times[place] < end) level = Math.max(level, levels.counts[place++]);
    if (level === before && x < width) continue;
    stripPen.fillRect(begun, high - foot - before * scale, x - begun, before * scale);
    [begun, before] = [x, level];
  }
  stripPen.fillStyle = styles.faint;
  stripPen.fillRect(left, high - foot, width - left, 1);
  stripPen.font = MONO;
  stripPen.textBaseline = "top";
  stripPen.textAlign = "left";
  drawLosses(stripPen, high - foot);
  stripPen.fillStyle = styles.ink;
  const said = `zombies, at most ${levels.most.toLocaleString("en")} at once`;
  if (lanes.own) { stripPen.textAlign = "right"; stripPen.fillText(said, GUTTER - 6, 22, GUTTER - 10); }
  else {
    stripPen.fillStyle = styles.paper;
    stripPen.fillRect(left, 0, stripPen.measureText(said).width + 8, 13);
    stripPen.fillStyle = styles.ink;
    stripPen.fillText(said, left + 4, 1);
  }
  stripPen.textAlign = "center";
  stripPen.fillStyle = styles.faint;
  for (const tick of ticks.at) {
    const when = clock ? clockText(tick, ticks.digits) : `${seconds(tick).toFixed(ticks.digits)} s`;
    stripPen.fillText(when, Math.min(Math.max(xOf(tick), left + 20), width - 30), high - foot + 4);
  }
}
