/* What is looked at and how it is chosen: the picture, the filters, the box. */

const $ = (id) => document.getElementById(id);
const state = { picture: -1, when: "after", order: "score", label: -1, score: [0, 1], entropy: [0, 1] };
const limits = { score: [0, 1], entropy: [0, 1] };
const images = new Map();
let counting = 0;

function start() {
  document.documentElement.classList.add("js");
  $("nothing").hidden = PICTURES.length > 0;
  if (!PICTURES.length) return;
  $("controls").hidden = $("columns").hidden = false;
  if (matchMedia("(max-width: 56rem)").matches) $("filters").open = false;
  setLimits();
  fillClassFilter();
  fillStrip();
  $("truth-toggle").hidden = PICTURES.every((picture) => !picture.truth);
  $("about-truth").hidden = $("truth-toggle").hidden;
  optionOf("iou").hidden = $("truth-toggle").hidden;
  optionOf("quality").hidden = !PICTURES.some((picture) => picture.columns.some(([name]) => name === "quality"));
  resetFilters();
  listen();
  turnTo(0);
}

const optionOf = (value) => $("order").querySelector(`[value=${value}]`);

function setLimits() {
  const bins = Math.max(...PICTURES.map((picture) => picture.bins));
  limits.entropy = [0, bins > 1 ? Math.ceil(100 * Math.log(bins)) / 100 : 1];
  $("entropy").hidden = bins < 2;
  optionOf("entropy").hidden = bins < 2;
  for (const name of ["entropy-low", "entropy-high"]) $(name).max = limits.entropy[1];
}

function resetFilters() {
  const lowest = Math.min(Math.max(DATA.firstScore, 0), 1);
  state.label = -1;
  state.score = [lowest, 1];
  state.entropy = [...limits.entropy];
  for (const name of ["score", "entropy"]) {
    $(`${name}-low`).value = state[name][0];
    $(`${name}-high`).value = state[name][1];
  }
  $("class").value = "-1";
  filtered();
}

function fillClassFilter() {
  const choices = [...DATA.present].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  const all = element("option", `All classes (${choices.length})`);
  all.value = "-1";
  $("class").replaceChildren(all, ...choices.map((label) => {
    const option = element("option", nameOf(label));
    option.value = String(label);
    return option;
  }));
}

