"""Writes docs/api.md out of the table of verbs: python -m vorch_api.reference docs/api.md"""

# ruff: noqa: E501 - its lines are those of the page

from __future__ import annotations

import sys
from pathlib import Path

from vorch import NOT_OVER_HTTP, ROLES, VERBS, call_of

HEAD = """\
# The service: API v1

<!-- Written by `make docs` out of the table of verbs: change api/reference.py, not this file. -->

`vorch serve` puts HTTP before the library: one route for each verb, under `/v1`, with the verb's own
arguments and its own result as JSON. What decides is in the library; the service only translates.
`/openapi.json` has every argument, answer, error and an example; `/docs` is a list of the routes.

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8420/v1/vms

## Routes

What only looks is GET and changes nothing. `create`, `add`, `import` are a POST to the collection,
`change` is PATCH, `delete` and `remove` are DELETE; every other verb is a POST to its own word, as in
`POST /v1/vms/web/disk-attach`. Arguments of GET and DELETE stand in the query, all others in a JSON
body; one that the verb does not know is refused (422). The table at the end has all.

## What changes something

**`dry_run`** (among the arguments of all that has plans): the answer is the plan, `task` is null, and
nothing was touched.

**Jobs.** What acts becomes a job: it is written down, with who asked for what, before anything
begins. If it ends within a second, the answer is its result (200; 201 with `Location` when something
was created), and `Vorch-Job` names the job. Else the answer is 202 with the job, and
`Location: /v1/jobs/ID` says where to ask. `Prefer: wait=N` waits N seconds instead (at most 60; 0: not
at all), here and at `GET /v1/jobs/ID`. A job's `state` is `running`, `done` (with `result`), `failed`
or `cancelled` (with `error`); its `tasks` are the plans that it carried out.
`GET /v1/jobs/ID/watch` is a stream of events, `task` with per cent and log, `job` at its end;
`POST /v1/jobs/ID/cancel` undoes what is under way and begins no more of it. As many old jobs are kept
as tasks (`tasks_kept`).

When a service dies, its tasks are finished or undone by the next process that comes, and its jobs end
as their tasks did. Of verbs that carry out several plans the rest is not begun; the job's error says
which are done.

**`Idempotency-Key`**: a request with the key of an earlier one by the same user is that earlier one: it
gets the same answer, and nothing is done twice. For another request it is refused (422). Keys last as
long as their jobs.

**`If-Match`**: GET of one VM, host, image, network, pool or rule has an `ETag`, the version of its
definition. With `If-Match` it is only changed if it is still at that version, down to the moment in
which its plan begins; else the answer is 412 (`stale`). What a VM does now is not part of its
definition, and does not change its ETag.

**Too much at once**: 32 jobs are at work at the same time, and 256 more may wait; then the answer is 429
with `Retry-After`.

## Lists

Lists are JSON arrays, the same values as `vorch … --json` prints. `X-Total-Count` says how many there
are on all pages.

| Word | What it does |
|---|---|
| `limit=100` | at most so many (up to 10,000); `Link: <…>; rel="next"` is the next page. Without it: all |
| `cursor=…` | where a page begins; only as a `Link` has it |
| `fields=vm.name,power` | these fields only, for lists and for one thing |
| `state=running`, `node=h1`, `tag=db` | of VMs: only those. Of several values of one word any will do |
| `name=web`, `name~=we` | that name; names that contain that, in any case, or that are of the form `we*` |
| `FIELD=…`, `FIELD~=…` | of all other lists: by any field that is shown, as in `/v1/tasks?verb=create` |

The list of VMs comes from what the service knows already, by events of the hosts and of the store: no
host is asked for it.

## Events

`GET /v1/events` is a stream (`text/event-stream`) of what happens: `vm`, `node`, `pool`, `class`,
`image`, `network`, `trash`, `rule`, `ha`, `hanode`, `havm` when such a document was written or deleted,
with its name and version; `task` and `job` whole; `power` when a VM begins to run, ends or is on
another host, whoever had it do so. `kind=vm,power` chooses.

Nothing is kept for those who are away: ids are revisions of the store, which itself knows what was
written since. With `Last-Event-ID` (or `since=`) one is told of everything that has changed meanwhile,
once, as it is now, then `ready`, then of what happens. `reset` says that it is too long ago: read all
again. `power` comes from hosts and has no id: after a break read `/v1/vms` once. Whoever reads too
slowly is cut off, and goes on from the last id.

## Consoles

A VM's serial port and its screen are websockets. `POST /v1/vms/NAME/console-ticket` with `{"kind": "console"}` or
`"display"` answers with a `secret`, which opens one of them once, within a minute, at any service:

    GET /v1/console    Sec-WebSocket-Protocol: vorch.console, vorch.ticket.SECRET

It needs nothing else; from a browser the page must be this service's own (`Origin`). Binary messages are what the
serial port or the VNC server (RFB 3.8) says and hears. A serial port goes on when its VM moves to another host; a
screen ends with 4410, and is opened anew by another ticket. Both are closed when the login or token that asked for
the ticket is over, when nothing is said for `console_idle_s`, when a viewer takes nothing for 30 s, and when a message is
larger than 256 KiB. One user may have `consoles_per_user` open at a service.

| Closed with | Because |
|---|---|
| 1012 | the service ends; another one, or the same a little later, goes on |
| 4410 | the VM has ended or moved: ask for another ticket, which says what the VM does |
| 4423 | somebody else has it, or took it: a serial port is one's at a time, and the screen of a VM on another host; `"force": true` takes it |
| 4401, 4403, 4404 | the login is over, the right is gone, the VM is no longer to be seen |
| 4408 | silence, or a viewer that takes nothing |
| 4429 | too many are open |
| 1009 | a message was too large |

## Errors

`application/problem+json`, with vorch's `code` and `fields` ([errors.md](errors.md)).

## From Python and from the command line

```python
import vorch

with vorch.connect("https://vorch.example.org:8420", token="…") as cluster:
    cluster.create("web", image="debian-12", start=True)
```

The same methods with the same results and errors as of a cluster at hand. Without a route of their own: {not_here}.
`console` and `display` work all the same, and `picture` as far as it lists VMs.
Paths and current folders are the service's. The token may also be in `VORCH_TOKEN` or in the file that
the setting `token_file` names; a certificate that no CA of the system vouches for is named by
`ca=`, `VORCH_CA` or `ca_file`. Without encryption only this machine itself can be reached. Requests that
were lost are sent again, under a key, so that nothing happens twice; a service that is away while a job
of yours runs is waited for. Ctrl-C cancels the job and waits until it is undone.

`vorch --uri https://vorch.example.org:8420 list` does the same on the command line.

## Who may do what

The least role for each verb; each role may do what those to its left may. Arguments in the last column
may name a file or a host as the machine of the service sees it: whoever is no admin may say `http:` and
`https:` addresses there, and nothing else.

"""


def text() -> str:
    not_here = ", ".join(f"`{name}` ({why})" for name, why in sorted(NOT_OVER_HTTP.items()))
    lines = [
        HEAD.replace("{not_here}", not_here),
        f"| Verb | Route | About | {' | '.join(reversed(ROLES))} | Places | |\n",
        "|---|---|---|" + "---|" * len(ROLES) + "---|---|\n",
    ]
    for entry in VERBS.values():
        least = ROLES.index(entry.role)
        marks = ["x" if ROLES.index(role) <= least else "" for role in reversed(ROLES)]
        sentence = call_of(entry.verb).summary.replace("|", "\\|")
        lines.append(
            f"| `{entry.verb}` | `{entry.method} {entry.path}` | {entry.about} |"
            f" {' | '.join(marks)} | {', '.join(f'`{one}`' for one in entry.places)} |"
            f" {sentence} |\n"
        )
    return "".join(lines)


def write(target: Path) -> None:
    target.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]))
    else:
        sys.stdout.write(text())
