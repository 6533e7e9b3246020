/* The panel of the chosen box: figures, top classes, its four edges as plots, and what gave way to it. */

const SVG = "http://www.w3.org/2000/svg";
const panel = document.getElementById("panel");

function element(name, text, classes) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function swatch(label) {
  const made = element("span", "", "swatch");
  made.style.background = colourOf(label);
  return made;
}

function fillPanel(row) {
  const { columns, truth } = scene;
  const label = columns.labels[row];
  document.getElementById("panel-name").replaceChildren(swatch(label), element("span", nameOf(label)));
  panel.style.setProperty("--colour", colourOf(label));
  document.getElementById("panel-figures").replaceChildren(...figures(row).map(([name, value, wide]) => {
    const pair = element("div", undefined, wide ? "wide" : undefined);
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
  fillClasses(row);
  const matched = truth ? columns.match.truth[row] : -1;
  document.getElementById("key-truth").hidden = matched < 0;
  document.getElementById("key-soft").hidden = matched < 0 || !truth.softness;
  document.getElementById("key").hidden = !columns.bins;
  const edges = columns.bins ? EDGES.map((_, edge) => edgeOf(columns, row, edge)) : [];
  const highest = Math.max(...edges.flatMap((edge) => edge.masses));
  const plots = edges.map((edge, index) => edgeCard(edge, index, highest, matched));
  const none = element("p", "This detector puts out no distributions of edges.", "quiet");
  document.getElementById("panel-edges").replaceChildren(...(plots.length ? plots : [none]));
}

function figures(row) {
  const { columns, truth } = scene;
  const found = [["Score", columns.scores[row].toFixed(3)]];
  if (columns.quality) found.push(["Quality", columns.quality[row].toFixed(3)]);
  if (columns.bins) found.push(["Entropy", `${columns.entropy[row].toFixed(2)} nats`]);
  if (truth) {
    const matched = columns.match.truth[row];
    const other = matched >= 0 && truth.labels[matched] !== columns.labels[row];
    const of = other ? `, of a ${nameOf(truth.labels[matched])}` : "";
    found.push(["IoU with truth", matched < 0 ? "none there" : columns.match.iou[row].toFixed(3) + of, other]);
  }
  found.push(["Box", Array.from(boxOf(row), (value) => value.toFixed(1)).join(", "), true]);
  return found;
}

function fillClasses(row) {
  const { classes, topLabels, topScores, labels } = scene.columns;
  document.getElementById("panel-classes-part").hidden = !classes;
  const bars = [];
  for (let place = row * classes; place < (row + 1) * classes; place++) {
    const line = element("div", undefined, "class-bar");
    const bar = element("span", "", "bar");
    const fill = element("i");
    fill.style.width = `${(100 * topScores[place]).toFixed(1)}%`;
    fill.style.background = colourOf(topLabels[place]);
    bar.append(fill);
    line.classList.toggle("own", topLabels[place] === labels[row]);
    line.append(element("span", nameOf(topLabels[place]), "class-name"), bar,
      element("span", topScores[place].toFixed(3), "number"));
    bars.push(line);
  }
  document.getElementById("panel-classes").replaceChildren(...bars);
}

function edgeCard(edge, index, highest, matched) {
  const made = element("div", undefined, "one-edge");
  const axis = index % 2 === 0 ? "x" : "y";
  const heading = element("h4", EDGES[index]);
  heading.append(element("span", `${axis} = ${edge.mean.toFixed(1)} ± ${edge.std.toFixed(1)}`));
  const known = matched >= 0 && !document.getElementById("show-truth").checked ? -1 : matched;
  const true_ = known < 0 ? null : scene.truth.boxes[known][index];
  const soft = known < 0 || !scene.truth.softness ? null : scene.truth.softness[known][index];
  const range = (ends) => ends.map((value) => (Number.isFinite(value) ? value.toFixed(1) : "∞")).join(" – ");
  const told = `90 %: ${range(edge.most)} px`;
  const spread = `entropy ${edge.entropy.toFixed(2)} nats`;
  const apart = true_ === null ? "" : `true edge ${true_.toFixed(1)} (${signed(edge.mean - true_)})`;
  const label = `${EDGES[index]} edge: ${axis} = ${edge.mean.toFixed(1)} ± ${edge.std.toFixed(1)} px, ` +
    `50 %: ${range(edge.half)}, ${told}, ${spread}${apart && `, ${apart}`}`;
  made.append(heading, ...plot(edge, highest, { label, true_, soft }), element("p", told), element("p", spread));
  if (apart) made.append(element("p", apart));
  return made;
}

const signed = (value) => `${Math.abs(value) < 0.05 ? "±" : value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

/* What of the axis is shown: the bins that hold probability with room around, and the true edge where it is near. */
function extentOf(edge, true_) {
  const width = Math.abs(edge.step);
  const places = edge.masses.map((_, bin) => edge.start + edge.step * bin);
  const held = places.filter((_, bin) => edge.masses[bin] > 0.004);
  let low = Math.min(...held) - 1.5 * width;
  let high = Math.max(...held) + 1.5 * width;
  const near = true_ !== null && Math.abs(true_ - edge.mean) < 2 * (high - low);
  if (near) [low, high] = [Math.min(low, true_ - width / 2), Math.max(high, true_ + width / 2)];
  return [low, high - low];
}

function plot(edge, highest, { label, true_, soft }) {
  const [first, extent] = extentOf(edge, true_);
  const width = Math.abs(edge.step);
  const drawing = shape("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", role: "img", "aria-label": label });
  const at = (place) => (100 * (place - first)) / extent;
  const block = (name, ends, y, height) => {
    const [low, high] = ends.map((place) => Math.min(Math.max(place, first), first + extent));
    return shape("rect", { class: name, x: at(low), y, width: Math.max(at(high) - at(low), 0), height });
  };
  if (soft !== null) drawing.append(block("soft", [true_ - soft / 2, true_ + soft / 2], 0, 1));
  drawing.append(block("most", edge.most, 0, 1), block("half", edge.half, 0, 1));
  edge.masses.forEach((mass, bin) => {
    const place = edge.start + edge.step * bin;
    const height = (0.94 * mass) / highest;
    if (mass > 0.0005) drawing.append(block("mass", [place - 0.46 * width, place + 0.46 * width], 1 - height, height));
  });
  const upright = (name, place) => shape("line", { class: name, x1: at(place), x2: at(place), y1: 0, y2: 1 });
  drawing.append(upright("mean", edge.mean));
  if (true_ !== null) drawing.append(upright("true-casing", true_), upright("true", true_));
  const frame = element("div", undefined, "plot");
  frame.append(drawing, element("span", `${(100 * Math.max(...edge.masses)).toFixed(0)} %`, "peak"));
  return [frame, ticks(first, extent)];
}

function ticks(first, extent) {
  const row = element("div", undefined, "ticks");
  row.setAttribute("aria-hidden", "true");
  const power = 10 ** Math.floor(Math.log10(extent / 3));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => extent / size <= 4.5) ?? 10 * power;
  for (let value = Math.ceil(first / step) * step; value <= first + extent; value += step) {
    const share = (value - first) / extent;
    if (share < 0.07 || share > 0.93) continue;
    const tick = element("span", String(Number(value.toPrecision(6))));
    tick.style.left = `${100 * share}%`;
    row.append(tick);
  }
  return row;
}

/* What gave way to the chosen box, or the box that the chosen one gave way to, with scores (and IoU where known). */
function fillRivals(row, rivals, { winner, pick }) {
  document.getElementById("panel-rivals-part").hidden = !rivals.length;
  document.getElementById("rivals-name").textContent =
    winner < 0 ? `Gave way to this box (${rivals.length})` : "Gave way to the better box";
  const shown = rivals.slice(0, 12).map((rival) => {
    const line = element("li");
    const button = element("button", undefined, "rival");
    button.type = "button";
    const known = scene.truth ? `, IoU ${scene.columns.match.iou[rival].toFixed(2)}` : "";
    button.append(swatch(scene.columns.labels[rival]), `${scene.columns.scores[rival].toFixed(3)}${known}`);
    button.setAttribute("aria-label", `${nameOf(scene.columns.labels[rival])}, score ${button.textContent}`);
    button.addEventListener("click", () => pick(rival));
    line.append(button);
    return line;
  });
  document.getElementById("panel-rivals").replaceChildren(...shown);
}
