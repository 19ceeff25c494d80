"""/v1/console: a websocket that is a VM's serial port or screen, for whoever has a ticket."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket

from vorch import (
    Console,
    Denied,
    OnBehalf,
    Principal,
    Ticket,
    TooMany,
    Unreachable,
    VorchError,
)

from ..bridge import UNKNOWN, Bridge, End, close, end_of
from ..gate import same_origin, source_of
from ..problems import problem

# What is spoken here, and what the ticket is offered as: so it stands in no address, and in no log.
PROTOCOL = "vorch.console"
TICKET_PREFIX = "vorch.ticket."
# What servers call it when a websocket can be refused with an answer of HTTP.
DENIAL = "websocket.http.response"


async def console(socket: WebSocket) -> None:
    """A browser says whose page asks; without the ticket it would be of no use all the same."""
    state, source = socket.app.state, source_of(socket.scope)
    try:
        if not same_origin(dict(socket.scope["headers"]), needed=False):
            raise Denied("cannot open that console: another site's page asks for it")
        found = await run_in_threadpool(state.keeper.redeem, _offered(socket), source)
    except VorchError as exc:
        await _refuse(socket, exc)
        return
    ticket, principal = found
    await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
    with state.bridges.seat(principal.name) as free:
        if free:
            end = await _bridged(socket, ticket, principal)
        else:
            most = state.cluster.settings.consoles_per_user
            end = end_of(TooMany(f"cannot open one more: {most} are open here; close one"))
        await close(socket, end)


async def _bridged(socket: WebSocket, ticket: Ticket, principal: Principal) -> End:
    state = socket.app.state

    def behalf_of(who: Principal) -> OnBehalf:
        return OnBehalf(state.cluster, who, state.keeper, look=state.picture.look)

    def permitted() -> End | None:
        try:
            who = state.keeper.holder(ticket, principal.source)
            if who is None:
                return End(UNKNOWN, "the login or token is over")
            behalf_of(who).permit(ticket.kind, {"name": ticket.vm})
        except Unreachable:
            # A store that does not answer for a while takes nothing from anybody.
            return None
        except VorchError as exc:
            return end_of(exc)
        return None

    async def allowed() -> End | None:
        return await run_in_threadpool(permitted)

    try:
        stream = await run_in_threadpool(_opened, behalf_of(principal), ticket)
    except VorchError as exc:
        return end_of(exc)
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
