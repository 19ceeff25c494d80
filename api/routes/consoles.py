"""/v1/console: a websocket that is a VM's serial port or screen, for whoever has a ticket."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket

from vorch import Console, Denied, OnBehalf, Ticket, TooMany, VorchError

from ..asking import on_behalf, principal
from ..bridge import UNKNOWN, Bridge, End, close, end_of
from ..gate import DENIAL, same_origin, still
from ..problems import problem

PATH = "/v1/console"
# What is spoken here, and what the ticket is offered as: so it stands in no address, and in no log.
PROTOCOL = "vorch.console"
TICKET_PREFIX = "vorch.ticket."


async def console(socket: WebSocket) -> None:
    state, who = socket.app.state, principal(socket)
    try:
        if not same_origin(dict(socket.scope["headers"]), needed=False):
            raise Denied("cannot open that console: another site's page asks for it")
        with state.bridges.seat(who.name) as free:
            if not free:
                raise TooMany(
                    f"cannot open one more console: {who.name!r} has"
                    f" {state.cluster.settings.consoles_per_user} open here; close one",
                    retry_after_s=10,
                )
            ticket = await run_in_threadpool(state.keeper.redeem, _offered(socket), who)
            await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
            await close(socket, await _bridged(socket, ticket))
    except VorchError as exc:
        await _refuse(socket, exc)


async def _bridged(socket: WebSocket, ticket: Ticket) -> End:
    state = socket.app.state
    try:
        stream = await run_in_threadpool(_opened, on_behalf(socket), ticket)
    except VorchError as exc:
        return end_of(exc)

    async def allowed() -> End | None:
        try:
            who = await still(socket.scope)
            if who is None:
                return End(UNKNOWN, "the login or token is over")
            behalf = OnBehalf(state.cluster, who, state.keeper, look=state.picture.look)
            await run_in_threadpool(behalf.permit, ticket.kind, {"name": ticket.vm})
        except VorchError as exc:
            return end_of(exc)
        return None

    bridge = Bridge(socket, stream, idle_s=state.cluster.settings.console_idle_s, allowed=allowed)
    with state.bridges.among(bridge):
        return await bridge.run()


def _opened(behalf: OnBehalf, ticket: Ticket) -> Console:
    open_it = behalf.console if ticket.kind == "console" else behalf.display
    stream: Console = open_it(ticket.vm, force=ticket.force)
    return stream


def _offered(socket: WebSocket) -> str:
    """The ticket among the protocols that the client offers."""
    for one in socket.scope["subprotocols"]:
        if one.startswith(TICKET_PREFIX):
            return str(one).removeprefix(TICKET_PREFIX)[:200]
    return ""


async def _refuse(socket: WebSocket, error: VorchError) -> None:
    if DENIAL in socket.scope.get("extensions", {}):
        await problem(error)(socket.scope, socket.receive, socket.send)
    else:
        await socket.close(1008)
