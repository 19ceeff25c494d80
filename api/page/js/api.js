// The one way to the service. Answers are JSON; what goes wrong is an ApiError, in words.
//
//   get(path, {query, signal})            → {data, etag, total}
//   getAll / list(path, query, {signal})  → the array
//   send(method, path, {body, query, etag, key, wait, signal}) → {data, status, etag, job}
//   verbs()                               → Map of every verb out of /openapi.json:
//        {name, method, path, role, above: {field: role that it takes}, about, summary, description, inPath, fields: [
//          {name, required, schema, nullable, kinds, default, choices}], dryRun}
//   call(verb, args, {etag, signal})      a verb by its name; of reads the data
//   plan(verb, args, {etag})              the same with dry_run: {plan, task, …}
//   begin(verb, args, {etag, key})        → {job: id} or {data} for what acts at once
//   stream(path, {event: f, …}, {signal, lastId})  server-sent events, by fetch (a login's token
//        goes along, which EventSource cannot do); resolves when the stream ends
//   logIn(user, password), useToken(token), logOut(), self()
//
// The cookie of a login is HttpOnly: the page never sees it. Changes carry X-CSRF-Token.
import { look } from "./again.js";
import { t } from "./i18n.js";

let csrf = "";
// A token that somebody signed in with: in this tab's memory only, so it is gone with a reload.
let bearer = "";
let whoLeft = () => {};

export class ApiError extends Error {
  constructor(status, body) {
    super(body?.detail || t("error.status", { status }));
    this.status = status;
    this.code = body?.code || "";
    this.fields = body?.fields || {};
    this.retryAfter = Number(this.fields.retry_after_s) || 0;
  }
}

// Called when the service no longer knows who asks.
export function onLoggedOut(f) { whoLeft = f; }

export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
}

function address(path, query) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query || {})) {
    if (value === undefined || value === null) continue;
    for (const one of Array.isArray(value) ? value : [value]) found.append(name, String(one));
  }
  const text = found.toString();
  // Relative, so that the page also works below a path of a proxy.
  return path.replace(/^\//, "") + (text ? `?${text}` : "");
}

function headers(changing) {
  const made = { Accept: "application/json" };
  if (bearer) made.Authorization = `Bearer ${bearer}`;
  else if (changing && csrf) made["X-CSRF-Token"] = csrf;
  return made;
}

async function ask(method, path, { query, body, extra = {}, signal } = {}) {
  const changing = method !== "GET";
  const wanted = { method, headers: { ...headers(changing), ...extra }, signal, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    wanted.headers["Content-Type"] = "application/json";
    wanted.body = JSON.stringify(body);
  }
  let answer;
  try {
    // What changes something is not asked for twice: it may have been done.
    answer = await (changing ? fetch : look)(address(path, query), wanted);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { detail: t("error.unreachable"), code: "unreachable" });
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    if (answer.status === 401 && path !== "/v1/login") whoLeft();
    throw new ApiError(answer.status, told);
  }
  return answer;
}

async function read(answer) {
  const text = answer.status === 204 ? "" : await answer.text();
  return {
    data: text ? JSON.parse(text) : null,
    status: answer.status,
    etag: answer.headers.get("ETag") || "",
    total: Number(answer.headers.get("X-Total-Count") ?? NaN),
    job: answer.headers.get("Vorch-Job") || "",
  };
}

export async function get(path, { query, signal } = {}) {
  return read(await ask("GET", path, { query, signal }));
}

export async function list(path, query = {}, { signal } = {}) {
  return (await get(path, { query, signal })).data;
}

export async function send(method, path, { body, query, etag, key, wait, signal } = {}) {
  const extra = {};
  if (etag) extra["If-Match"] = etag;
  if (key) extra["Idempotency-Key"] = key;
  if (wait !== undefined) extra.Prefer = `wait=${wait}`;
  return read(await ask(method, path, { body, query, extra, signal }));
}

// ---- who one is

export async function logIn(user, password) {
  bearer = "";
  const { data } = await send("POST", "/v1/login", { body: { user, password } });
  csrf = data.csrf;
  return data;
}

export async function useToken(token) {
  bearer = token.trim();
  try {
    return await self();
  } catch (error) {
    bearer = "";
    throw error;
  }
}

export async function self() {
  const { data } = await get("/v1/self");
  csrf = data.csrf;
  return data;
}

export async function logOut() {
  if (!bearer) await send("POST", "/v1/logout").catch(() => {});
  bearer = "";
  csrf = "";
}

// For uploads and websockets, which build their own requests.
export function authHeaders(changing = true) { return headers(changing); }

// ---- verbs

let table = null;

export async function verbs() {
  table ||= (async () => {
    const { data } = await get("/openapi.json");
    const found = new Map();
    for (const [path, methods] of Object.entries(data.paths)) {
      for (const [method, about] of Object.entries(methods)) {
        if (about["x-vorch-role"]) found.set(about.operationId, verbOf(about, method.toUpperCase(), path, data));
      }
    }
    return found;
  })();
  try {
    return await table;
  } catch (error) {
    table = null;
    throw error;
  }
}

