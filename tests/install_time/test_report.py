"""The report: JSON that comes back as it was, CSV, and a page that hides nothing."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.install_time.judged import HOSTS, KVM, XEN, both, results, run
from vorch import Invalid
from vorch_install_time import can_plot, differences, read, write_report
from vorch_install_time.page import page
from vorch_install_time.results import Results, cases, to_json
from vorch_install_time.tables import TOTAL, amounts, comparisons, times, to_csv

EMPTY = ("meta", "br", "use", "path", "image")


class Balanced(HTMLParser):
    """Every element that is opened is closed, and none leads elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.elsewhere: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elsewhere += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#")
        ]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def unlike() -> Results:
    hosts = {**HOSTS, XEN: {**HOSTS[XEN], "guests run": "emulated (TCG)"}}
    return results(*both().runs, hosts=hosts, unlike_allowed=True)


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    first, second = both(), unlike()
    file = tmp_path / "report.json"
    file.write_text(to_json([first, second]))
    assert [to_json([one]) for one in read(file)] == [to_json([first]), to_json([second])]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "vorch-bench-install/1"}']
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"cannot read results from .*report.json"):
        read(file)
    with pytest.raises(Invalid, match="No such file"):
        read(tmp_path / "none")


def test_a_table_has_a_row_for_each_case() -> None:
    table = times("debootstrap", cases([both()]))
    assert table.columns[-1] == TOTAL
    assert [(row.title, row.count) for row in table.rows] == [
        ("KVM rbd two networks", 3),
        ("XEN rbd two networks", 3),
    ]
    total = table.rows[0].cells[-1]
    assert total is not None
    assert total.median == pytest.approx(6 * 1.2)


def test_spoilt_runs_count_nowhere_and_are_told_of() -> None:
    bad = run(KVM, "fast", 4, 900.0, spoilt="the mirror had to fetch <3> files")
    one = results(*both().runs, bad)
    assert max(row.count for row in times("debootstrap", cases([one])).rows) == 3
    text = page([one], (), {})
    assert "the mirror had to fetch &lt;3&gt; files" in text
    assert "7 runs, of which 6 count" in text
    assert "no: the mirror" in to_csv([one], ())


def test_what_could_not_be_had_is_not_zero() -> None:
    without = run(XEN, "l1", 1, 1.0, amounts={"guest_cpu_s": 2.0})
    table = amounts("debootstrap", cases([results(run(KVM, "l1", 1, 1.0), without)]))
    column = table.columns.index("disk written, MiB")
    cells = {row.title: row.cells[column] for row in table.rows}
    assert cells["XEN local"] is None
    assert cells["KVM local"] is not None
    assert "<td>–</td>" in page([results(run(KVM, "l1", 1, 1.0), without)], (), {})


def test_cards_of_hosts_have_columns_of_their_own() -> None:
    one = run(KVM, "l1", 1, 1.0, amounts={"host_eth1_received_bytes": 2.0 * 1024**2})
    assert amounts("debootstrap", cases([results(one)])).columns == ("host's eth1 in, MiB",)


def test_only_what_differs_in_one_thing_is_set_side_by_side() -> None:
    every = results(
        *(run(host, pool, 1, 1.0) for host in (KVM, XEN) for pool in ("l1", "fast")),
        run(KVM, "fast", 1, 1.0, method="clone"),
    )
    pairs = {(one.first, one.second) for one in comparisons(cases([every]))}
    assert pairs == {
        ("KVM local", "XEN local"),
        ("KVM rbd two networks", "XEN rbd two networks"),
        ("KVM local", "KVM rbd two networks"),
        ("XEN local", "XEN rbd two networks"),
    }


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    seen = Balanced(page([both()], (), {}))
    assert (seen.open, seen.elsewhere) == ([], [])
    assert "× 1.83" in seen.text
    assert "What makes it fair" in seen.text
    assert "no fair comparison" not in seen.text


def test_what_is_not_alike_is_marked_on_page_and_csv() -> None:
    found = differences([unlike()])
    text = Balanced(page([unlike()], found, {})).text
    assert "This is no fair comparison" in text
    assert "guests run: unknown (h1); emulated (TCG) (x1)" in text
    rows = list(csv.DictReader(to_csv([unlike()], found).splitlines()))
    assert {row["comparable"] for row in rows} == {"no: hosts: guests run"}


def test_words_of_people_cannot_break_the_page() -> None:
    text = page([results(*both().runs, note="<script>alert(1)</script>")], (), {})
    assert "<script>" not in text
    Balanced(text)


def test_csv_has_a_line_for_each_phase_and_amount() -> None:
    rows = list(csv.DictReader(to_csv([both()], ()).splitlines()))
    one = [row for row in rows if row["host"] == KVM and row["run"] == "1"]
    assert [(row["what"], row["unit"]) for row in one][-2:] == [
        ("guest_cpu", "s"),
        ("disk_written", "bytes"),
    ]
    assert {row["comparable"] for row in rows} == {"yes"}
    assert len(one) == 8


def test_a_report_is_written_and_refused_where_it_would_lie(tmp_path: Path) -> None:
    files = write_report([both()], tmp_path / "new" / "folder")
    assert {"report.json", "report.csv", "report.html"} <= {file.name for file in files}
    assert all(file.stat().st_size for file in files)
    assert json.loads(files[0].read_text())["format"] == "vorch-bench-install/1"
    apart = results(*unlike().runs, hosts=unlike().hosts)
    with pytest.raises(Invalid, match="not alike"):
        write_report([apart], tmp_path / "other")
    assert not (tmp_path / "other").exists()
    write_report([apart], tmp_path / "other", unlike=True)


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    write_report([results()], tmp_path)
    assert "No run counts" in (tmp_path / "report.html").read_text()


def test_plots_are_drawn_marked_and_within_the_page(tmp_path: Path) -> None:
    if not can_plot():
        pytest.skip("matplotlib is not here (the extra `plots`)")
    files = {file.name: file for file in write_report([unlike()], tmp_path)}
    assert files["debootstrap.png"].read_bytes().startswith(b"\x89PNG")
    svg = files["debootstrap.svg"].read_text()
    assert "NOT ALIKE" in svg
    seen = Balanced(files["report.html"].read_text())
    assert (seen.open, seen.elsewhere) == ([], [])
