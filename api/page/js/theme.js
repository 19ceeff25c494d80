// Light or dark before anything is painted; a plain script, as modules come too late for that.
// The choice is "auto" (the system's), "light" or "dark", and kept in this browser.
(() => {
  let chosen = "auto";
  try { chosen = localStorage.getItem("vorch.theme") || "auto"; } catch { /* no storage: auto */ }
  document.documentElement.dataset.theme = chosen;
})();
