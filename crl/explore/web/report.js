"use strict";
// Everything on the page is made from one block of data. Names come from files and language
// models: they become text nodes, never HTML.

const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const count = data.names.length;
const PAGE = 120;  // pictures in the gallery at once
const PER_DEVIATION = 25;

function numbers(text, Kind) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Kind(bytes.buffer);
}
function unpack(panel, k) {
  panel.cluster = numbers(panel.cluster, Uint16Array);
  for (const key of ["neighbours", "slider_texts", "best", "shared"]) panel[key] = numbers(panel[key], Uint16Array);
  panel.probability = numbers(panel.probability, Float32Array);
  panel.confidence = numbers(panel.confidence, Float32Array);
  panel.title = k ? panel.name : "all that they show";
}
data.panels.forEach(unpack);
const criteria = data.panels.slice(1);
const labelled = data.panels.filter(panel => panel.label);
const row = (values, image) => values.subarray(image * values.length / count, (image + 1) * values.length / count);
const webp = content => "data:image/webp;base64," + content;
const thumbnail = image => webp(data.thumbnails[image]);
const percent = share => share >= 0.095 ? Math.round(100 * share) + "\u00a0%" : (100 * share).toFixed(1) + "\u00a0%";
const all = Array.from({ length: count }, (_, image) => image);
const plain = text => text.trim().toLowerCase().normalize("NFC");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style" || key.startsWith("aria-")) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}
const option = (value, text) => make("option", { value }, text);
const dot = color => make("span", { className: "dot", style: `background: ${color}` });

function picture(image, list) {
  const button = make("button", { type: "button", className: "picture", title: data.names[image] });
  button.append(make("img", { loading: "lazy", alt: data.names[image], src: thumbnail(image) }));
  button.onclick = () => openDetail(image, list);
  return button;
}
function bars(pairs, said = share => "") {
  const element = make("div", { className: "bars" });
  const most = Math.max(...pairs.map(pair => pair[1]), 1e-9);
  for (const [text, share] of pairs) {
    element.append(make("span", {}, text), make("div", { className: "bar", style: `width: ${100 * share / most}%` }), make("small", {}, said(share)));
  }
  return element;
}
const words = (panel, image) => [...row(panel.best, image)].map((text, k) => [panel.words[text], row(panel.probability, image)[k]]);

// ---- which pictures are chosen: those in the lasso that pass all filters

let drawn = null;     // a Set of images, or null
let chosen = all;     // in the order of the gallery
let source = null;    // Bokeh's, shared by all maps
let ranked = null;    // a Map from images to scores: what a served page has searched
let ours = false;     // is this change of the selection ours?
let waiting = 0;      // the timer that writes the address

