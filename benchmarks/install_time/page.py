"""The report as one HTML page that needs nothing else: figures, plots, and what they are worth."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from html import escape

from .likeness import Difference
from .results import Results, cases
from .spread import FEWEST, Spread
from .tables import Table, amounts, comparisons, times

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b1b1f}
body{max-width:75rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{margin-top:2.2rem;border-bottom:1px solid #ccc}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
td small{color:#555;white-space:nowrap}
.unlike{background:#9b2226;color:#fff;padding:.8rem 1rem;border-radius:.4rem}
.unlike li{margin:.15rem 0}.mark{color:#9b2226;font-weight:600}
svg{max-width:100%;height:auto}
@media(prefers-color-scheme:dark){body{background:#17171b;color:#e6e6ea}th,td{border-color:#444}
td small{color:#aaa}.mark{color:#ff8a80}svg{background:#fff}}
"""
METHOD_WORDS = {
    "debootstrap": "Install by debootstrap: partition, base system, kernel, boot loader",
    "installer": "Install by the distribution's installer, with a preseed file",
    "import": "Import of an image",
    "clone": "Clone of a template",
}


def page(
    results: Sequence[Results],
    unlike: Sequence[Difference],
    plots: Mapping[str, bytes],
) -> str:
    """`plots`: method → SVG; those that could not be drawn are not in there."""
    found = cases(results)
    methods = list(dict.fromkeys(case.method for case in found))
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>Install times</title><style>{STYLE}</style></head><body>",
        "<h1>Install times on KVM and Xen</h1>",
        f"<p>{escape(_when(results))}</p>",
    ]
    if unlike:
        items = "".join(f"<li>{escape(str(one))}</li>" for one in unlike)
        parts.append(
            "<div class=unlike><strong>This is no fair comparison.</strong> Beside what was to be"
            f" compared, this differs:<ul>{items}</ul>Figures of one row may be read; no figure"
            " may be set against one of another row.</div>"
        )
    parts += [f"<p>{escape(one.note)}</p>" for one in results if one.note]
    if not found:
        parts.append("<p>No run counts. Why, stands at the end of this page.</p>")
    for method in methods:
        parts.append(f"<h2>{escape(METHOD_WORDS[method])}</h2>")
        svg = plots.get(method)
        if svg is not None:
            parts.append(f"<div class=scroll>{_inline(svg, method)}</div>")
        parts.append(_table(times(method, found), "Seconds: median (lowest – highest)"))
        took = amounts(method, found)
        if took.columns:
            parts.append(_table(took, "What it took, of all phases: median (lowest – highest)"))
    pairs = comparisons(found)
    if pairs:
        parts.append("<h2>Side by side</h2>")
        if unlike:
            parts.append("<p class=mark>Not alike: these ratios mean nothing by themselves.</p>")
        rows = "".join(
            f"<tr><td>{escape(one.method)}</td><td>{escape(one.first)}</td>"
            f"<td>{escape(one.second)}</td><td>{escape(one.verdict)}</td></tr>"
            for one in pairs
        )
        parts.append(
            "<div class=scroll><table><tr><th>method</th><th>first</th><th>second</th><th>second to"
            f" first, medians of all phases</th></tr>{rows}</table></div>"
        )
    parts.append(_fairness())
    parts += [_setup(number, one, len(results)) for number, one in enumerate(results, 1)]
    parts.append(_spoilt(results))
    parts.append("</body></html>\n")
    return "\n".join(part for part in parts if part)


def _when(results: Sequence[Results]) -> str:
    runs = [run for one in results for run in one.runs]
    if not runs:
        return "No runs."
    first = time.strftime("%Y-%m-%d %H:%M", time.gmtime(min(run.began_at for run in runs)))
    last = time.strftime("%Y-%m-%d %H:%M", time.gmtime(max(run.began_at for run in runs)))
    counted = sum(not run.spoilt for run in runs)
    return f"{len(runs)} runs, of which {counted} count, from {first} to {last} (UTC)."


