// What can be done with a VM, by what it does now and by what one's role permits: for menus of rows,
// the head of a VM's own view, and for several at once.
import { openMigrate } from "./migrate.js";
import { h } from "./dom.js";
import { t, word } from "./i18n.js";

const isOn = (row) => row.power !== "stopped" && row.power !== "crashed";
const isOff = (row) => !isOn(row);
const POWERS = { running: "good", paused: "warn", stopping: "busy", stopped: "", crashed: "bad", unknown: "warn" };

export function powerDot(row) {
  return h("span.dot", { class: row.silent_since ? "warn" : POWERS[row.power] || "", title: row.silent_since ? t("vm.silent") : undefined }, word("power", row.power));
}

// Verbs for several VMs, the commonest first; `fits`: of which of them it makes sense.
export const BULK = [
  { verb: "start", icon: "play", fits: isOff },
  { verb: "stop", icon: "stop", fits: isOn },
  { verb: "migrate", icon: "move", fits: (row) => row.power === "running" || row.power === "paused" },
  { verb: "snapshot_create", icon: "camera", fits: () => true },
  { verb: "restart", icon: "refresh", fits: isOn },
  { verb: "pause", icon: "pause", fits: (row) => row.power === "running" },
  { verb: "resume", icon: "play", fits: (row) => row.power === "paused" },
  { verb: "relocate", icon: "move", fits: isOff },
  { verb: "change", icon: "edit", fits: () => true },
  { verb: "ha_set", icon: "shield", fits: () => true },
  { verb: "ha_remove", icon: "shield", fits: () => true },
  { verb: "delete", icon: "trash", danger: true, fits: isOff },
];

const GROUPS = [
  ["start", "stop", "restart", "pause", "resume", "reset"],
  ["migrate", "relocate"],
  ["change", "rename", "clone", "template", "snapshot_create"],
  ["disk_attach", "disk_move", "nic_attach", "cd_insert", "cd_eject", "forward_add"],
  ["ha_set", "ha_remove", "send"],
  ["delete"],
];
const ICONS = {
  start: "play", stop: "stop", restart: "refresh", pause: "pause", resume: "play", reset: "refresh", migrate: "move", relocate: "move",
  change: "edit", rename: "edit", clone: "copy", template: "image", snapshot_create: "camera", disk_attach: "disk", disk_move: "disk",
  nic_attach: "network", cd_insert: "disk", cd_eject: "disk", forward_add: "plug", ha_set: "shield", ha_remove: "shield", send: "upload", delete: "trash",
};
const FITS = {
  start: isOff, stop: isOn, restart: isOn, reset: isOn, pause: (row) => row.power === "running", resume: (row) => row.power === "paused",
  migrate: (row) => row.power === "running" || row.power === "paused", relocate: isOff, send: isOff,
  cd_eject: ({ vm }) => vm.disks.some((one) => one.device === "cdrom" && one.volume),
};

export function may(verb, row, ctx) { return ctx.can(verb) && (!FITS[verb] || FITS[verb](row)); }

// What `change` begins from, so that only what is changed is sent.
export function changeable(vm) {
  const names = ["vcpus", "vcpus_max", "memory_mib", "memory_max_mib", "cpu", "hypervisor", "xen_kind", "xen_loader", "machine", "firmware", "secure_boot", "tpm", "graphics", "agent", "watchdog", "tags", "require_tags", "huge_pages", "one_numa_cell", "description"];
  return Object.fromEntries(names.filter((one) => vm[one] !== undefined).map((one) => [one, vm[one]]));
}

export async function act(verb, row, ctx, options = {}) {
  const { name } = row.vm;
  if (verb === "migrate" || verb === "relocate") { openMigrate(row, ctx); return; }
  // The list knows little of each: forms are filled with all of it, at the version that was seen.
  const full = await ctx.api.get(`/v1/vms/${encodeURIComponent(name)}`).catch(() => null);
  const vm = full?.data.vm ?? row.vm;
  const more = { vm, ...options };
  if (verb === "change") Object.assign(more, { current: changeable(vm), open: true, etag: full?.etag });
  if (verb === "ha_set") {
    const found = await ctx.api.call("ha_show", { name }).catch(() => null);
    if (found?.settings) { const { vm: whose, ...settings } = found.settings; more.current = settings; }
    more.open = true;
  }
  if (verb === "delete") more.done = () => { if (location.hash.startsWith(`#/vms/${encodeURIComponent(name)}`)) ctx.go("/vms"); };
  if (verb === "rename") more.done = (result, job) => { if (job && location.hash.startsWith(`#/vms/${encodeURIComponent(name)}`)) ctx.go(`/vms/${encodeURIComponent(job.arguments.new_name)}`); };
  ctx.openVerb(verb, { name, ...options.args }, more);
}

export function actionsOf(row, ctx, { without = [] } = {}) {
  const found = [];
  for (const group of GROUPS) {
    const fit = group.filter((verb) => !without.includes(verb) && may(verb, row, ctx));
    if (fit.length && found.length) found.push(null);
    for (const verb of fit) found.push({ text: t(`verb.${verb}`), icon: ICONS[verb], danger: verb === "delete" || verb === "reset", run: () => act(verb, row, ctx) });
  }
  return found;
}