function deviations() {
  // of the typed text, else of all whose words begin so: one number per image; null without a text
  const panel = criteria[$("text-view").value], typed = plain($("text").value);
  $("text-note").textContent = "";
  if (!panel || !typed) return null;
  const texts = [...panel.slider_texts].map(text => panel.words[text]), places = [...texts.keys()];
  let fit = places.filter(place => plain(texts[place]) === typed);
  if (!fit.length) {
    fit = places.filter(place => (" " + plain(texts[place])).includes(" " + typed));
    const more = fit.length > 4 ? ` and ${fit.length - 4} more` : "";
    $("text-note").textContent = fit.slice(0, 4).map(place => texts[place]).join(", ") + more || `no text about ${panel.name} has a word like this`;
  }
  if (!fit.length) return null;
  if (typeof panel.standing === "string") panel.standing = numbers(panel.standing, Int8Array);  // megabytes
  const level = new Int8Array(count).fill(-128);
  for (const place of fit) for (const image of all) level[image] = Math.max(level[image], panel.standing[place * count + image]);
  return level;
}
function choose(event) {
  const part = plain($("name").value);
  const wanted = data.panels.map((_, k) => $("cluster-" + k).value);
  const [from, to, camera, keyword] = ["from", "to", "camera", "keyword"].map(id => $(id).value);
  const level = deviations(), above = PER_DEVIATION * Number($("above").value);
  chosen = all.filter(image =>
    (!drawn || drawn.has(image)) &&
    (!ranked || ranked.has(image)) &&
    (!part || plain(data.names[image]).includes(part)) &&
    (!from || data.dates[image].slice(0, 10) >= from) &&
    (!to || data.dates[image] && data.dates[image].slice(0, 10) <= to) &&
    (!camera || data.cameras[image] === camera) &&
    (!keyword || data.keywords[image].includes(keyword)) &&
    wanted.every((cluster, k) => cluster === "" || data.panels[k].cluster[image] === Number(cluster)) &&
    (!level || level[image] >= above));
  if (level) chosen.sort((a, b) => level[b] - level[a]);
  if (ranked) chosen.sort((a, b) => ranked.get(b) - ranked.get(a));
  if ($("doubtful").checked) {
    const doubt = image => Math.min(...labelled.map(panel => panel.confidence[image] || 0));  // NaN: none
    chosen.sort((a, b) => doubt(a) - doubt(b));
  }
  const some = drawn || ranked || part || level || from || to || camera || keyword || wanted.some(cluster => cluster !== "");
  $("chosen").textContent = some ? `${chosen.length.toLocaleString("en")} of ${count.toLocaleString("en")} pictures chosen` : `all ${count.toLocaleString("en")} pictures`;
  $("clear").disabled = !some && !$("text").value;
  $("above-value").textContent = $("above").value;
  if (source) {
    ours = true;
    // To Bokeh, an empty selection is none, and all points would light up.
    source.selected.indices = some ? (chosen.length ? [...chosen] : [-1]) : [];
    ours = false;
  }
  $("gallery").replaceChildren();
  showMore();
  clearTimeout(waiting);
  waiting = setTimeout(remember, 300, event?.type === "input" ? event.target : null);
}
function showMore() {
  const have = $("gallery").childElementCount;
  $("gallery").append(...chosen.slice(have, have + PAGE).map(image => withLabel(picture(image, chosen), image)));
  $("more").hidden = $("gallery").childElementCount >= chosen.length;
  $("more").textContent = `Show more (${(chosen.length - $("gallery").childElementCount).toLocaleString("en")} left)`;
}
function withLabel(button, image) {
  if (ranked) return make("div", { className: "labelled" }, button, ranked.get(image).toFixed(3));
  if (!labelled.length) return button;
  const sure = labelled[0].confidence[image];
  return make("div", { className: "labelled" }, button, `${labelled[0].label[image]} ${sure ? percent(sure) : ""}`);
}
function clear() {
  drawn = ranked = null;
  if (data.served) $("ask-note").textContent = "";
  for (const field of document.querySelectorAll("#name, #text, #cluster-filters select, #from, #to, #camera, #keyword")) field.value = "";
  choose();
}
function only(clusters) {
  // clusters: number of a panel -> number of a cluster
  clear();
  for (const [panel, cluster] of Object.entries(clusters)) $("cluster-" + panel).value = cluster;
  choose();
  $("gallery-title").scrollIntoView({ behavior: "smooth", block: "start" });
}
function download() {
  const safe = name => /^[=+@\t\r-]/.test(name) ? "'" + name : name;  // no formula in a spreadsheet
  const quote = name => /[",\r\n]/.test(name) ? '"' + name.replaceAll('"', '""') + '"' : name;
  const lines = ["file", ...chosen.map(image => quote(safe(data.names[image])))].join("\n") + "\n";
  const link = make("a", { download: "pictures.csv", href: URL.createObjectURL(new Blob([lines], { type: "text/csv" })) });
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- filters, legend, clusters, cross table

function listClusters(panel, k) {
  $("cluster-" + k).replaceChildren(option("", "any cluster"), ...panel.clusters.map((cluster, c) => option(c, cluster.name)));
}
data.panels.forEach((panel, k) => {
  const select = make("select", { id: "cluster-" + k, onchange: choose });
  $("cluster-filters").append(make("label", {}, panel.title + " ", select));
  $("color-by").append(option(k, panel.title));
  listClusters(panel, k);
});
$("taken").hidden = !data.dates.some(Boolean);
for (const [id, values] of [["camera", data.cameras], ["keyword", data.keywords.flat()]]) {
  const different = [...new Set(values)].filter(Boolean).sort();
  $(id).append(option("", "any " + id), ...different.map(value => option(value, value)));
  $(id).parentElement.hidden = !different.length;
}
criteria.forEach((panel, k) => $("text-view").append(option(k, panel.name)));
$("text-filter").hidden = !criteria.length;
function listTexts() {
  const panel = criteria[$("text-view").value];
  if (!panel) return;
  const texts = [...panel.slider_texts];
  $("texts").replaceChildren(...texts.map(text => option(panel.words[text], "")));
  $("text").placeholder = texts.length < panel.words.length ? `one of ${texts.length} frequent texts` : "type a word";
}

function paint() {
  const k = Number($("color-by").value), panel = data.panels[k];
  if (source) {
    source.data.color = Array.from(panel.cluster, cluster => panel.clusters[cluster].color);
    source.change.emit();
  }
  $("legend").replaceChildren(...panel.clusters.map((cluster, c) => make("li", {},
    make("button", { type: "button", onclick: () => only({ [k]: c }) }, dot(cluster.color), cluster.name))));
}

function card(panel, k, cluster, c) {
  const size = panel.cluster.reduce((sum, found) => sum + (found === c), 0);
  const element = make("article", { className: "card" }, make("h3", {}, dot(cluster.color),
    make("button", { type: "button", className: "title", onclick: () => only({ [k]: c }) }, cluster.name)));
  if (cluster.weak) element.firstChild.append(make("span", { className: "weak", title: "Another cluster has nearly as much of this: do not trust the name." }, "weak name"));
  element.append(make("p", { className: "quiet" }, `${size.toLocaleString("en")} pictures`));
  if (cluster.words.length) element.append(bars(cluster.words));
  const typical = cluster.typical, uncertain = cluster.uncertain;
  element.append(make("div", { className: "pictures" }, ...typical.map(image => picture(image, typical))));
  if (size > typical.length) element.append(make("p", { className: "quiet" }, "least certain"),
    make("div", { className: "pictures few" }, ...uncertain.map(image => picture(image, uncertain))));
  return element;
}
function showCards(panel, k) {
  $("cards-" + k).replaceChildren(make("h3", {}, panel.title), make("p", { className: "hint" }, panel.note && panel.note + "."),
    make("div", { className: "cards" }, ...panel.clusters.map((cluster, c) => card(panel, k, cluster, c))));
}
[...data.panels.keys()].slice(1).concat(0).forEach(k => {
  $("clusters").append(make("section", { id: "cards-" + k }));
  showCards(data.panels[k], k);
});

function cross() {
  const r = Number($("cross-rows").value), c = Number($("cross-columns").value);
  const rows = data.panels[r], columns = data.panels[c];
  const counts = rows.clusters.map(() => new Array(columns.clusters.length).fill(0));
  for (const image of all) counts[rows.cluster[image]][columns.cluster[image]] += 1;
  const most = Math.max(...counts.flat());
  const head = make("tr", {}, make("th"), ...columns.clusters.map(cluster => make("th", { scope: "col" }, cluster.name)));
  $("cross-table").replaceChildren(head, ...rows.clusters.map((cluster, i) => make("tr", {}, make("th", { scope: "row" }, cluster.name),
    ...columns.clusters.map((other, j) => {
      const button = make("button", { type: "button", disabled: !counts[i][j], style: `--share: ${counts[i][j] / most}` }, String(counts[i][j]));
      button.setAttribute("aria-label", `${counts[i][j]} pictures: ${cluster.name}, ${other.name}`);
      button.onclick = () => only({ [r]: i, [c]: j });
      return make("td", {}, button);
    }))));
}
data.panels.forEach((panel, k) => {
  for (const id of ["cross-rows", "cross-columns"]) $(id).append(option(k, panel.title));
});
if (criteria.length) {
  $("cross").hidden = false;
  $("cross-rows").value = 1;
  $("cross-columns").value = criteria.length > 1 ? 2 : 0;
  $("color-by").value = 1;
  cross();
}

// ---- one picture

let shown = null, within = all;

function nearest(k, around, words) {
  // a heading and pictures; `words` says why the m-th is there
  if (!around.length) return [];
  return [make("h3", {}, k ? `nearest under ${data.panels[k].name}` : "nearest by all that they show"),
    make("div", { className: "near" }, ...around.map((other, m) => make("div", {}, picture(other, around),
      make("small", { className: "quiet" }, words(m).join(", ")))))];
}
function openDetail(image, list, by = 1) {
  shown = image;
  within = list;
  const place = within.indexOf(image);
  const step = by => openDetail(within[(place + by + within.length) % within.length], within, by);
  const head = make("div", { className: "detail-head" }, make("h3", {}, data.names[image]),
    make("button", { type: "button", title: "Previous (left arrow)", onclick: () => step(-1) }, "‹"),
    make("button", { type: "button", title: "Next (right arrow)", onclick: () => step(1) }, "›"),
    make("button", { type: "button", title: "Close (Escape)", onclick: () => $("detail").close() }, "✕"));
  // The file itself, where the page can reach it; else the small picture.
  const large = make("img", { className: "large", alt: data.names[image], src: webp(data.previews[image] ?? data.thumbnails[image]) });
  const file = new Image();
  file.onload = () => { large.src = file.src; };
  file.src = data.places[image];
  const left = make("div", {}, large, make("p", { className: "quiet" }, `${data.sizes[image].join(" × ")} pixels, `,
    make("a", { href: data.places[image], target: "_blank" }, "open the file")));
  const same = all.filter(other => other !== image && data.copies[other] === data.copies[image]);
  if (same.length) left.append(make("p", { className: "copies" }, `the same picture: ${same.map(other => data.names[other]).join(", ")}`));
  const right = make("div");
  for (const panel of criteria) {
    right.append(make("h3", {}, panel.name + ": " + panel.clusters[panel.cluster[image]].name), bars(words(panel, image), percent));
    if (panel.label) right.append(make("p", {}, `label: ${panel.label[image]} (${panel.confidence[image] ? percent(panel.confidence[image]) + " sure" : "no confidence: this label was given once"})`));
  }
  const body = make("div", { className: "detail-body" }, left, right);
  const near = make("div");
  data.panels.forEach((panel, k) => {
    const around = [...row(panel.neighbours, image)], why = row(panel.shared, image), each = why.length / around.length;
    near.append(...nearest(k, around, m => [...why.subarray(m * each, (m + 1) * each)].map(text => panel.words[text])));
  });
  $("detail").replaceChildren(head, body, near);
  $("detail").dispatchEvent(new CustomEvent("picture", { detail: image }));
  $("detail").onkeydown = event => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  };
  if (!$("detail").open) $("detail").showModal();
  head.children[by < 0 ? 1 : 2].focus();  // the button that had the focus is gone, and keys with it
  $("detail").scrollTop = 0;
}
$("detail").onclick = event => { if (event.target === $("detail")) $("detail").close(); };

// ---- start

$("name").oninput = $("above").oninput = $("text").oninput = $("doubtful").onchange = choose;
$("from").onchange = $("to").onchange = $("camera").onchange = $("keyword").onchange = choose;
$("text-view").onchange = () => { $("text").value = ""; listTexts(); choose(); };
$("color-by").onchange = () => { paint(); remember(); };
$("cross-rows").onchange = $("cross-columns").onchange = () => { cross(); remember(); };
$("clear").onclick = clear;
$("download").onclick = download;
$("more").onclick = showMore;
$("order-label").hidden = !labelled.length;
document.querySelector(".skip").onclick = event => { event.preventDefault(); $("gallery-title").focus(); };

// What is scrolled to, or gets the focus, must not lie below the toolbar.
new ResizeObserver(() => {
  const above = getComputedStyle($("toolbar")).position === "sticky" ? $("toolbar").offsetHeight + 4 : 0;
  document.documentElement.style.scrollPaddingTop = above + "px";
}).observe($("toolbar"));

// ---- the address keeps what is chosen: for reload, Back, and bookmarks

const fields = [...document.querySelectorAll("input, select")].filter(field => !field.closest(".served"));
const key = field => field.type === "checkbox" ? "checked" : "value";
const usual = fields.map(field => field.type === "checkbox" ? field.defaultChecked : field.defaultValue ?? field.value);
let typing = null;  // the field that wrote the address last

function state() {
  const changed = fields.filter((field, n) => field[key(field)] !== usual[n]).map(field => [field.id, field[key(field)]]);
  if (drawn) changed.push(["drawn", [...drawn].join(".")]);
  return String(new URLSearchParams(changed));
}
function remember(field = null) {
  clearTimeout(waiting);
  if (state() === location.hash.slice(1)) return;
  const again = field && field === typing;  // Back goes by choices, not by letters
  history[again ? "replaceState" : "pushState"](null, "", "#" + state());
  typing = field;
}
function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  fields.forEach((field, n) => { field[key(field)] = kept.get(field.id) ?? usual[n]; });
  drawn = kept.has("drawn") ? new Set(kept.get("drawn").split(".").map(Number)) : null;
  typing = null;
  listTexts();
  choose();
  paint();
  cross();
  clearTimeout(waiting);  // nothing is new
}
window.onpopstate = recall;

function describe() {
  source.data.about = all.map(image => [data.names[image], ...criteria.map(panel =>
    `${panel.name}: ` + words(panel, image).slice(0, 3).map(([text, share]) => `${text} ${percent(share)}`).join(", "))].join("\n"));
}
function start() {
  source = window.Bokeh && Bokeh.documents.length ? Bokeh.documents[0].get_model_by_name("images") : null;
  if (!source) return setTimeout(start, 30);
  source.data.picture = all.map(thumbnail);
  describe();
  source.selected.change.connect(() => {
    if (ours) return;
    drawn = source.selected.indices.length ? new Set(source.selected.indices) : null;
    choose();
  });
  paint();
  choose();
  Bokeh.require("core/ui_gestures").UIGestures.press_threshold = 2 ** 30;  // ms; else a lasso ends where the button was held
  document.body.dataset.ready = "yes";
}
recall();
start();
