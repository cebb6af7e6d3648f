"use strict";
// What a served page can do more: ask its server to search, and to change words, clusters and
// criteria. The rest of the page is report.js, whose data and functions are used here.

const MOST_EXAMPLES = 200;
const MAP_AFTER = 1500;  // ms without an edit; then the better map is computed

const message = $("message");
const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);

function tell(text) {
  message.replaceChildren(text + " ", button("✕", () => { message.hidden = true; }, { title: "Close" }));
  message.hidden = false;
  ($("detail").open ? $("detail") : document.body).append(message);  // an open dialog covers the rest
}
async function ask(action, values, quiet = false) {
  // the answer; null if there is none: then the page has said why
  if (!quiet) message.hidden = true;
  document.body.classList.toggle("busy", !quiet);
  try {
    const response = await fetch("ask/" + action, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) });
    const answer = await response.json();
    if (response.ok) return answer;
    if (!quiet) tell(answer.error);
  } catch (error) {
    tell("The server does not answer; what was done before is kept. Start the command again.");
  } finally {
    if (!quiet) document.body.classList.remove("busy");
  }
  return null;
}

// ---- search

const examples = { more: [], less: [] };

async function search(values) {
  const panel = Number($("ask-view").value), answer = await ask("search", { panel, ...values });
  if (!answer) return;
  clear();
  ranked = new Map(answer.images.map((image, place) => [image, answer.scores[place]]));
  $("ask-note").textContent = `the ${ranked.size} best, with their scores`;
  choose();
  $("gallery-title").scrollIntoView({ behavior: "smooth", block: "start" });
  const results = ranked, end = values.text && await ask("ends", { panel, text: values.text }, true);
  if (!end || results !== ranked) return;
  $("ask-note").append("; " + end.note);
  if (end.number) $("ask-note").append(" ", button("Show only these", () => { ranked = new Map([...ranked].slice(0, end.number)); choose(); }));
}
function searchExamples() {
  const weights = {};
  for (const field of $("weights").querySelectorAll("input")) if (Number(field.value)) weights[field.name] = Number(field.value);
  return search({ ...examples, weights });
}
function showExamples() {
  for (const kind of ["more", "less"]) {
    $(kind + "-pictures").replaceChildren(...examples[kind].slice(0, 12).map(image => picture(image, examples[kind])), examples[kind].length > 12 ? ` and ${examples[kind].length - 12} more` : "");
    $(kind + "-pictures").parentElement.hidden = !examples[kind].length;
  }
  for (const field of $("weights").querySelectorAll("input")) field.placeholder = field.name === $("ask-view").value ? "1" : "0";
  $("examples").hidden = !examples.more.length && !examples.less.length;
}
function take(kind, images) {
  if (!images.length || images.length > MOST_EXAMPLES || images.length === count) return tell(`Choose 1 to ${MOST_EXAMPLES} pictures first: draw around them, or press a group's name.`);
  const other = kind === "more" ? "less" : "more";
  examples[kind] = [...new Set([...examples[kind], ...images])];
  examples[other] = examples[other].filter(image => !images.includes(image));
  showExamples();
  return searchExamples();
}
$("ask").onsubmit = event => { event.preventDefault(); search({ text: $("ask-text").value }); };
$("more-like").onclick = () => take("more", chosen);
$("less-like").onclick = () => take("less", chosen);
$("ask-examples").onclick = searchExamples;
$("forget").onclick = () => { examples.more = []; examples.less = []; showExamples(); clear(); };
data.panels.forEach((panel, k) => {
  $("ask-view").append(option(k, k ? panel.name : "no criterion"));
  $("weights").append(make("label", {}, panel.title + " ", make("input", { type: "number", step: 0.1, name: k, placeholder: "0" })));
});
$("ask-view").value = criteria.length ? 1 : 0;

// ---- one picture

$("detail").addEventListener("picture", async event => {
  const image = event.detail, around = $("detail").lastChild, tools = make("div", { className: "tools" });
  for (const kind of ["more", "less"]) tools.append(button(kind === "more" ? "More like this" : "Less like this", () => { $("detail").close(); take(kind, [image]); }));
  $("detail").firstChild.after(tools);
  fetch(data.places[image], { method: "HEAD" }).then(response => {
    if (!response.ok) tools.after(make("p", { className: "banner" }, "This file is not there any more."));
  }, () => tell("The server does not answer."));
  const answer = await ask("near", { image }, true);
  if (answer) answer.panels.forEach((near, k) => around.append(...nearest(k, near.images, m => near.words[m])));
});

// ---- edits: one after another; each answer replaces a panel

let edits = Promise.resolve();
let maps = Promise.resolve();
const timers = {};

function edit(action, k, values) {
  // values with a `version` speak of clusters as they were shown then
  edits = edits.catch(() => null).then(async () => {
    const answer = await ask(action, { panel: k, version: data.panels[k].served.version, ...values });
    if (answer && values.add && !values.strike) delete drafts[k];
    if (answer) replace(k, answer);
  });
}
function replace(k, panel) {
  const around = document.activeElement?.closest("[data-stays]")?.dataset.stays;
  unpack(panel, k);
  data.panels[k] = criteria[k - 1] = panel;
  place(k, panel);
  listClusters(panel, k);
  showCards(panel, k);
  showTools(k);
  describe();
  listTexts();
  cross();
  paint();
  choose();
  if (around) document.querySelector(`[data-stays="${around}"]`)?.focus();
  awaitMap(k);
}
function place(k, { x, y, limits: [left, bottom, right, top] }) {
  source.data["x" + k] = numbers(x, Float32Array);
  source.data["y" + k] = numbers(y, Float32Array);
  const plot = Bokeh.documents[0].get_model_by_id(document.querySelectorAll(".maps [data-root-id]")[k].dataset.rootId);
  plot.x_range.setv({ start: left, end: right, reset_start: left, reset_end: right });
  plot.y_range.setv({ start: bottom, end: top, reset_start: bottom, reset_end: top });
  source.change.emit();
}
function awaitMap(k) {
  const { version, mapped } = data.panels[k].served, now = () => data.panels[k].served.version === version;
  $("mapped-" + k).textContent = mapped ? "" : "a first map, principal components; t-SNE follows";
  clearTimeout(timers[k]);
  if (!mapped) timers[k] = setTimeout(() => {
    maps = maps.then(async () => {
      if (!now()) return;
      const answer = await ask("map", { panel: k, version }, true);
      if (!answer || !now()) return;
      place(k, answer);
      $("mapped-" + k).textContent = "";
    });
  }, MAP_AFTER);
}

