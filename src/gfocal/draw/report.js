"use strict";
(() => {
  const NAMES = ["Left", "Top", "Right", "Bottom"];
  const SVG = "http://www.w3.org/2000/svg";
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const hint = document.getElementById("hint");
  const slider = document.getElementById("threshold");
  let chosen = null;

  const element = (name, text, classes) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (classes) made.className = classes;
    return made;
  };
  const shape = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const parts = (card, row) => card.querySelectorAll(`[data-row="${row}"]`);
  const boxOf = (card, row) => data[card.dataset.picture][row];

  function filter() {
    const least = Number(slider.value);
    document.getElementById("threshold-value").textContent = least.toFixed(2);
    for (const card of document.querySelectorAll(".card")) {
      const boxes = data[card.dataset.picture];
      for (const part of card.querySelectorAll("[data-row]")) {
        part.classList.toggle("below", boxes[part.dataset.row].score < least);
      }
      const shown = boxes.filter((box) => box.score >= least).length;
      card.querySelector(".count").textContent = `${shown} of ${boxes.length} boxes`;
    }
    if (chosen && boxOf(chosen.card, chosen.row).score < least) close();
  }

  function close() {
    if (!chosen) return;
    chosen.card.classList.remove("chosen-inside");
    for (const part of parts(chosen.card, chosen.row)) part.classList.remove("chosen");
    chosen.card.querySelector(`.box[data-row="${chosen.row}"]`).setAttribute("aria-pressed", "false");
    chosen = null;
    panel.hidden = true;
    hint.hidden = false;
    document.body.classList.remove("panel-open");
  }

  function choose(card, row) {
    close();
    chosen = { card, row };
    card.classList.add("chosen-inside");
    for (const part of parts(card, row)) part.classList.add("chosen");
    card.querySelector(`.box[data-row="${row}"]`).setAttribute("aria-pressed", "true");
    fill(boxOf(card, row));
    panel.hidden = false;
    hint.hidden = true;
    document.body.classList.add("panel-open");
    const covers = getComputedStyle(panel).position === "fixed";
    if (covers) card.querySelector(".stage").scrollIntoView({ block: "nearest" });
  }

  function fill(box) {
    const swatch = element("span", "", "swatch");
    swatch.style.background = box.colour;
    document.getElementById("panel-name").replaceChildren(swatch, `${box.name} ${box.score.toFixed(2)}`);
    const figures = [["Score", box.score.toFixed(3)]];
    if (box.quality !== null) figures.push(["Predicted quality", box.quality.toFixed(3)]);
    figures.push(["Box", box.box.map((value) => value.toFixed(1)).join(", ")]);
    document.getElementById("panel-figures").replaceChildren(...figures.map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }));
    const highest = box.edges ? Math.max(...box.edges.flatMap((edge) => edge.probabilities)) : 0;
    const edges = box.edges
      ? box.edges.map((edge, index) => edgeCard(edge, index, highest, box.colour))
      : [element("p", "This detector predicts no distributions of the edges.", "one-edge")];
    document.getElementById("panel-edges").replaceChildren(...edges);
  }

  function edgeCard(edge, index, highest, colour) {
    const made = element("div", undefined, "one-edge");
    const heading = element("h3", NAMES[index]);
    const axis = index % 2 === 0 ? "x" : "y";
    const place = `${axis} = ${edge.mean.toFixed(1)} ± ${edge.std.toFixed(1)} px`;
    heading.append(element("span", place));
    const interval = edge.interval.map((value) => value.toFixed(1)).join(" to ");
    const figures = `90 %: ${interval} px · entropy ${edge.entropy.toFixed(2)} nats`;
    made.append(heading, ...plot(edge, highest, colour, `${NAMES[index]} edge, ${place}, ${figures}`),
      element("p", figures));
    return made;
  }

  function plot(edge, highest, colour, label) {
    const width = Math.abs(edge.step);
    const count = edge.probabilities.length;
    const first = Math.min(edge.start, edge.start + edge.step * (count - 1)) - width / 2;
    const extent = width * count;
    const drawing = shape("svg", { viewBox: `${first} 0 ${extent} 1`, preserveAspectRatio: "none", role: "img" });
    drawing.setAttribute("aria-label", label);
    const [low, high] = edge.interval;
    drawing.append(shape("rect", { class: "range", x: low, y: 0, width: high - low, height: 1 }));
    edge.probabilities.forEach((mass, bin) => {
      const height = (0.95 * mass) / highest;
      const x = edge.start + edge.step * bin - width / 2;
      if (mass > 0) drawing.append(shape("rect", { class: "mass", x, y: 1 - height, width, height }));
    });
    drawing.append(shape("line", { class: "mean", x1: edge.mean, x2: edge.mean, y1: 0, y2: 1 }));
    const frame = element("div", undefined, "plot");
    frame.style.setProperty("--colour", colour);
    frame.append(drawing, element("span", `${(100 * highest).toFixed(0)} %`, "peak"));
    return [frame, ticks(first, extent)];
  }

  function ticks(first, extent) {
    const row = element("div", undefined, "ticks");
    row.setAttribute("aria-hidden", "true");
    const power = 10 ** Math.floor(Math.log10(extent / 3));
    const step = [1, 2, 5, 10].map((times) => times * power).find((size) => extent / size <= 4.5);
    for (let value = Math.ceil(first / step) * step; value <= first + extent; value += step) {
      const share = (value - first) / extent;
      if (share < 0.04 || share > 0.96) continue;
      const tick = element("span", String(Number(value.toPrecision(6))));
      tick.style.left = `${100 * share}%`;
      row.append(tick);
    }
    return row;
  }

  /* Boxes lie inside boxes: the smallest under the pointer is meant, and a further click takes the next larger. */
  function under(card, event) {
    const stage = card.querySelector(".stage").getBoundingClientRect();
    const view = card.querySelector("svg").viewBox.baseVal;
    const x = ((event.clientX - stage.left) / stage.width) * view.width;
    const y = ((event.clientY - stage.top) / stage.height) * view.height;
    const reach = (6 / stage.width) * view.width;
    const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
    const least = Number(slider.value);
    const boxes = data[card.dataset.picture];
    return [...boxes.keys()].filter((row) => {
      const [left, top, right, bottom] = boxes[row].box;
      const hit = x >= left - reach && x <= right + reach && y >= top - reach && y <= bottom + reach;
      return hit && boxes[row].score >= least;
    }).sort((a, b) => area(boxes[a].box) - area(boxes[b].box));
  }

  function click(event) {
    const stage = event.target.closest(".stage");
    if (!stage) return;
    const card = stage.closest(".card");
    const tag = event.target.closest(".tag");
    if (tag) return choose(card, Number(tag.dataset.row));
    const rows = under(card, event);
    if (!rows.length) return close();
    const now = chosen && chosen.card === card ? rows.indexOf(chosen.row) : -1;
    choose(card, rows[(now + 1) % rows.length]);
  }

  function press(event) {
    if (event.key === "Escape") return close();
    const box = event.target.closest(".box");
    if (!box || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    choose(box.closest(".card"), Number(box.dataset.row));
  }

  for (const box of document.querySelectorAll(".box")) {
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "button");
    box.setAttribute("aria-pressed", "false");
  }
  for (const [id, name] of [["show-edges", "no-edges"], ["show-truth", "no-truth"]]) {
    const box = document.getElementById(id);
    const apply = () => document.body.classList.toggle(name, !box.checked);
    box.addEventListener("change", apply);
    apply();
  }
  document.documentElement.classList.add("js");
  document.getElementById("controls").hidden = false;
  hint.hidden = data.every((boxes) => !boxes.length);
  slider.addEventListener("input", filter);
  document.addEventListener("click", click);
  document.addEventListener("keydown", press);
  document.getElementById("panel-close").addEventListener("click", close);
  filter();
})();
