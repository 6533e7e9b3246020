/* The picture with its boxes: what is drawn on the canvas, where it is looked at, and what lies under the pointer. */

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const pen = canvas.getContext("2d");
const FONT = '600 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const NEAREST = 24; // screen pixels that one of the picture may take up
const PROFILED = 25; // boxes whose distributions are drawn while none is chosen: the best ones
const RIVALS = 3; // ... labelled beside the chosen box: with it the top four, as in the paper (V2, Fig. 7)
const SMOOTH = matchMedia("(prefers-reduced-motion: reduce)");

/* `scale` screen pixels stand for one of the picture, whose corner lies at x, y of the stage. */
const view = { scale: 1, x: 0, y: 0, moving: 0 };
const scene = { image: null, width: 1, height: 1, columns: null, rows: [], chosen: -1, rivals: [], truth: null };
let asked = 0;

function redraw() {
  if (!asked) asked = requestAnimationFrame(draw);
}

function draw() {
  asked = 0;
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [stage.clientWidth, stage.clientHeight];
  if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
  }
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.imageSmoothingEnabled = view.scale < 4;
  if (scene.image) pen.drawImage(scene.image, view.x, view.y, scene.width * view.scale, scene.height * view.scale);
  const { columns, rows, chosen } = scene;
  if (!columns) return;
  const others = rows.filter((row) => row !== chosen);
  const near = new Set(scene.rivals);
  if (chosen >= 0) veil(width, height);
  if (scene.truth && show("truth")) drawTruths(chosen >= 0 ? columns.match.truth[chosen] : -1);
  pen.globalAlpha = 1;
  for (const row of [...others].reverse()) {
    pen.globalAlpha = chosen < 0 || near.has(row) ? 1 : 0.3;
    drawBox(row, { chosen: false });
  }
  pen.globalAlpha = 1;
  if (show("edges") && columns.bins) {
    if (chosen >= 0) drawBands(chosen);
    if (chosen >= 0) drawBox(chosen, { chosen: true });
    const profiled = chosen >= 0 ? [chosen] : others.filter((row) => isAfter(row)).slice(0, PROFILED);
    for (const row of [...profiled].reverse()) drawProfiles(row, { chosen: chosen >= 0 });
  } else if (chosen >= 0) drawBox(chosen, { chosen: true });
  if (show("labels")) drawLabels(chosen >= 0 ? [chosen, ...scene.rivals.slice(0, RIVALS)] : rows);
  else if (chosen >= 0) drawLabels([chosen]);
}

const show = (what) => document.getElementById(`show-${what}`).checked;
const isAfter = (row) => (scene.columns.flags[row] & SHOWN.after) !== 0;
const toX = (x) => view.x + x * view.scale;
const toY = (y) => view.y + y * view.scale;

function frameOf(box) {
  const [left, right] = box[0] <= box[2] ? [box[0], box[2]] : [box[2], box[0]];
  const [top, bottom] = box[1] <= box[3] ? [box[1], box[3]] : [box[3], box[1]];
  return [toX(left), toY(top), (right - left) * view.scale, (bottom - top) * view.scale];
}

const boxOf = (row) => scene.columns.boxes.subarray(4 * row, 4 * row + 4);

function veil(width, height) {
  pen.fillStyle = "#0008";
  pen.beginPath();
  pen.rect(0, 0, width, height);
  const [x, y, w, h] = frameOf(boxOf(scene.chosen));
  const margin = Math.max(24, 0.35 * Math.sqrt(w * h));
  pen.roundRect(x - margin, y - margin, w + 2 * margin, h + 2 * margin, 12);
  pen.fill("evenodd");
}

function line(frame, { colour, width, dash = [], casing = 1.5 }) {
  pen.setLineDash([]);
  pen.lineJoin = "round";
  pen.strokeStyle = "#000a";
  pen.lineWidth = width + 2 * casing;
  pen.setLineDash(dash);
  pen.strokeRect(...frame);
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.strokeRect(...frame);
  pen.setLineDash([]);
}

function drawTruths(matched) {
  scene.truth.boxes.forEach((box, index) => {
    pen.globalAlpha = matched < 0 || matched === index ? 1 : 0.25;
    line(frameOf(box), { colour: "#ffffff", width: 1.5, dash: [6, 4], casing: 1 });
  });
}

