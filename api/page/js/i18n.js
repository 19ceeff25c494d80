// All words of the page, in English and French.
//
//   t("vms.count", {n: 3})     the text with that key, {n} filled in. A key with the forms
//                              ".one" and ".other" is chosen by the rules of the language for n.
//   has(key)                   whether there is such a text (for names that come from the API)
//   language(), setLanguage(l) "en" or "fr"; kept in this browser. The page is drawn anew.
//   fmt.number/bytes/…         numbers and times in that language: see format.js
//
// Texts lie in texts/AREA.en.json and texts/AREA.fr.json: add an AREA to AREAS for a new file.
// tests/api/test_page.py compares both languages and finds words that stand in the code instead.
import { look } from "./again.js";

export const AREAS = ["frame", "verbs", "vms", "views", "consoles"];
export const LANGUAGES = { en: "English", fr: "Français" };
const texts = new Map();
let current = "en";
let plural = new Intl.PluralRules("en");

export function language() { return current; }

export function preferred() {
  let kept = null;
  try { kept = localStorage.getItem("vorch.language"); } catch { /* no storage */ }
  if (kept in LANGUAGES) return kept;
  for (const one of navigator.languages || []) {
    const short = one.slice(0, 2).toLowerCase();
    if (short in LANGUAGES) return short;
  }
  return "en";
}

export async function setLanguage(wanted, keep = false) {
  const base = new URL("../texts/", import.meta.url);
  const found = await Promise.all(AREAS.map(async (area) => {
    const answer = await look(new URL(`${area}.${wanted}.json`, base));
    return answer.ok ? answer.json() : {};
  }));
  texts.clear();
  for (const one of found) for (const [key, text] of Object.entries(one)) texts.set(key, text);
  current = wanted;
  plural = new Intl.PluralRules(wanted);
  document.documentElement.lang = wanted;
  if (keep) try { localStorage.setItem("vorch.language", wanted); } catch { /* no storage */ }
}

export function has(key) { return texts.has(key); }

export function t(key, values = {}) {
  let text = texts.get(key);
  if (text === undefined && "n" in values) {
    text = texts.get(`${key}.${plural.select(Number(values.n))}`) ?? texts.get(`${key}.other`);
  }
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    if (value === undefined) return whole;
    return typeof value === "number" ? new Intl.NumberFormat(current).format(value) : String(value);
  });
}

// The text of a word that the API uses (a state, a kind): the word itself where there is none.
export function word(prefix, value) {
  const key = `${prefix}.${value}`;
  return texts.has(key) ? texts.get(key) : String(value ?? "");
}
