// What the page knows, kept fresh by one stream of events (/v1/events).
//
//   const hosts = store.collection("nodes")      or define one of your own:
//   store.define("name", {
//     verb | path,          where all of it comes from: a verb that answers with a list, or a path
//     query,                filters and `fields` of it
//     id: (item) => name,   what an item is called; leave out for a document that is no list
//     kinds: ["vm", …],     events after which it is read again
//     byName: true,         of a list: only what an event names is read again (?name=…)
//     firstPage: 100,       of a long list: so many are shown while the rest comes (`partial`)
//     everyS: 10,           read again so often while somebody looks
//   })
//   hosts.subscribe(f, signal)   f(hosts) now and at each change; reads begin with the first one
//   hosts.state                  "loading" | "ready" | "denied" | "error"; hosts.error
//   hosts.items (Map by name), hosts.list (array), hosts.data (of a document)
//   hosts.refresh()              read again now
//   store.on(kind, f, signal)    events themselves: f(data)
//   store.live                   whether the stream is up; "live" is an event, too
//
// The stream goes on from the id that was heard last; after a break that the service cannot bridge
// (`reset`), and for what has no ids, everything that somebody looks at is read again.
import * as api from "./api.js";

const TOGETHER_MS = 120;
const AT_MOST_BY_NAME = 50;
const KINDS = ["vm", "node", "pool", "class", "image", "network", "trash", "rule", "ha", "hanode", "havm", "task", "job", "power"];

const listeners = new Map();
const all = new Map();
let stop = null;
export const store = {
  live: false, on, define, collection, start, end, tasks: new Map(), jobs: new Map(),
};

function on(kind, f, signal) {
  if (!listeners.has(kind)) listeners.set(kind, new Set());
  listeners.get(kind).add(f);
  signal?.addEventListener("abort", () => listeners.get(kind)?.delete(f));
}

function tell(kind, data) {
  for (const f of [...(listeners.get(kind) || [])]) f(data, kind);
}

class Collection {
  constructor(name, spec) {
    Object.assign(this, { name, spec, state: "loading", error: null, items: new Map(), data: null, list: [], version: 0 });
    this.who = new Set();
    this.names = new Set();
    this.loaded = false;
    this.timer = this.clock = null;
    this.reading = null;
    // Grows when somebody else logs in: what was asked for before is not for that one.
    this.era = 0;
  }

  subscribe(f, signal) {
    this.who.add(f);
    signal?.addEventListener("abort", () => { this.who.delete(f); this.rest(); });
    if (this.stale || !this.loaded) this.refresh();
    if (this.spec.everyS && !this.clock) this.clock = setInterval(() => { if (!document.hidden) this.refresh(); }, this.spec.everyS * 1000);
    f(this);
    return this;
  }

  rest() {
    if (this.who.size || !this.clock) return;
    clearInterval(this.clock);
    this.clock = null;
    this.stale = true;
  }

  tell() {
    this.version += 1;
    for (const f of [...this.who]) f(this);
  }

  // Something in it has changed; `name`: what.
  touched(name) {
    if (!this.who.size) { this.stale = true; return; }
    if (this.spec.byName && name && this.loaded) this.names.add(name); else this.whole = true;
    this.timer ||= setTimeout(() => { this.timer = null; this.again(); }, TOGETHER_MS);
  }

  async again() {
    const names = [...this.names];
    this.names.clear();
    // What is being read may have been told before this happened: then all of it, once more.
    if (this.whole || this.reading || names.length > AT_MOST_BY_NAME) return this.refresh();
    const { era } = this;
    try {
      const found = await this.ask({ name: names });
      if (era !== this.era) return undefined;
      const there = new Map(found.map((one) => [this.spec.id(one), one]));
      for (const name of names) if (there.has(name)) this.items.set(name, there.get(name)); else this.items.delete(name);
      this.list = [...this.items.values()];
      this.tell();
    } catch { await this.refresh(); }
    return undefined;
  }

  ask(more = {}) {
    const query = { ...this.spec.query, ...more };
    return this.spec.path ? api.get(this.spec.path, { query }).then((one) => one.data) : api.call(this.spec.verb, query);
  }

  // One reading at a time; what is asked for meanwhile is one more after it.
  refresh() {
    if (this.reading) { this.more = true; return this.reading; }
    this.whole = this.stale = false;
    const { era } = this;
    this.reading = this.read(era).finally(() => {
      if (era !== this.era) return;
      this.reading = null;
      if (this.more) { this.more = false; this.refresh(); }
    });
    return this.reading;
  }

