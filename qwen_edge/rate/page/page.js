// @ts-check
// The page for raters: asks the server for one answer at a time, and sends each rating at once. Texts of models are
// shown as text (textContent), never as markup.

import { isChinese, words } from "./words.js";

const CRITERIA = /** @type {const} */ (["relevance", "fluency", "accuracy", "coherence"]);

/**
 * @typedef {{of: number, rated: number, skipped: number, next: number | null}} Standing
 * @typedef {{number: number, of: number, question: string, language: string, reference: string, answer: string,
 *   text: string, cut: boolean, place: number, places: number, scores: Record<string, number> | null, remark: string,
 *   skipped: boolean}} Item
 */

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);

let rater = "";
/** @type {Item | null} */
let item = null;
let busy = false;

/** The server's answer to a request; throws an Error with words for the rater. */
async function ask(/** @type {string} */ path, /** @type {RequestInit} */ options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(words.offline);
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(found.error ?? words.offline);
  return found;
}

/** @returns {Promise<Standing>} */
const standing = () => ask(`api/standing?rater=${encodeURIComponent(rater)}`);

/** Run one step at a time; show what goes wrong. */
async function step(/** @type {() => Promise<void>} */ work) {
  if (busy) return;
  busy = true;
  byId("problem").textContent = "";
  try {
    await work();
  } catch (error) {
    byId("problem").textContent = error instanceof Error ? error.message : String(error);
  } finally {
    busy = false;
  }
}

/** Show the number-th answer, or the end if there is none; and how far the rater is. */
async function show(/** @type {number | null} */ number, /** @type {Standing} */ now) {
  const found = number === null ? null : await ask(`api/item?rater=${encodeURIComponent(rater)}&number=${number}`);
  byId("progress").hidden = false;
  byId("bar").max = now.of;
  byId("bar").value = now.rated;
  byId("count").textContent = words.count(now.rated, now.of);
  byId("enter").hidden = true;
  byId("item").hidden = !found;
  byId("done").hidden = Boolean(found);
  if (found) {
    fill(found);
  } else {
    byId("summary").textContent = words.summary(now.rated, now.of, now.skipped);
    byId("thanks").focus();
  }
}

/** Show an answer again, whatever the rater has said of it. */
async function lookAt(/** @type {number} */ number) {
  await show(Math.max(0, number), await standing());
}

function fill(/** @type {Item} */ found) {
  item = found;
  byId("where").textContent = words.where(found.number + 1, found.of, found.place, found.places);
  for (const part of /** @type {const} */ (["question", "reference", "text"])) byId(part).textContent = found[part];
  for (const part of ["question", "reference"]) byId(part).lang = found.language || document.documentElement.lang;
  byId("reference-part").hidden = !found.reference;
  byId("cut").hidden = !found.cut;
  byId("remark").value = found.remark;
  byId("back").disabled = found.number === 0;
  for (const name of CRITERIA)
    for (const choice of choices(name)) choice.checked = Number(choice.value) === found.scores?.[name];
  window.scrollTo(0, 0);
  byId("where").focus();
}

/** @returns {HTMLInputElement[]} */
const choices = (/** @type {string} */ name) => [...document.querySelectorAll(`input[name="${name}"]`)].map((one) => /** @type {HTMLInputElement} */ (one));

const chosen = (/** @type {string} */ name) => choices(name).find((one) => one.checked);

/** The criterion that a digit rates: the one with the focus, or the first without a score. */
function current() {
  const focused = document.activeElement?.closest("fieldset")?.id;
  return CRITERIA.find((name) => name === focused) ?? CRITERIA.find((name) => !chosen(name)) ?? CRITERIA[0];
}

async function send(/** @type {Record<string, number> | null} */ scores) {
  if (!item) return;
  const body = JSON.stringify({ rater, answer: item.answer, scores, remark: scores ? byId("remark").value.trim() : "" });
  const now = await ask("api/rating", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  byId("said").textContent = words.saved;
  await show(now.next, now);
}

function save() {
  const missing = CRITERIA.find((name) => !chosen(name));
  if (missing) {
    byId("problem").textContent = words.missing + words[missing];
    choices(missing)[0].focus();
    return;
  }
  step(() => send(Object.fromEntries(CRITERIA.map((name) => [name, Number(chosen(name)?.value)]))));
}

function rateByKey(/** @type {string} */ digit) {
  const name = current();
  const choice = choices(name).find((one) => one.value === digit);
  if (!choice) return;
  choice.checked = true;
  const next = CRITERIA[CRITERIA.indexOf(name) + 1];
  if (next) (chosen(next) ?? choices(next)[0]).focus();
  else byId("save").focus();
}

/** One line with the marks from 1 to 5 for a criterion. */
function line(/** @type {typeof CRITERIA[number]} */ name) {
  const set = document.createElement("fieldset");
  set.id = name;
  const legend = document.createElement("legend");
  const help = document.createElement("small");
  help.textContent = words[/** @type {"relevanceHelp"} */ (`${name}Help`)];
  legend.append(words[name], " ", help);
  set.append(legend);
  for (let mark = 1; mark <= 5; mark++) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name, value: String(mark) });
    label.append(input, String(mark));
    set.append(label);
  }
  return set;
}

function start() {
  document.documentElement.lang = isChinese ? "zh-CN" : "en";
  document.title = words.title;
  for (const one of document.querySelectorAll("[data-word]"))
    one.textContent = /** @type {any} */ (words)[/** @type {HTMLElement} */ (one).dataset.word ?? ""];
  byId("bar").setAttribute("aria-label", words.progress);
  byId("criteria").append(...CRITERIA.map(line));
  byId("name").value = localStorage.getItem("rater") ?? "";
  byId("name").focus();
}

byId("enter").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  step(async () => {
    rater = byId("name").value;
    const now = await standing();
    localStorage.setItem("rater", rater);
    await show(now.next, now);
  });
});
byId("item").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  save();
});
byId("back").addEventListener("click", () => step(() => lookAt((item?.number ?? 1) - 1)));
byId("skip").addEventListener("click", () => step(() => send(null)));
byId("again").addEventListener("click", () => step(() => lookAt(item ? item.number : 0)));
document.addEventListener("keydown", (event) => {
  const writes = event.target instanceof HTMLTextAreaElement;
  if (busy || byId("item").hidden || writes || event.ctrlKey || event.altKey || event.metaKey) return;
  if (/^[1-5]$/.test(event.key)) {
    event.preventDefault();
    rateByKey(event.key);
  } else if (event.key === "Enter" && !(event.target instanceof HTMLButtonElement)) {
    event.preventDefault();
    save();
  }
});
start();