export function forgetVerbs() { table = null; }

function resolved(schema, whole) {
  if (!schema?.$ref) return schema;
  return { ...whole.components.schemas[schema.$ref.split("/").pop()], ...schema, $ref: undefined };
}

function verbOf(about, method, path, whole) {
  const parameters = about.parameters || [];
  const inPath = parameters.find((one) => one.in === "path")?.name || "";
  const body = resolved(about.requestBody?.content?.["application/json"]?.schema, whole);
  let fields = parameters.filter((one) => one.in === "query" && !["fields", "cursor", "limit"].includes(one.name))
    .map((one) => fieldOf(one.name, one.schema, one.required, whole));
  if (body) fields = Object.entries(body.properties || {}).map(([name, schema]) => fieldOf(name, schema, (body.required || []).includes(name), whole));
  const fieldNames = new Set(fields.map((one) => one.name));
  return {
    name: about.operationId, method, path, inPath,
    role: about["x-vorch-role"], above: about["x-vorch-above"] || {}, about: (about.tags || [])[0] || "",
    summary: about.summary || "", description: about.description || "",
    reads: method === "GET", dryRun: fieldNames.has("dry_run"),
    fields: fields.filter((one) => !["dry_run", "wait_s", inPath].includes(one.name)),
    versioned: parameters.some((one) => one.name === "If-Match"),
    keyed: parameters.some((one) => one.name === "Idempotency-Key"),
    example: about.requestBody?.content?.["application/json"]?.example || {},
  };
}

// `kinds`: what it may be: "string", "integer", "number", "boolean", "array", "object".
function fieldOf(name, given, required, whole) {
  const schema = resolved(given, whole);
  const ways = (schema.anyOf || schema.oneOf || [schema]).map((one) => resolved(one, whole));
  const kinds = [...new Set(ways.map((one) => one.type || (one.enum ? "string" : "object")))];
  const choices = ways.flatMap((one) => one.enum || (one.const !== undefined ? [one.const] : []));
  const each = resolved(ways.find((one) => one.type === "array")?.items, whole);
  // Of items that may also be nothing: what they are otherwise.
  const items = each?.anyOf ? resolved(each.anyOf.find((one) => one.type !== "null"), whole) : each;
  const whose = ways.find((one) => one.properties);
  return {
    name, required: Boolean(required), schema, items,
    // Of an object with named parts: those; of one with any names: that it is one.
    fields: whose && Object.entries(whose.properties).map(([part, one]) => fieldOf(part, one, (whose.required || []).includes(part), whole)),
    map: !whose && ways.some((one) => one.type === "object" && one.additionalProperties),
    nullable: kinds.includes("null"), kinds: kinds.filter((one) => one !== "null"),
    default: schema.default, choices,
  };
}

async function request(verb, args, { etag, key, wait, dry, signal } = {}) {
  const entry = (await verbs()).get(verb);
  if (!entry) throw new ApiError(0, { detail: t("error.no_verb", { verb }) });
  const rest = { ...args };
  let path = entry.path;
  if (entry.inPath) {
    path = path.replace(`{${entry.inPath}}`, encodeURIComponent(String(rest[entry.inPath] ?? "")));
    delete rest[entry.inPath];
  }
  if (dry) rest.dry_run = true;
  if (entry.method === "GET") return get(path, { query: rest, signal });
  const where = entry.method === "DELETE" ? { query: rest } : { body: rest };
  return send(entry.method, path, { ...where, etag: entry.versioned ? etag : "", key: entry.keyed && !dry ? key : "", wait, signal });
}

export async function call(verb, args = {}, { etag, signal } = {}) {
  return (await request(verb, args, { etag, signal })).data;
}

export async function plan(verb, args, { etag, signal } = {}) {
  return (await request(verb, args, { etag, signal, dry: true })).data;
}

export async function begin(verb, args, { etag, key = newKey() } = {}) {
  const answer = await request(verb, args, { etag, key, wait: 0 });
  return { job: answer.job || "", data: answer.data, status: answer.status };
}

// ---- server-sent events

export async function stream(path, handlers, { query, signal, lastId } = {}) {
  const extra = { Accept: "text/event-stream" };
  if (lastId) extra["Last-Event-ID"] = String(lastId);
  const answer = await ask("GET", path, { query, extra, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  handlers.open?.();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      let event = "message";
      let id = null;
      const data = [];
      for (const line of part.split("\n")) {
        if (line.startsWith("event: ")) event = line.slice(7);
        else if (line.startsWith("id: ")) id = line.slice(4);
        else if (line.startsWith("data: ")) data.push(line.slice(6));
      }
      if (id !== null) handlers.id?.(id);
      handlers.any?.();
      if (data.length) (handlers[event] || handlers.other)?.(JSON.parse(data.join("\n")), event);
    }
  }
}