def _inline(svg: bytes, name: str) -> str:
    """An SVG inside a page: without what belongs to a file, and with ids of its own."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    ids = set(re.findall(r'\bid="([^"]+)"', text))
    return re.sub(
        r'(\bid="|href="#|url\(#)([^")]+)',
        lambda hit: hit[1] + (f"{name}-{hit[2]}" if hit[2] in ids else hit[2]),
        text,
    )


def shown(cell: Spread | None) -> str:
    """A figure with as many digits as mean something."""
    if cell is None:
        return "–"
    digits = 0 if abs(cell.highest) >= 1000 else 1
    if cell.count == 1:
        return f"{cell.median:.{digits}f}"
    return (
        f"{cell.median:.{digits}f} <small>({cell.lowest:.{digits}f} –"
        f" {cell.highest:.{digits}f})</small>"
    )


def _table(table: Table, caption: str) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "runs", *table.columns))
    rows = "".join(
        f"<tr><td>{escape(row.title)}</td><td>{row.count}</td>"
        + "".join(f"<td>{shown(cell)}</td>" for cell in row.cells)
        + "</tr>"
        for row in table.rows
    )
    return (
        f"<div class=scroll><table><caption>{escape(caption)}</caption><tr>{head}</tr>"
        f"{rows}</table></div>"
    )


def _fairness() -> str:
    return f"""<h2>What makes it fair, and what does not</h2><ul>
<li>Runs were made in turn, one of each case and then again, so that a busy hour falls on all.</li>
<li>The installer's kernel, its initrd, its packages and its mirror are the same bytes everywhere.
A run for which the mirror had to fetch anything does not count.</li>
<li>“start” is vorch's and the hypervisor's work: the disk is made, the installer's files are
brought to the host, the domain is started. “first boot” begins with the verb that starts the
installed system and ends with its last word; what lies between the two is nobody's.</li>
<li>The guest's processor time is not the same thing on both: on KVM it has QEMU's own work in it;
on Xen that is done in the dom0 and stands with the host's processors, where those could be
read.</li>
<li>What a Xen guest writes to a disk that a QEMU serves (a qcow2 file) is counted by nobody; the
column is empty then, and not 0.</li>
<li>Figures of the host's cards, processors and of Ceph are of all that went on there meanwhile;
they are the guest's only where nothing else ran.</li>
<li>With fewer than {FEWEST} runs of a case there is no spread worth the name. Ranges that overlap
tell nothing apart, whatever their medians are.</li></ul>"""


def _setup(number: int, one: Results, of: int) -> str:
    title = f"How it was set up ({number} of {of})" if of > 1 else "How it was set up"
    hosts = sorted({run.host for run in one.runs} or one.hosts)
    pools = sorted({run.pool for run in one.runs} or one.pools)
    return (
        f"<h2>{title}</h2>"
        + _facts("The benchmark", {"": one.setup})
        + _facts("Hosts", {name: one.hosts.get(name, {}) for name in hosts})
        + _facts("Pools", {name: one.pools.get(name, {}) for name in pools})
    )


def _facts(title: str, things: Mapping[str, Mapping[str, str]]) -> str:
    names = sorted({fact for facts in things.values() for fact in facts})
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *things))
    rows = "".join(
        f"<tr><td>{escape(fact)}</td>"
        + "".join(f"<td>{escape(facts.get(fact, '–'))}</td>" for facts in things.values())
        + "</tr>"
        for fact in names
    )
    return (
        f"<div class=scroll><table><caption>{escape(title)}</caption><tr>{head}</tr>{rows}"
        "</table></div>"
    )


def _spoilt(results: Sequence[Results]) -> str:
    bad = [run for one in results for run in one.runs if run.spoilt]
    if not bad:
        return ""
    items = "".join(
        f"<li>run {run.number}, {escape(run.case.method)}, {escape(run.case.title)}:"
        f" {escape(run.spoilt)}</li>"
        for run in bad
    )
    return f"<h2>Runs that do not count</h2><ul>{items}</ul>"
