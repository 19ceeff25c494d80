// Where the page is: the part of the address after "#", as in #/vms/web/disks?search=x.
//
// A view is a module under views/ and is listed in views/index.js:
//   export const view = {
//     path: "/vms/:name/:tab?",   `:word` is in ctx.params, `?` may be left out
//     title: "nav.vms",           key of its name in the catalogue
//     icon: "vm", nav: 2,         place in the navigation; leave `nav` out for none
//     least: "admin",             least role to see it in the navigation (the service decides anyway)
//     render(root, ctx) {…},      draws into root; may return a function for when it is left
//   }
//   ctx: {params, query, signal (aborted when it is left), go(path), setQuery({…}), setTitle(text),
//         me, can(verb), is(role), api, store, t, openVerb(verb, args, options)}
// A view whose path is the same pattern as before is not drawn anew when only parameters or query
// change, if it has `update(ctx)`.

export function match(pattern, path) {
  const names = [];
  const made = pattern.replace(/\/:(\w+)(\?)?/g, (whole, name, maybe) => {
    names.push(name);
    return maybe ? "(?:/([^/]+))?" : "/([^/]+)";
  });
  const found = new RegExp(`^${made}/?$`).exec(path);
  if (!found) return null;
  return Object.fromEntries(names.map((name, at) => [name, found[at + 1] === undefined ? "" : decodeURIComponent(found[at + 1])]));
}

export function here() {
  const [path, query] = (location.hash.slice(1) || "/").split("?");
  return { path: path || "/", query: Object.fromEntries(new URLSearchParams(query || "")) };
}

export function link(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(kept).toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

export function go(path, query) { location.hash = link(path, query).slice(1); }

// Without another step in the browser's history: of what is typed into a search.
export function replace(path, query) { history.replaceState(null, "", link(path, query)); }
