// The views of the page, each a file beside this one that exports `view` (or `views`, an array).
// Where they stand in the navigation is the view's own `nav`. One that fails to load is named in a
// notice, and the others work.
export const VIEWS = ["overview", "vms", "vm", "hosts", "storage", "ha", "images", "networks", "activity", "people"];
