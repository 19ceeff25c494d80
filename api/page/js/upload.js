// Files that go to the service in pieces, by tus 1.0.0. Each piece bears its SHA-256, so that what has
// come is what was sent; after a break it goes on from where the service stands, also after the page
// was closed: this browser remembers which file was which upload.
//
//   uploads.all                     [{key, name, size, offset, state, error, perSecond, id, said}]
//      state: "sending" | "waiting" (for the network) | "paused" | "done" | "failed"
//   uploads.begin(file, said)       said: {name, kind, firmware, sha256, description} for the import
//   uploads.pause(key), uploads.goOn(key), uploads.cancel(key)
//   uploads.on(f, signal)           f() after each change
//   known(file)                     what this browser remembers of it, or null
import * as api from "./api.js";
import { t } from "./i18n.js";

const VERSION = "1.0.0";
const PIECE = 8 * 1024 ** 2;
const WAIT_MS = [1000, 2000, 5000, 10000, 20000];

const all = new Map();
const listeners = new Set();
export const uploads = {
  get all() { return [...all.values()]; },
  begin, pause, goOn, cancel,
  on(f, signal) { listeners.add(f); signal?.addEventListener("abort", () => listeners.delete(f)); },
};

function tell() { for (const f of [...listeners]) f(); }

function memoryKey(file) { return `vorch.upload.${file.name}.${file.size}.${file.lastModified}`; }
function remember(file, what) { try { if (what) localStorage.setItem(memoryKey(file), JSON.stringify(what)); else localStorage.removeItem(memoryKey(file)); } catch { /* no storage: it begins anew */ } }
export function known(file) { try { return JSON.parse(localStorage.getItem(memoryKey(file))); } catch { return null; } }

// The words of tus are bytes in Base64.
function encoded(words) {
  return Object.entries(words).filter(([, value]) => value).map(([name, value]) => `${name} ${btoa(String.fromCharCode(...new TextEncoder().encode(value)))}`).join(",");
}

async function ask(method, path, { headers = {}, body, signal } = {}) {
  const { Accept, ...rest } = api.authHeaders(true);
  let answer;
  try {
    answer = await fetch(path.replace(/^\//, ""), { method, body, signal, credentials: "same-origin", cache: "no-store", headers: { ...rest, "Tus-Resumable": VERSION, ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new api.ApiError(0, { detail: t("error.unreachable"), code: "unreachable" });
  }
  if (!answer.ok) throw new api.ApiError(answer.status, await answer.json().catch(() => null));
  return answer;
}

async function sha256(blob) {
  const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  return `sha256 ${btoa(String.fromCharCode(...new Uint8Array(digest)))}`;
}

async function begin(file, said) {
  const one = { key: api.newKey(), file, said, name: file.name, size: file.size, offset: 0, state: "sending", error: "", perSecond: 0, id: "" };
  all.set(one.key, one);
  run(one);
  return one;
}

async function run(one) {
  one.stop = new AbortController();
  const { signal } = one.stop;
  let tries = 0;
  one.state = "sending";
  one.error = "";
  tell();
  while (one.state !== "done") {
    try {
      await find(one, signal);
      if (await send(one, signal, () => { tries = 0; })) break;
    } catch (error) {
      if (signal.aborted) return;
      // It is not there any more, or is another piece than the service waits for: look again.
      if (error.status === 404) { one.id = ""; remember(one.file, null); }
      const passing = !error.status || [404, 408, 409, 429, 460, 502, 503, 504].includes(error.status);
      if (!passing || tries >= WAIT_MS.length) { one.state = "failed"; one.error = error.message; tell(); return; }
      one.state = "waiting";
      one.error = error.message;
      tell();
      await new Promise((go) => { setTimeout(go, WAIT_MS[tries]); });
      tries += 1;
      if (signal.aborted) return;
      one.state = "sending";
    }
  }
  one.state = "done";
  remember(one.file, null);
  tell();
}

// Where it stands; a new one where there is none.
async function find(one, signal) {
  one.id ||= known(one.file)?.id || "";
  if (one.id) {
    const answer = await ask("HEAD", `/v1/uploads/${one.id}`, { signal });
    one.offset = Number(answer.headers.get("Upload-Offset"));
  } else {
    const answer = await ask("POST", "/v1/uploads", { signal, headers: { "Upload-Length": String(one.size), "Upload-Metadata": encoded({ filename: one.name, sha256: one.said.sha256 }) } });
    one.id = answer.headers.get("Location").split("/").pop();
    one.offset = 0;
    remember(one.file, { id: one.id, said: one.said });
  }
  tell();
}

async function send(one, signal, went) {
  const began = performance.now();
  const from = one.offset;
  while (one.offset < one.size) {
    const piece = one.file.slice(one.offset, one.offset + PIECE);
    const checksum = crypto.subtle ? await sha256(piece) : "";
    const answer = await ask("PATCH", `/v1/uploads/${one.id}`, {
      signal, body: piece,
      headers: { "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(one.offset), ...(checksum ? { "Upload-Checksum": checksum } : {}) },
    });
    one.offset = Number(answer.headers.get("Upload-Offset"));
    one.perSecond = (one.offset - from) / Math.max(0.001, (performance.now() - began) / 1000);
    one.state = "sending";
    went();
    tell();
  }
  return true;
}

function pause(key) {
  const one = all.get(key);
  one?.stop?.abort();
  if (one && one.state !== "done") { one.state = "paused"; tell(); }
}

function goOn(key) { const one = all.get(key); if (one && one.state !== "done") run(one); }

async function cancel(key) {
  const one = all.get(key);
  if (!one) return;
  one.stop?.abort();
  all.delete(key);
  remember(one.file, null);
  tell();
  if (one.id && one.state !== "done") await ask("DELETE", `/v1/uploads/${one.id}`).catch(() => {});
}

export function forget(key) { all.delete(key); tell(); }

export async function removeUpload(id) { await ask("DELETE", `/v1/uploads/${id}`); }
