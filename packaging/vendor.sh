#!/bin/sh
# Copies what the page takes from npm into a folder, as packaging/page/package-lock.json pins it.
# make vendor: into api/page/vendor, where it is committed, so that nobody else needs node or npm.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${1:-$here/../api/page/vendor}
command -v npm >/dev/null || {
    echo 'make vendor: cannot get packages: npm is not installed; install it (apt install npm)' >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/page/package.json" "$here/page/package-lock.json" "$work/"
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent)
from=$work/node_modules

rm -rf "$target"
mkdir -p "$target/xterm" "$target/addon-fit" "$target/novnc/vendor"
# Browsers take modules by their media type, and the service knows that of .js.
cp "$from/@xterm/xterm/lib/xterm.mjs" "$target/xterm/xterm.js"
cp "$from/@xterm/xterm/css/xterm.css" "$target/xterm/xterm.css"
cp "$from/@xterm/xterm/LICENSE" "$target/xterm/LICENSE.txt"
cp "$from/@xterm/addon-fit/lib/addon-fit.mjs" "$target/addon-fit/addon-fit.js"
cp "$from/@xterm/addon-fit/LICENSE" "$target/addon-fit/LICENSE.txt"
cp -R "$from/@novnc/novnc/core" "$target/novnc/core"
cp "$from/@novnc/novnc/LICENSE.txt" "$target/novnc/LICENSE.txt"
cp "$from/@novnc/novnc/docs/LICENSE.MPL-2.0" "$target/novnc/LICENSE.MPL-2.0.txt"
cp -R "$from/@novnc/novnc/vendor/pako" "$target/novnc/vendor/pako"
mv "$target/novnc/vendor/pako/LICENSE" "$target/novnc/vendor/pako/LICENSE.txt"
rm -f "$target/novnc/vendor/pako/README.md"
find "$target" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
