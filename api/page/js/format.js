// Numbers, sizes and times as a person reads them, in the language that is chosen.
import { language, t } from "./i18n.js";

const cache = new Map();
function numbers(options) {
  const key = language() + JSON.stringify(options);
  if (!cache.has(key)) cache.set(key, new Intl.NumberFormat(language(), options));
  return cache.get(key);
}

export function number(value, digits = 0) {
  return numbers({ maximumFractionDigits: digits }).format(value);
}

export function percent(value, digits = 0) {
  return numbers({ style: "percent", maximumFractionDigits: digits }).format(value / 100);
}

// 1536 → "1.5 KiB". Sizes of memory and disks, by 1024.
export function bytes(value) {
  const names = t("unit.bytes").split(" ");
  let at = 0;
  let left = Math.abs(value);
  while (left >= 1024 && at < names.length - 1) { left /= 1024; at += 1; }
  const text = number(left, left < 10 && at > 0 ? 1 : 0);
  return `${value < 0 ? "−" : ""}${text} ${names[at]}`;
}

export function mib(value) { return bytes(value * 1024 * 1024); }
export function rate(value) { return t("unit.per_second", { what: bytes(value) }); }

// A figure in words, by the unit that its name ends with.
export function figure(name, value) {
  if (typeof value !== "number") return String(value);
  if (name.endsWith("_mib_s")) return rate(value * 1024 ** 2);
  if (name.endsWith("bytes_per_s") || name.endsWith("bytes_s")) return rate(value);
  if (name.endsWith("_percent")) return percent(value);
  if (name.endsWith("_mib")) return mib(value);
  if (name.endsWith("bytes")) return bytes(value);
  if (name.endsWith("_ms")) return t("unit.milliseconds", { n: Math.round(value) });
  if (name.endsWith("_s")) return duration(value);
  return number(value, 2);
}

// 95 → "1 min 35 s"
export function duration(seconds) {
  if (seconds < 1) return t("unit.seconds", { n: number(seconds, 1) });
  const parts = [["unit.days", 86400], ["unit.hours", 3600], ["unit.minutes", 60], ["unit.seconds", 1]];
  let left = Math.round(seconds);
  const said = [];
  for (const [key, size] of parts) {
    const many = Math.floor(left / size);
    if (many > 0 && said.length < 2) said.push(t(key, { n: String(many) }));
    else if (said.length) break;
    left -= many * size;
  }
  return said.join(" ");
}

// Seconds since the epoch, as the API has them.
export function time(at) {
  const date = new Date(at * 1000);
  const today = new Date().toDateString() === date.toDateString();
  return new Intl.DateTimeFormat(language(), today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" }).format(date);
}

export function ago(at) {
  const seconds = at - Date.now() / 1000;
  const form = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  const size = Math.abs(seconds);
  if (size < 60) return form.format(Math.round(seconds), "second");
  if (size < 3600) return form.format(Math.round(seconds / 60), "minute");
  if (size < 86400) return form.format(Math.round(seconds / 3600), "hour");
  return form.format(Math.round(seconds / 86400), "day");
}

// "1.5G", "512 MiB" or "20" (of `unit`) → a number of bytes; null: it is none. Both "." and ",".
export function parseBytes(text, unit = "G") {
  const found = /^\s*(\d+(?:[.,]\d+)?)\s*([kmgtp]?)(?:i?[bo])?\s*$/i.exec(text);
  if (!found) return null;
  const power = " KMGTP".indexOf((found[2] || unit).toUpperCase());
  return Math.round(Number(found[1].replace(",", ".")) * 1024 ** power);
}