function drawBox(row, { chosen }) {
  const colour = colourOf(scene.columns.labels[row]);
  // candidates that suppression takes out are dotted, so that colour alone need not tell them from those that stay
  const dash = isAfter(row) || chosen ? [] : [2, 3];
  line(frameOf(boxOf(row)), { colour, width: chosen ? 3 : isAfter(row) ? 2 : 1.25, dash, casing: chosen ? 2 : 1 });
}

/* The 90 and 50 % bands of the chosen box, along the whole of each edge. */
function drawBands(row) {
  const [left, top, width, height] = frameOf(boxOf(row));
  const colour = colourOf(scene.columns.labels[row]);
  pen.fillStyle = colour;
  for (let edge = 0; edge < 4; edge++) {
    const found = edgeOf(scene.columns, row, edge);
    for (const [ends, alpha] of [[found.most, 0.24], [found.half, 0.32]]) {
      pen.globalAlpha = alpha;
      const size = edge % 2 === 0 ? scene.width : scene.height;
      const [low, high] = ends.map((place) => Math.min(Math.max(place, -size), 2 * size)); // bands may be infinite
      const extent = (high - low) * view.scale;
      if (edge % 2 === 0) pen.fillRect(toX(low), top, extent, height);
      else pen.fillRect(left, toY(low), width, extent);
    }
  }
  pen.globalAlpha = 1;
}

/* The distribution of each edge as a hump that stands across the middle of its edge, all four on one scale. */
function drawProfiles(row, { chosen }) {
  const box = boxOf(row);
  const [left, top, width, height] = frameOf(box);
  const [x, y] = [left + width / 2, top + height / 2];
  const room = Math.min(stage.clientWidth, stage.clientHeight);
  const certain = chosen
    ? Math.min(Math.max(0.6 * Math.sqrt(width * height), 44), 0.27 * room)
    : Math.min(Math.max(0.4 * Math.sqrt(width * height), 16), 0.1 * room);
  const colour = colourOf(scene.columns.labels[row]);
  for (let edge = 0; edge < 4; edge++) {
    const found = edgeOf(scene.columns, row, edge);
    const flat = edge % 2 === 0;
    const points = curve(found).map(([place, mass]) =>
      flat ? [toX(place), y - certain * mass] : [x + certain * mass, toY(place)]);
    pen.beginPath();
    points.forEach(([px, py], index) => (index ? pen.lineTo(px, py) : pen.moveTo(px, py)));
    pen.closePath();
    pen.lineJoin = "round";
    pen.fillStyle = colour;
    pen.globalAlpha = chosen ? 0.6 : 0.7;
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = "#000a";
    pen.lineWidth = chosen ? 3 : 1.75;
    pen.stroke();
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = chosen ? 1.25 : 0.75;
    pen.stroke();
  }
}

/* A smooth line through the bins that hold probability, with no peak that the bins have not (monotone cubic). */
function curve({ start, step, masses }) {
  const floor = 0.04 * Math.max(...masses); // long empty tails would hide the picture
  const first = masses.findIndex((mass) => mass >= floor);
  const last = masses.length - 1 - [...masses].reverse().findIndex((mass) => mass >= floor);
  const up = [0, ...masses.slice(first, last + 1), 0];
  const slopes = up.slice(1).map((mass, index) => mass - up[index]);
  const tangents = up.map((_, index) => {
    const product = index && index < slopes.length ? slopes[index - 1] * slopes[index] : 0;
    return product > 0 ? (2 * product) / (slopes[index - 1] + slopes[index]) : 0;
  });
  const points = [];
  for (let index = 0; index < slopes.length; index++) {
    for (let part = 0; part < 12; part++) {
      const t = part / 12;
      const rise = t * t * (3 - 2 * t);
      const bend = t * (1 - t) * ((1 - t) * tangents[index] - t * tangents[index + 1]);
      points.push([start + step * (first - 1 + index + t), Math.max(0, up[index] + rise * slopes[index] + bend)]);
    }
  }
  points.push([start + step * (last + 1), 0]);
  return points;
}

