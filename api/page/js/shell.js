// The frame around all views: navigation, search for VMs, who one is, light and dark, language,
// the panel of tasks; draws the view that the address names.
import * as api from "./api.js";
import { menu, notice } from "./dialog.js";
import { clear, h, icon, iconButton } from "./dom.js";
import { LANGUAGES, language, setLanguage, t } from "./i18n.js";
import { go, here, link, match, replace } from "./router.js";
import { store } from "./store.js";
import { taskPanel } from "./tasks.js";
import { openVerb } from "./verb.js";
import { VIEWS } from "./views/index.js";

export const ROLES = ["viewer", "user", "operator", "admin"];

export function atLeast(me, role) { return ROLES.indexOf(me.role) >= ROLES.indexOf(role); }

export async function showShell(root, me, { again, logOut }) {
  const verbs = await api.verbs();
  const views = (await Promise.all(VIEWS.map(async (file) => {
    try {
      const found = await import(`./views/${file}.js`);
      return [].concat(found.views || found.view);
    } catch (error) {
      console.error(error);
      notice(t("error.view", { view: file }), { kind: "bad" });
      return [];
    }
  }))).flat();
  const leaving = new AbortController();
  const can = (verb) => { const found = verbs.get(verb); return Boolean(found) && atLeast(me, found.role); };
  const shown = (view) => !view.least || atLeast(me, view.least);

  const main = h("main.main#main", { tabindex: "-1" });
  const crumbs = h("div.sr", { role: "status", "aria-live": "polite" });
  const nav = h("nav.nav", { "aria-label": t("nav.name") });
  const light = h("span.live", { role: "img" });
  const panel = taskPanel({ me, can, signal: leaving.signal });

  function drawNav() {
    const { path } = here();
    clear(nav, h("a.brand", { href: "#/" }, h("img", { src: new URL("../icon.svg", import.meta.url).href, alt: "", width: "24", height: "24" }), h("span", "vorch")),
      h("ul", views.filter((one) => one.nav !== undefined && shown(one)).sort((a, b) => a.nav - b.nav).map((one) => {
        const to = one.path.replace(/\/:.*/, "") || "/";
        const current = to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`);
        return h("li", h("a", { href: `#${to}`, "aria-current": current ? "page" : undefined }, icon(one.icon), h("span", t(one.title))));
      })),
      h("p.version", document.querySelector("meta[name=vorch-version]").content));
  }

  function drawLive() {
    light.className = `live ${store.live ? "on" : "off"}`;
    light.setAttribute("aria-label", t(store.live ? "live.on" : "live.off"));
    light.title = t(store.live ? "live.on" : "live.off");
  }

  const who = h("button.button.bare", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": t("me.menu", { name: `${me.name} ${t(`role.${me.role}`)}` }) }, icon("user"), h("span.who", me.name), " ", h("span.badge", t(`role.${me.role}`)));
  who.onclick = () => menu(who, [
    { heading: t("theme.name") },
    ...["auto", "light", "dark"].map((one) => ({ text: t(`theme.${one}`), icon: chosenTheme() === one ? "check" : one === "dark" ? "moon" : "sun", run: () => setTheme(one) })),
    { heading: t("language") },
    ...Object.entries(LANGUAGES).map(([code, name]) => ({ text: name, icon: code === language() ? "check" : "right", run: async () => { await setLanguage(code, true); again(me); } })),
    null,
    ...(me.via === "session" && can("user_change") ? [{ text: t("me.password"), icon: "edit", run: () => openVerb("user_change", { name: me.name }, { only: ["password"], ctx: base }) }] : []),
    { text: t("logout"), icon: "out", run: logOut },
  ]);
  const navButton = iconButton("menu", t("nav.open"), () => {
    const open = frame.classList.toggle("nav-open");
    navButton.setAttribute("aria-expanded", String(open));
    if (open) nav.querySelector("a").focus();
  }, { class: "nav-button", "aria-expanded": "false" });
  const jump = h("input", {
    type: "search", placeholder: t("search.vms"), "aria-label": t("search.vms"), "aria-keyshortcuts": "/",
    onkeydown: (event) => { if (event.key === "Enter") go("/vms", { q: jump.value }); },
  });
  const top = h("header.top", navButton, h("div.jump", icon("search"), jump, h("kbd", { "aria-hidden": "true" }, "/")), h("div.grow"), light, panel.button, who);
  const frame = h("div.frame", h("a.skip", { href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, t("skip")), nav, h("div.scrim", { onclick: () => frame.classList.remove("nav-open") }), h("div.body", top, main), panel.el, crumbs);
  clear(root, frame);

  const base = { me, can, is: (role) => atLeast(me, role), api, store, t, go, link, openVerb: (verb, args, options = {}) => openVerb(verb, args, { ctx: base, ...options }) };
  let current = null;

  function leaveView() {
    current?.left.abort();
    current?.done?.();
    current = null;
  }

  async function draw() {
    const { path, query } = here();
    frame.classList.remove("nav-open");
    drawNav();
    let params = null;
    const view = views.find((one) => (params = match(one.path, path)) && shown(one));
    if (!view && path === "/") { replace("/vms"); draw(); return; }
    if (!view) {
      leaveView();
      clear(main, h("div.empty", h("h1", t("nothing.title")), h("p", t("nothing.text", { path })), h("a.button", { href: "#/" }, t("nothing.back"))));
      return;
    }
    if (current?.view === view && view.update) {
      Object.assign(current.ctx, { params, query });
      view.update(current.ctx);
      return;
    }
    const focus = current !== null;
    leaveView();
    const left = new AbortController();
    const ctx = {
      ...base, params, query, signal: left.signal,
      setQuery: (more) => { ctx.query = { ...ctx.query, ...more }; replace(here().path, ctx.query); },
      setTitle: (text) => { document.title = `${text} · vorch`; crumbs.textContent = text; },
    };
    current = { view, ctx, left, done: null };
    ctx.setTitle(t(view.title));
    const place = h("div.view");
    clear(main, place);
    main.scrollTop = 0;
    if (focus) main.focus({ preventScroll: true });
    try {
      const done = await view.render(place, ctx);
      if (left.signal.aborted) done?.(); else if (current) current.done = done;
    } catch (error) {
      if (error.name === "AbortError") return;
      console.error(error);
      clear(place, h("div.empty.bad", icon("warn"), h("h1", t("error.title")), h("p", error.message), h("button.button", { type: "button", onclick: () => { current = null; draw(); } }, t("again"))));
    }
  }

  const keys = (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, textarea, select, [contenteditable], .terminal")) return;
    event.preventDefault();
    (main.querySelector("input[type=search]") || jump).focus();
  };
  store.on("live", drawLive, leaving.signal);
  window.addEventListener("hashchange", draw, { signal: leaving.signal });
  document.addEventListener("keydown", keys, { signal: leaving.signal });
  frame.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && frame.classList.contains("nav-open")) { frame.classList.remove("nav-open"); navButton.focus(); }
  });
  drawLive();
  draw();
  return () => { leaveView(); leaving.abort(); };
}

function chosenTheme() { return document.documentElement.dataset.theme || "auto"; }

function setTheme(wanted) {
  document.documentElement.dataset.theme = wanted;
  try { localStorage.setItem("vorch.theme", wanted); } catch { /* no storage */ }
  document.dispatchEvent(new CustomEvent("vorch-theme"));
}
