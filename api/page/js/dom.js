// DOM building. Data goes into text nodes and attributes only, never into HTML.
//
//   h("div.card#id", {class: "wide", onclick: f, "aria-label": x, style: {"--w": "3"}}, child, …)
//     children: strings, numbers, nodes, arrays of these; null, undefined, false are left out.
//     `on…` are handlers, `style` goes through the CSSOM (the CSP forbids style attributes),
//     `key` names an element among its siblings for `patch`, booleans are attributes that are there
//     or not; value, checked, selected, disabled … are set as properties.
//   patch(root, children)   makes root's children be these by changing what is there: focus,
//     scroll and what somebody types stay. For all that is drawn again when data change.

const ON = Symbol("handlers");
const KEY = Symbol("key");
// An element with this on is left alone by `patch`, once it is there: it is drawn by its own code.
export const OWN = Symbol("own");
const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "g", "line", "polyline", "polygon", "rect", "circle", "text", "title", "use"]);
const PROPERTIES = new Set(["value", "checked", "selected", "indeterminate", "disabled", "open", "scrollTop"]);

export function h(what, props, ...children) {
  if (props === null || typeof props !== "object" || props instanceof Node || Array.isArray(props)) {
    if (props !== undefined) children.unshift(props);
    props = {};
  }
  const [, tag, rest] = /^([a-z0-9]*)(.*)$/i.exec(what);
  const inSvg = SVG_TAGS.has(tag) && !(tag === "title" && !props.svg);
  const el = inSvg ? document.createElementNS(SVG, tag) : document.createElement(tag || "div");
  for (const [, kind, word] of rest.matchAll(/([.#])([^.#]+)/g)) {
    if (kind === ".") el.classList.add(word); else el.id = word;
  }
  for (const [name, value] of Object.entries(props)) set(el, name, value);
  add(el, children);
  return el;
}

function set(el, name, value) {
  if (value === undefined || value === null) return;
  if (name === "class") { for (const one of String(value).split(/\s+/)) if (one) el.classList.add(one); return; }
  if (name === "key") { el[KEY] = String(value); return; }
  if (name === "svg") return;
  if (name === OWN || name === "own") { el[OWN] = value; return; }
  if (name === "style") {
    for (const [what, how] of Object.entries(value)) el.style.setProperty(what, String(how));
    return;
  }
  if (name.startsWith("on") && typeof value === "function") {
    (el[ON] ||= {})[name] = value;
    el[name] = value;
    return;
  }
  if (PROPERTIES.has(name) && name in el) {
    el[name] = value;
    if (name === "value" && el.tagName === "INPUT") return;
    if (name !== "value") return;
  }
  if (typeof value === "boolean" && !name.startsWith("aria-") && !name.startsWith("data-")) {
    if (value) el.setAttribute(name, "");
    return;
  }
  el.setAttribute(name, String(value));
}

export function add(el, children) {
  for (const one of children) {
    if (one === null || one === undefined || one === false || one === true) continue;
    if (Array.isArray(one)) add(el, one);
    else el.append(one instanceof Node ? one : document.createTextNode(String(one)));
  }
  return el;
}

export function clear(el, ...children) {
  el.replaceChildren();
  return add(el, children);
}

export function patch(root, ...children) {
  const wanted = add(document.createDocumentFragment(), children);
  patchChildren(root, [...wanted.childNodes]);
}

function same(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && a[KEY] === b[KEY]
    && (a.nodeType !== 1 || (a.getAttribute("type") === b.getAttribute("type")));
}

function patchChildren(root, wanted) {
  const keyed = new Map();
  for (const one of root.childNodes) if (one[KEY] !== undefined) keyed.set(one[KEY], one);
  let at = root.firstChild;
  for (const want of wanted) {
    let have = at;
    if (want[KEY] !== undefined && keyed.has(want[KEY])) {
      have = keyed.get(want[KEY]);
      if (have !== at && same(have, want)) root.insertBefore(have, at);
    }
    if (have && same(have, want)) {
      if (have === at) at = at.nextSibling;
      patchOne(have, want);
    } else {
      root.insertBefore(want, at);
    }
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

function patchOne(have, want) {
  if (have.nodeType !== 1) { if (have.data !== want.data) have.data = want.data; return; }
  if (have[OWN]) return;
  for (const { name } of [...have.attributes]) if (!want.hasAttribute(name) && name !== "style") have.removeAttribute(name);
  for (const { name, value } of want.attributes) if (name !== "style" && have.getAttribute(name) !== value) have.setAttribute(name, value);
  if (have.style && have.style.cssText !== want.style.cssText) have.style.cssText = want.style.cssText;
  for (const name of Object.keys(have[ON] || {})) if (!(want[ON] || {})[name]) have[name] = null;
  for (const [name, f] of Object.entries(want[ON] || {})) have[name] = f;
  have[ON] = want[ON];
  const typing = document.activeElement === have;
  for (const name of ["checked", "disabled", "indeterminate"]) if (name in want && have[name] !== want[name]) have[name] = want[name];
  patchChildren(have, [...want.childNodes]);
  if ("value" in want && !typing && have.tagName !== "LI" && have.tagName !== "BUTTON" && have.value !== want.value) have.value = want.value;
}

// ---- small parts that all views use

// A line icon, for the eye only: names for screen readers stand beside it.
const ICONS = {
  menu: "M4 7h16M4 12h16M4 17h16", close: "M6 6l12 12M18 6L6 18", search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14zM16 16l4 4",
  play: "M8 5l11 7-11 7z", stop: "M7 7h10v10H7z", pause: "M8 6v12M16 6v12", move: "M4 12h15M14 7l5 5-5 5",
  plus: "M12 5v14M5 12h14", more: "M5 12h.01M12 12h.01M19 12h.01", down: "M6 9l6 6 6-6", right: "M9 6l6 6-6 6", up: "M6 15l6-6 6 6",
  vm: "M4 5h16v11H4zM9 20h6M12 16v4", host: "M4 5h16v6H4zM4 13h16v6H4zM7 8h.01M7 16h.01", disk: "M12 4c4.4 0 8 1.3 8 3s-3.6 3-8 3-8-1.3-8-3 3.6-3 8-3zM4 7v10c0 1.7 3.6 3 8 3s8-1.3 8-3V7M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3",
  home: "M4 11l8-7 8 7v9h-6v-6h-4v6H4z", heart: "M12 20s-8-4.8-8-10.5A4.5 4.5 0 0 1 12 7a4.5 4.5 0 0 1 8 2.5C20 15.2 12 20 12 20z",
  image: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9", network: "M9 4h6v5H9zM3 15h6v5H3zM15 15h6v5h-6zM12 9v3M6 15v-3h12v3",
  user: "M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM4 20c1-4 4-5.5 8-5.5s7 1.5 8 5.5", list: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2", moon: "M20 14A8 8 0 0 1 10 4a8 8 0 1 0 10 10z",
  out: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9", warn: "M12 4l9 16H3zM12 10v4M12 17h.01", check: "M5 12l5 5 9-10", info: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 11v5M12 8h.01",
  clock: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 7v5l3 2", camera: "M4 8h4l2-3h4l2 3h4v11H4zM12 10a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
  console: "M4 5h16v14H4zM7 9l3 3-3 3M12 15h5", plug: "M9 3v5M15 3v5M7 8h10v3a5 5 0 0 1-10 0zM12 16v5", copy: "M8 8h11v11H8zM5 15V5h10", trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3", refresh: "M20 12a8 8 0 1 1-2.3-5.7L20 8M20 4v4h-4", upload: "M12 16V4M7 9l5-5 5 5M4 20h16", shield: "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6z", tag: "M4 4h8l8 8-8 8-8-8zM8 8h.01",
};
export function icon(name) {
  return h("svg.icon", { class: name === "more" ? "dots" : "", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, h("path", { d: ICONS[name] || ICONS.info }));
}

export function button(text, onclick, { kind = "", icon: picture, disabled = false, title, key, type = "button", ...more } = {}) {
  return h("button.button", { type, class: kind, onclick, disabled, title, key, ...more }, picture && icon(picture), text && h("span", text));
}

export function iconButton(picture, name, onclick, more = {}) {
  return h("button.button.bare.square", { type: "button", "aria-label": name, title: name, onclick, ...more }, icon(picture));
}