/* Class and score at the boxes, best first, each only where it covers no better one. */
function drawLabels(rows) {
  pen.font = FONT;
  pen.textBaseline = "middle";
  const placed = [];
  for (const row of rows.slice(0, 80)) {
    const label = scene.columns.labels[row];
    const name = rows.length > 12 && nameOf(label).length > 14 ? `${nameOf(label).slice(0, 13)}…` : nameOf(label);
    const text = `${name.replace(/\s+/g, " ")} ${scene.columns.scores[row].toFixed(2)}`;
    const [left, top, width, height] = frameOf(boxOf(row));
    const size = [pen.measureText(text).width + 10, 18];
    const spots = [[left, top - 19], [left + width - size[0], top - 19], [left, top + 1], [left, top + height + 1],
      [left + width - size[0], top + height + 1]];
    const inside = spots.map(([x, y]) => [
      Math.min(Math.max(x, 0), Math.max(stage.clientWidth - size[0], 0)),
      Math.min(Math.max(y, 0), Math.max(stage.clientHeight - size[1], 0)),
    ]);
    const spot = inside.find((at) => !placed.some((other) => meet(at, size, other))) ?? (placed.length ? null : inside[0]);
    if (!spot) continue;
    placed.push([...spot, ...size]);
    const colour = colourOf(label);
    pen.fillStyle = colour;
    pen.beginPath();
    pen.roundRect(spot[0], spot[1], size[0], size[1], 4);
    pen.fill();
    pen.strokeStyle = "#0006";
    pen.lineWidth = 1;
    pen.stroke();
    pen.fillStyle = inkOn(colour);
    pen.fillText(text, spot[0] + 5, spot[1] + size[1] / 2 + 0.5);
  }
}

function meet([x, y], [width, height], [left, top, w, h]) {
  return x < left + w && left < x + width && y < top + h && top < y + height;
}

/* Rows under a point of the stage: boxes lie inside boxes, so the smallest is meant first. */
function under(x, y, reach) {
  const hit = (row) => {
    const [left, top, width, height] = frameOf(boxOf(row));
    return x >= left - reach && x <= left + width + reach && y >= top - reach && y <= top + height + reach;
  };
  return scene.rows.filter(hit).sort((a, b) => area(boxOf(a)) - area(boxOf(b)));
}

function whole() {
  const scale = Math.min(stage.clientWidth / scene.width, stage.clientHeight / scene.height);
  return { scale, x: (stage.clientWidth - scene.width * scale) / 2, y: (stage.clientHeight - scene.height * scale) / 2 };
}

/* Where a box, and where its edges may lie, fill most of the stage. */
function around(row) {
  const box = boxOf(row);
  const [width, height] = [Math.max(Math.abs(box[2] - box[0]), 4), Math.max(Math.abs(box[3] - box[1]), 4)];
  const fit = Math.min(stage.clientWidth / (1.7 * width), stage.clientHeight / (1.7 * height));
  const scale = Math.min(Math.max(fit, whole().scale), NEAREST);
  return {
    scale,
    x: stage.clientWidth / 2 - (scale * (box[0] + box[2])) / 2,
    y: stage.clientHeight / 2 - (scale * (box[1] + box[3])) / 2,
  };
}

/* Keep the picture in the stage: no farther than the whole of it, and no empty space where there could be picture. */
function held(to) {
  const all = whole();
  if (to.scale <= all.scale) return all;
  const scale = Math.min(to.scale, Math.max(NEAREST, all.scale));
  const keep = (place, room, size) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, place)));
  return {
    scale,
    x: keep(to.x, stage.clientWidth, scene.width * scale),
    y: keep(to.y, stage.clientHeight, scene.height * scale),
  };
}

function look(to, { smooth = false } = {}) {
  cancelAnimationFrame(view.moving);
  const target = held(to);
  stage.classList.toggle("near", target.scale > whole().scale * 1.001);
  if (!smooth || SMOOTH.matches) {
    Object.assign(view, target);
    return redraw();
  }
  const from = { ...view };
  const begun = performance.now();
  const step = (now) => {
    const t = Math.min((now - begun) / 220, 1);
    const eased = 1 - (1 - t) ** 3;
    for (const key of ["scale", "x", "y"]) view[key] = from[key] + (target[key] - from[key]) * eased;
    redraw();
    if (t < 1) view.moving = requestAnimationFrame(step);
  };
  view.moving = requestAnimationFrame(step);
}

function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2, options = {}) {
  const scale = Math.min(Math.max(view.scale * factor, whole().scale), Math.max(NEAREST, whole().scale));
  const real = scale / view.scale;
  look({ scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real }, options);
}