const split = text => text.split(/[\n,]/).map(word => word.trim()).filter(Boolean);
const marked = (k, kind) => [...document.querySelectorAll(`#cards-${k} .${kind}:checked`)].map(box => box.value);
const opened = new Set();  // criteria that are being edited
const drafts = {};  // words that are being typed, by criterion

function wordTools(panel, k) {
  const field = make("input", { placeholder: "another word", value: drafts[k] ?? "", maxLength: 300, autocomplete: "off", oninput: () => { drafts[k] = field.value; } });
  field.dataset.stays = "add-" + k;
  field.setAttribute("aria-label", "another word about " + panel.name);
  const add = make("form", { className: "tools" }, field, make("button", {}, "Add"),
    button("Merge the marked words", () => {
      const words = marked(k, "word-mark");
      if (words.length < 2) return tell("Mark two words or more to merge them.");
      edit("words", k, { strike: words, add: [words.join(" or ")] });
    }));
  add.onsubmit = event => { event.preventDefault(); edit("words", k, { add: split(field.value) }); };
  const words = panel.words.map(word => make("li", { className: "word" },
    make("label", {}, make("input", { type: "checkbox", className: "word-mark", value: word }), " " + word),
    button("✕", () => edit("words", k, { strike: [word] }), { title: "strike out: " + word })));
  return [make("p", { className: "hint" }, "Words that are merged become one text, “a or b”. All is written to the file of the criterion."),
    add, make("ul", { className: "chips words" }, ...words)];
}
function groupTools(panel, k) {
  const { version, number, none, undo } = panel.served;
  const field = make("input", { type: "number", min: 1, max: 100, value: number });
  field.setAttribute("aria-label", "number of groups, " + panel.name);
  const fits = make("input", { type: "checkbox", checked: none, onchange: () => edit("grouping", k, { none: fits.checked }) });
  return make("div", { className: "tools" },
    make("form", { className: "tools", onsubmit: event => { event.preventDefault(); edit("grouping", k, { number: Number(field.value) }); } }, make("label", {}, "Groups ", field), make("button", {}, "Set")),
    button("Choose the number anew", () => edit("grouping", k, { anew: true })),
    button("Merge the marked groups", () => {
      const groups = marked(k, "group-mark").map(Number);
      if (groups.length < 2) return tell("Mark two groups or more to merge them.");
      edit("clusters", k, { version, do: "merge", groups });
    }),
    button("Undo the last edit of groups", () => edit("grouping", k, { undo: true }), { disabled: !undo }),
    make("label", {}, fits, " pictures that no word fits are a group of their own"));
}
function cardTools(panel, k, cluster, c, card) {
  const { version } = panel.served, title = card.querySelector(".title");
  const rename = () => {
    const field = make("input", { value: cluster.name, maxLength: 100, autocomplete: "off" });
    field.setAttribute("aria-label", "name of the group");
    const form = make("form", { className: "tools", onsubmit: event => { event.preventDefault(); edit("clusters", k, { version, do: "name", groups: [c], name: field.value }); } }, field, make("button", {}, "Save"));
    field.onkeydown = event => { if (event.key === "Escape") form.replaceWith(title); };
    title.replaceWith(form);
    field.select();
  };
  card.append(make("div", { className: "tools served" },
    make("label", {}, make("input", { type: "checkbox", className: "group-mark", value: c }), " Mark"),
    button("Rename", rename), button("Split", () => edit("clusters", k, { version, do: "split", groups: [c] }))));
}
function showTools(k) {
  const panel = data.panels[k];
  const element = make("details", { className: "served", open: opened.has(k) }, make("summary", {}, `Edit groups and ${panel.words.length} words`),
    groupTools(panel, k), ...wordTools(panel, k));
  element.firstChild.dataset.stays = "edit-" + k;
  element.ontoggle = () => { element.open ? opened.add(k) : opened.delete(k); };
  $("cards-" + k).children[1].after(element);
  [...$("cards-" + k).querySelectorAll(".card")].forEach((card, c) => {
    if (panel.clusters[c].name !== "fits none") cardTools(panel, k, panel.clusters[c], c, card);
  });
}
criteria.forEach((_, k) => showTools(k + 1));

// ---- a new criterion

async function create(action, values) {
  const answer = await ask(action, values);
  if (!answer) return;
  $("new").reset();
  location.reload();  // the new map is a new figure
}
$("new").onsubmit = event => { event.preventDefault(); create("criterion", { name: $("new-name").value, texts: split($("new-texts").value) }); };
if (data.served.writer) $("write").onclick = () => {
  create("write", { name: $("new-name").value });
  tell("The language model writes; that takes a while ...");
};

(function follow() {  // the maps exist now, or soon
  if (!document.body.dataset.ready) return setTimeout(follow, 30);
  data.panels.forEach((_, k) => awaitMap(k));
})();
