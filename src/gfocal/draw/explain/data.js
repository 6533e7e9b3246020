"use strict";
/* What the page holds: pictures, their boxes unpacked from bytes (see packing.py), and figures of edges. */

const EDGES = ["Left", "Top", "Right", "Bottom"];
const SHOWN = { before: 1, after: 2 };
const KINDS = { f4: Float32Array, i4: Int32Array, u2: Uint16Array, u1: Uint8Array };
const DATA = JSON.parse(document.getElementById("data").textContent);
const PICTURES = DATA.pictures;
const unpacked = new Map();

/* Return the columns of a picture's boxes as typed arrays; each value of a column takes `width` places a row. */
function unpack(index) {
  if (unpacked.has(index)) return unpacked.get(index);
  const text = atob(document.getElementById(`boxes-${index}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  const picture = PICTURES[index];
  const columns = { rows: picture.rows, bins: picture.bins, classes: 0 };
  let start = 0;
  for (const [name, kind, width] of picture.columns) {
    columns[name] = new KINDS[kind](bytes.buffer, start, picture.rows * width);
    start += columns[name].byteLength;
    if (name === "topLabels") columns.classes = width;
  }
  columns.entropy = leastCertain(columns);
  columns.match = matches(columns, picture.truth);
  unpacked.set(index, columns);
  return columns;
}

/* Entropy in nats of the least certain edge of each row; 0 where there are no distributions. */
function leastCertain(columns) {
  const { rows, bins, probabilities } = columns;
  const highest = new Float32Array(rows);
  if (!bins) return highest;
  for (let row = 0; row < rows; row++) {
    for (let edge = 0; edge < 4; edge++) {
      highest[row] = Math.max(highest[row], entropyOf(probabilities, (4 * row + edge) * bins, bins));
    }
  }
  return highest;
}

function entropyOf(shares, start, bins) {
  let total = 0;
  let sum = 0;
  for (let bin = start; bin < start + bins; bin++) {
    const share = shares[bin];
    total += share;
    if (share) sum += share * Math.log(share);
  }
  return total ? Math.max(0, Math.log(total) - sum / total) : 0;
}

/* The true box that overlaps each row most, one of its class before any other: index (or -1) and IoU. */
function matches(columns, truth) {
  const found = { truth: new Int32Array(columns.rows).fill(-1), iou: new Float32Array(columns.rows) };
  if (!truth) return found;
  for (let row = 0; row < columns.rows; row++) {
    const box = columns.boxes.subarray(4 * row, 4 * row + 4);
    let best = 0;
    truth.boxes.forEach((other, index) => {
      if (truth.crowd[index]) return;
      const overlap = iou(box, other);
      const worth = overlap + (truth.labels[index] === columns.labels[row] ? 1 : 0);
      if (overlap > 0.1 && worth > best) {
        best = worth;
        found.truth[row] = index;
        found.iou[row] = overlap;
      }
    });
  }
  return found;
}

function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / (area(a) + area(b) - both);
}

function area([left, top, right, bottom]) {
  return Math.max(0, right - left) * Math.max(0, bottom - top);
}

/* One edge of one row: where its bins lie and what they hold, and the figures that the page tells. */
function edgeOf(columns, row, edge) {
  const at = 4 * row + edge;
  const { bins } = columns;
  const shares = columns.probabilities.subarray(at * bins, (at + 1) * bins);
  const total = shares.reduce((sum, share) => sum + share, 0) || 1;
  const masses = Array.from(shares, (share) => share / total);
  const start = columns.start[at];
  const step = columns.step[at];
  const mean = masses.reduce((sum, mass, bin) => sum + mass * (start + step * bin), 0);
  const variance = masses.reduce((sum, mass, bin) => sum + mass * (start + step * bin - mean) ** 2, 0);
  const entropy = entropyOf(columns.probabilities, at * bins, bins);
  const found = { start, step, masses, mean, std: Math.sqrt(variance), entropy };
  // a calibration that came with the detections has the last word
  const bands = columns.bands?.subarray(4 * at, 4 * at + 4);
  found.half = bands ? [bands[0], bands[1]] : interval(found, 0.5);
  found.most = bands ? [bands[2], bands[3]] : interval(found, 0.9);
  return found;
}

/* The central interval of a mass, in pixels: the mass of a bin lies evenly over its cell, as in EdgeDistributions. */
function interval(edge, mass) {
  const ends = [quantile(edge, (1 - mass) / 2), quantile(edge, (1 + mass) / 2)];
  return ends[0] <= ends[1] ? ends : [ends[1], ends[0]];
}

function quantile({ start, step, masses }, share) {
  let below = 0;
  for (let bin = 0; bin < masses.length; bin++) {
    if (below + masses[bin] >= share && masses[bin] > 0) {
      return start + step * (bin + (share - below) / masses[bin] - 0.5);
    }
    below += masses[bin];
  }
  return start + step * (masses.length - 0.5);
}

function colourOf(label) {
  return DATA.palette[label % DATA.palette.length];
}

/* Black or white, whichever has more contrast on a colour (WCAG 2.2, 1.4.3). */
function inkOn(colour) {
  const linear = [1, 3, 5].map((place) => {
    const channel = parseInt(colour.slice(place, place + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (luminance + 0.05) ** 2 > 0.05 * 1.05 ? "#000000" : "#ffffff";
}

function nameOf(label) {
  return DATA.classes[label] ?? `class ${label}`;
}