function fillStrip() {
  $("strip").replaceChildren(...PICTURES.map((picture, index) => {
    const item = element("div", undefined, "thumb");
    item.id = `thumb-${index}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-label", picture.name);
    item.title = picture.name;
    const image = element("img");
    image.alt = "";
    image.loading = "lazy";
    image.src = `data:image/jpeg;base64,${picture.thumbnail}`;
    item.append(image, element("span", "", "thumb-count"));
    item.addEventListener("click", () => turnTo(index));
    return item;
  }));
  $("strip").hidden = PICTURES.length < 2;
  document.querySelector(".turn").hidden = PICTURES.length < 2;
}

/* Show another picture, from 0; the numbers go round. */
function turnTo(index) {
  state.picture = (index + PICTURES.length) % PICTURES.length;
  const picture = PICTURES[state.picture];
  Object.assign(scene, { width: picture.width, height: picture.height, truth: picture.truth, image: null });
  Object.assign(scene, { columns: unpack(state.picture), chosen: -1, rivals: [], rows: [] });
  stage.style.setProperty("--ratio", (picture.width / picture.height).toFixed(5));
  stage.setAttribute("aria-label", `${picture.name}, picture ${state.picture + 1} of ${PICTURES.length}`);
  $("caption").textContent = picture.name;
  $("place").textContent = `${state.picture + 1} / ${PICTURES.length}`;
  for (const item of $("strip").children) item.setAttribute("aria-selected", "false");
  const thumb = $(`thumb-${state.picture}`);
  thumb.setAttribute("aria-selected", "true");
  $("strip").setAttribute("aria-activedescendant", thumb.id);
  $("strip").scrollLeft = thumb.offsetLeft - ($("strip").clientWidth - thumb.offsetWidth) / 2;
  showImage(state.picture);
  look(whole());
  listRows();
  choose(-1);
}

function showImage(index) {
  if (!images.has(index)) {
    const text = $(`picture-${index}`);
    // the file is still being read: look again when it is
    if (!text) return document.addEventListener("DOMContentLoaded", () => showImage(state.picture), { once: true });
    const image = new Image();
    image.addEventListener("load", redraw);
    image.src = `data:image/jpeg;base64,${text.textContent}`;
    images.set(index, image);
    if (images.size > 8) images.delete(images.keys().next().value); // decoded pictures fill a phone's memory
  }
  scene.image = images.get(index);
  return redraw();
}

function passes(columns, row) {
  const { score, entropy, label, when } = state;
  return (columns.flags[row] & SHOWN[when]) !== 0 &&
    (label < 0 || columns.labels[row] === label) &&
    columns.scores[row] >= score[0] - 1e-6 && columns.scores[row] <= score[1] + 1e-6 &&
    (!columns.bins || (columns.entropy[row] >= entropy[0] - 1e-6 && columns.entropy[row] <= entropy[1] + 0.01));
}

/* Find the rows that pass the filters, best first, and list them. */
function listRows() {
  const { columns } = scene;
  const rows = [];
  for (let row = 0; row < columns.rows; row++) if (passes(columns, row)) rows.push(row);
  rows.sort((a, b) => columns.scores[b] - columns.scores[a]);
  scene.rows = rows;
  const worth = { score: columns.scores, entropy: columns.entropy, quality: columns.quality, iou: columns.match.iou };
  const by = worth[state.order] ?? columns.scores;
  const listed = [...rows].sort((a, b) => by[b] - by[a]);
  $("boxes").replaceChildren(...listed.map((row) => boxLine(row, by[row])));
  const total = columns.flags.reduce((sum, flag) => sum + ((flag & SHOWN[state.when]) !== 0), 0);
  $("count").textContent = `${rows.length} of ${total}`;
  redraw();
}

function boxLine(row, worth) {
  const line = element("li");
  line.id = `box-${row}`;
  line.dataset.row = row;
  line.setAttribute("role", "option");
  line.setAttribute("aria-selected", "false");
  line.append(swatch(scene.columns.labels[row]), element("span", nameOf(scene.columns.labels[row]), "box-name"));
  if (!isAfter(row)) line.append(element("span", "gave way", "gone"));
  line.append(element("span", worth.toFixed(2), "number"));
  return line;
}

/* Choose a row (-1: none). The view follows where it is near; `zoomed` brings it near. */
function choose(row, { zoomed = false } = {}) {
  const before = scene.chosen;
  scene.chosen = row;
  const winner = row < 0 ? -1 : scene.columns.winner[row];
  scene.rivals = row < 0 ? [] : rivalsOf(row, winner).filter((other) => passes(scene.columns, other));
  for (const line of $("boxes").querySelectorAll("[aria-selected=true]")) line.setAttribute("aria-selected", "false");
  const line = row < 0 ? null : $(`box-${row}`);
  if (line) {
    line.setAttribute("aria-selected", "true");
    $("boxes").setAttribute("aria-activedescendant", line.id);
    const list = $("boxes");
    const low = line.offsetTop - list.offsetTop;
    if (low < list.scrollTop || low + line.offsetHeight > list.scrollTop + list.clientHeight) {
      list.scrollTop = low - list.clientHeight / 2;
    }
  } else $("boxes").removeAttribute("aria-activedescendant");
  panel.hidden = row < 0;
  $("about").hidden = row >= 0;
  $("zoom-box").disabled = row < 0;
  if (row >= 0) {
    fillPanel(row);
    fillRivals(row, rivalsOf(row, winner), { winner, pick: pickRival });
    if (row !== before) say(row);
    if (zoomed || stage.classList.contains("near")) look(around(row), { smooth: true });
  } else if (before >= 0) say(-1);
  redraw();
}

function rivalsOf(row, winner) {
  if (winner >= 0) return [winner];
  const rows = [];
  scene.columns.winner.forEach((other, index) => { if (other === row) rows.push(index); });
  return rows.sort((a, b) => scene.columns.scores[b] - scene.columns.scores[a]);
}

/* A box that gave way is seen before suppression only. */
function pickRival(row) {
  if ((scene.columns.flags[row] & SHOWN[state.when]) === 0) setWhen(isAfter(row) ? "after" : "before");
  if (!scene.rows.includes(row)) resetFilters();
  choose(row);
}

function say(row) {
  if (row < 0) return void ($("says").textContent = "No box is chosen");
  const { columns, rows } = scene;
  $("says").textContent = `${nameOf(columns.labels[row])}, score ${columns.scores[row].toFixed(2)}, ` +
    `box ${rows.indexOf(row) + 1} of ${rows.length}`;
}

function step(by) {
  const lines = [...$("boxes").children].map((line) => Number(line.dataset.row));
  if (!lines.length) return;
  const now = lines.indexOf(scene.chosen);
  choose(lines[now < 0 ? (by > 0 ? 0 : lines.length - 1) : (now + by + lines.length) % lines.length]);
}

function setWhen(when) {
  state.when = when;
  document.querySelector(`input[name=when][value=${when}]`).checked = true;
  filtered();
}

/* Tell in the list of pictures how many boxes pass, some pictures at a time so that the page never waits for it. */
function countFrom(index) {
  const until = performance.now() + 12;
  for (; index < PICTURES.length && performance.now() < until; index++) {
    const columns = unpack(index);
    let count = 0;
    for (let row = 0; row < columns.rows; row++) count += passes(columns, row);
    $(`thumb-${index}`).lastElementChild.textContent = count;
  }
  if (index < PICTURES.length) counting = setTimeout(countFrom, 0, index);
}

/* The filters have changed: show what they leave, in the list of pictures too. */
function filtered() {
  for (const name of ["score", "entropy"]) {
    const [low, high] = state[name];
    $(`${name}-value`).textContent = `${low.toFixed(2)} – ${high.toFixed(2)}`;
    const track = $(`${name}-low`).parentElement;
    track.style.setProperty("--low", `${(100 * low) / limits[name][1]}%`);
    track.style.setProperty("--high", `${(100 * high) / limits[name][1]}%`);
  }
  const on = [state.label >= 0, state.score[1] < 1 || state.score[0] !== DATA.firstScore,
    state.entropy[0] > 0 || state.entropy[1] < limits.entropy[1]].filter(Boolean).length;
  $("filters-on").hidden = !on;
  $("filters-on").textContent = on;
  clearTimeout(counting);
  counting = setTimeout(countFrom, 0, 0);
  if (state.picture < 0) return;
  listRows();
  choose(scene.rows.includes(scene.chosen) ? scene.chosen : -1);
}

function listenFilters() {
  for (const name of ["score", "entropy"]) {
    const [low, high] = [$(`${name}-low`), $(`${name}-high`)];
    low.addEventListener("input", () => {
      low.value = Math.min(Number(low.value), Number(high.value));
      state[name][0] = Number(low.value);
      filtered();
    });
    high.addEventListener("input", () => {
      high.value = Math.max(Number(low.value), Number(high.value));
      state[name][1] = Number(high.value);
      filtered();
    });
  }
  $("class").addEventListener("change", () => { state.label = Number($("class").value); filtered(); });
  $("reset").addEventListener("click", resetFilters);
  for (const radio of document.querySelectorAll("input[name=when]")) {
    radio.addEventListener("change", () => setWhen(radio.value));
  }
  for (const what of ["edges", "labels"]) $(`show-${what}`).addEventListener("change", redraw);
  $("show-truth").addEventListener("change", () => choose(scene.chosen));
  $("order").addEventListener("change", () => { state.order = $("order").value; listRows(); choose(scene.chosen); });
}

function listen() {
  listenFilters();
  listenPointer();
  $("previous").addEventListener("click", () => turnTo(state.picture - 1));
  $("next").addEventListener("click", () => turnTo(state.picture + 1));
  $("panel-close").addEventListener("click", () => choose(-1));
  $("zoom-in").addEventListener("click", () => zoom(1.6, undefined, undefined, { smooth: true }));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.6, undefined, undefined, { smooth: true }));
  $("zoom-box").addEventListener("click", () => choose(scene.chosen, { zoomed: true }));
  $("zoom-all").addEventListener("click", () => look(whole(), { smooth: true }));
  $("boxes").addEventListener("click", (event) => {
    const line = event.target.closest("li");
    if (line) choose(Number(line.dataset.row) === scene.chosen ? -1 : Number(line.dataset.row));
  });
  document.addEventListener("keydown", press);
  new ResizeObserver(() => look(stage.classList.contains("near") ? view : whole())).observe(stage);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") return scene.chosen >= 0 ? choose(-1) : look(whole(), { smooth: true });
  const on = event.target;
  if (on.matches("select, input:not([type=checkbox])")) return;
  const pictures = on === $("strip");
  const boxes = on === stage || on === $("boxes") || on === document.body;
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const keys = {
    n: () => turnTo(state.picture + 1),
    p: () => turnTo(state.picture - 1),
    b: () => setWhen(state.when === "after" ? "before" : "after"),
    z: () => { if (scene.chosen >= 0) choose(scene.chosen, { zoomed: true }); },
    0: () => look(whole(), { smooth: true }),
    "+": () => zoom(1.6, undefined, undefined, { smooth: true }),
    "-": () => zoom(1 / 1.6, undefined, undefined, { smooth: true }),
  };
  if (event.key in moves && (pictures || boxes)) {
    event.preventDefault();
    if (pictures) turnTo(state.picture + moves[event.key]);
    else step(moves[event.key]);
  } else if (event.key === "Enter" && (on === stage || on === $("boxes"))) keys.z();
  else if (Object.hasOwn(keys, event.key.toLowerCase())) keys[event.key.toLowerCase()]();
}

/* A click chooses, a further one on the same place takes the next larger box; dragging moves a picture that is near. */
function listenPointer() {
  let down = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    down = { x: event.clientX, y: event.clientY, from: { ...view }, moved: false };
  });
  stage.addEventListener("pointermove", (event) => {
    if (!down) return;
    const [dx, dy] = [event.clientX - down.x, event.clientY - down.y];
    if (Math.hypot(dx, dy) > 6 && !down.moved) {
      down.moved = true;
      if (stage.classList.contains("near")) stage.setPointerCapture(event.pointerId);
    }
    if (down.moved && stage.classList.contains("near")) {
      look({ scale: down.from.scale, x: down.from.x + dx, y: down.from.y + dy });
    }
  });
  stage.addEventListener("pointerup", (event) => {
    if (down && !down.moved) click(event);
    down = null;
  });
  stage.addEventListener("pointercancel", () => { down = null; });
  stage.addEventListener("dblclick", () => { if (scene.chosen >= 0) choose(scene.chosen, { zoomed: true }); });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls; fingers that spread on a touchpad zoom
    event.preventDefault();
    const frame = stage.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 200), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
}

function click(event) {
  const frame = stage.getBoundingClientRect();
  const rows = under(event.clientX - frame.left, event.clientY - frame.top, event.pointerType === "touch" ? 14 : 5);
  if (!rows.length) return choose(-1);
  if (event.detail > 1 && rows.includes(scene.chosen)) return undefined; // the second click of a double one zooms
  return choose(rows[(rows.indexOf(scene.chosen) + 1) % rows.length]);
}

start();