  async read(era) {
    try {
      if (this.spec.firstPage && !this.loaded) {
        const first = await this.ask({ limit: this.spec.firstPage });
        if (era !== this.era) return;
        this.list = first;
        this.items = new Map(this.list.map((one) => [this.spec.id(one), one]));
        this.state = "ready";
        this.partial = this.list.length === this.spec.firstPage;
        this.tell();
      }
      const found = await this.ask();
      if (era !== this.era) return;
      this.partial = false;
      if (this.spec.id) {
        this.items = new Map(found.map((one) => [this.spec.id(one), one]));
        this.list = found;
      }
      this.data = found;
      this.state = "ready";
      this.error = null;
      this.loaded = true;
    } catch (error) {
      if (era !== this.era) return;
      // What was read before stays, and is said to be old.
      this.error = error;
      this.state = error.status === 403 || error.status === 404 ? "denied" : "error";
      this.loaded ||= this.state === "denied";
      this.partial = false;
      this.stale = true;
    }
    this.tell();
  }
}

function define(name, spec) {
  if (!all.has(name)) all.set(name, new Collection(name, spec));
  return all.get(name);
}

function collection(name) {
  const found = all.get(name);
  if (!found) throw new Error(name);
  return found;
}

export function forgetAll() {
  for (const one of all.values()) {
    clearInterval(one.clock);
    Object.assign(one, { era: one.era + 1, reading: null, more: false, partial: false, loaded: false, state: "loading", items: new Map(), list: [], data: null, clock: null, stale: false });
    one.who.clear();
  }
  store.tasks.clear();
  store.jobs.clear();
  listeners.clear();
}

// ---- the stream

function start() {
  end();
  const leaving = new AbortController();
  stop = leaving;
  run(leaving.signal);
}

function end() {
  stop?.abort();
  stop = null;
  setLive(false);
}

function setLive(live) {
  if (store.live === live) return;
  store.live = live;
  tell("live", live);
}

async function run(signal) {
  let lastId = null;
  let wait = 500;
  let before = false;
  while (!signal.aborted) {
    // A line that is dead without anybody having said so: there is a sign of life every 15 s.
    const line = new AbortController();
    const both = AbortSignal.any([signal, line.signal]);
    let dog = setTimeout(() => line.abort(), 40000);
    const alive = () => { clearTimeout(dog); dog = setTimeout(() => line.abort(), 40000); };
    try {
      await api.stream("/v1/events", {
        id: (id) => { lastId = id; },
        any: alive,
        ready: () => {
          wait = 500;
          setLive(true);
          if (before) for (const one of all.values()) if (one.who.size) one.refresh(); else one.stale = true;
          before = true;
        },
        reset: () => { for (const one of all.values()) one.touched(); },
        other: heard,
      }, { signal: both, lastId });
    } catch (error) {
      if (error.status === 401) { clearTimeout(dog); return; }
    }
    clearTimeout(dog);
    setLive(false);
    if (signal.aborted) return;
    await new Promise((go) => { setTimeout(go, wait); });
    wait = Math.min(wait * 2, 10000);
  }
}

function heard(data, kind) {
  if (kind === "task" && data.task) store.tasks.set(data.task.id, data.task);
  if (kind === "job" && data.job) store.jobs.set(data.job.id, data.job);
  for (const one of all.values()) if (one.spec.kinds?.includes(kind)) one.touched(data.name);
  tell(kind, data);
}

// ---- what several views look at

const VM_FIELDS = [
  "vm.name", "vm.node", "vm.wanted", "vm.vcpus", "vm.memory_mib", "vm.tags", "vm.disks.device", "vm.disks.size_bytes", "vm.description", "vm.created_at",
  "power", "notes", "silent_since",
].join(",");
define("vms", { path: "/v1/vms", query: { fields: VM_FIELDS }, id: (one) => one.vm.name, kinds: ["vm", "power"], byName: true, firstPage: 100, everyS: 120 });
define("ha_vms", { verb: "ha_list", id: (one) => one.settings.vm, kinds: ["havm", "ha"] });
define("ha_status", { verb: "ha_status", kinds: ["ha", "hanode", "havm"], everyS: 15 });
define("nodes", { verb: "node_list", id: (one) => one.node.name, kinds: ["node", "hanode"], everyS: 15 });
define("images", { verb: "image_list", id: (one) => one.name, kinds: ["image"] });
define("networks", { verb: "network_list", id: (one) => one.name, kinds: ["network"] });
define("pools", { verb: "pool_list", id: (one) => (one[0] || one).name, kinds: ["pool", "trash"], everyS: 60 });
define("classes", { verb: "class_list", id: (one) => one.name, kinds: ["class"] });
define("rules", { verb: "rule_list", query: { seen: false }, kinds: ["rule"] });
export { KINDS };
