"""aioquic's HTTP/3 against an engine: streams beyond the limit, trailers, gRPC, resumption, key updates, migration, drains. Prints `all well`.

usage: h3_client.py SCENARIO ADDRESS [MORE...]
"""

import asyncio
import os
import pathlib
import signal
import socket
import sys
import time

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from h3wire import GOAWAY, Wire, asking, check, configuration, wire

NO_ERROR = 0x100


class Response:
    def __init__(self):
        self.interim, self.fields, self.trailers, self.body, self.over, self.reset = [], None, None, b"", False, None


class Client(Wire):
    """What aioquic makes of it, QPACK's dynamic table included."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http, self.responses, self.longest = H3Connection(self._quic), {}, 0

    def datagram_received(self, data, addr):
        self.longest = max(self.longest, len(data))
        super().datagram_received(data, addr)

    def quic_event_received(self, event):
        if isinstance(event, events.StreamReset) and event.stream_id in self.responses:
            self.responses[event.stream_id].reset = event.error_code
        for one in self.http.handle_event(event):
            response = self.responses.get(getattr(one, "stream_id", None))
            if response is None:
                continue
            if isinstance(one, HeadersReceived):
                fields = {name.decode(): value.decode() for name, value in one.headers}
                if response.fields is not None:
                    response.trailers = fields
                elif fields[":status"].startswith("1"):
                    response.interim.append(fields)
                else:
                    response.fields = fields
            elif isinstance(one, DataReceived):
                response.body += one.data
            response.over |= one.stream_ended
        super().quic_event_received(event)

    def request(self, path="/", method="GET", *more, body=b"", trailers=(), end=True):
        number = self._quic.get_next_available_stream_id()
        self.responses[number] = Response()
        fields = [(name.encode(), value.encode()) for name, value in asking(path, method, *more)]
        self.http.send_headers(number, fields, end_stream=end and not (body or trailers))
        if body:
            self.http.send_data(number, body, end_stream=end and not trailers)
        if trailers:
            self.http.send_headers(number, list(trailers), end_stream=end)
        self.transmit()
        return number

    async def response(self, number, patience=30):
        response = self.responses[number]
        await self.until(f"an answer on {number}", lambda: response.over or response.reset is not None, patience)
        check(f"stream {number} is not reset", response.reset, None)
        return response

    async def get(self, *asked, **more):
        return await self.response(self.request(*asked, **more))


def client(address, **more):
    return wire(address, greeted=False, protocol=Client, **more)


async def many(address, _):
    """Several hundred at once on one connection, of which the engine takes a hundred at a time."""
    async with client(address) as peer:
        numbers = [peer.request(f"/bytes/{1_000 + at}", "GET", ("x-number", str(at % 7))) for at in range(400)]
        for at, number in enumerate(numbers):
            response = await peer.response(number)
            check("each its own", (response.fields[":status"], len(response.body)), ("200", 1_000 + at))
        check("at a time", peer._quic._remote_max_streams_bidi >= 400, True)


async def trailers(address, _):
    async with client(address) as peer:
        response = await peer.get("/chunked/5000")
        check("a response's", (len(response.body), sorted(response.trailers)), (5_000, ["x-sum"]))
        response = await peer.get("/told", "POST", ("te", "trailers"), body=b"content", trailers=[(b"x-end", b"word")])
        check("a request's", response.body, b"content x-end: word")


async def expects(address, _):
    """RFC 9110 §10.1.1: who waits for 100 gets it, and is heard."""
    async with client(address) as peer:
        number = peer.request("/echo", "POST", ("expect", "100-continue"), ("content-length", "4"), end=False)
        response = peer.responses[number]
        await peer.until("100", lambda: response.interim or response.over)
        check("100", ([one[":status"] for one in response.interim], response.over), (["100"], False))
        peer.http.send_data(number, b"body", end_stream=True)
        peer.transmit()
        check("the answer", (await peer.response(number)).body, b"body")


async def calls(address, _):
    """gRPC: a unary call, and one that fails."""
    async with client(address) as peer:

        async def call(name, message):
            body = b"\0" + len(message).to_bytes(4, "big") + message
            return await peer.get(f"/test.Calls/{name}", "POST", ("te", "trailers"), ("content-type", "application/grpc"), body=body)

        response = await call("Unary", b"hello")
        check("a message", (response.fields[":status"], response.body), ("200", b"\0\0\0\0\x05hello"))
        check("its trailers", (response.trailers["grpc-status"], response.trailers["x-last"]), ("0", "word"))
        response = await call("Fail", b"5")
        check("a failure", (response.trailers or response.fields)["grpc-status"], "5")


async def resumes(address, _):
    tickets = []
    async with client(address, session_ticket_handler=tickets.append) as peer:
        check("a first time", ((await peer.get()).body, peer.resumed), (b"hello\n", False))
        await peer.until("a ticket", lambda: tickets)
    for _ in range(3):
        async with client(address, config=configuration(session_ticket=tickets[-1])) as peer:
            check("again", ((await peer.get()).body, peer.resumed), (b"hello\n", True))


async def early(address, _):
    """0-RTT: what changes nothing is answered as such, all else as if it had come later, and a session is good for one connection."""
    tickets = []

    def again(ticket):
        more = {"config": configuration(session_ticket=ticket), "session_ticket_handler": tickets.append}
        return client(address, wait_connected=False, **more)

    async with client(address, session_ticket_handler=tickets.append) as peer:
        await peer.get()
        await peer.until("a ticket", lambda: tickets)
    check("what it allows", tickets[-1].max_early_data_size, 0xFFFFFFFF)
    used = tickets.pop()
    async with again(used) as peer:
        numbers = [peer.request(path, method, ("early-data", "1")) for method, path in (("GET", "/a"), ("POST", "/b"), ("DELETE", "/c"))]
        told = [(await peer.response(number)).body for number in numbers]
        check("taken", (peer.resumed, peer.early), (True, True))
        # What the client says of its own way is kept, and said once.
        check("what endpoints are told", [one.count(b"early-data: 1") for one in told], [1, 1, 1])
        check("one that came later", (await peer.get("/d")).body.count(b"early-data"), 0)
        await peer.until("a ticket", lambda: tickets)
    async with again(tickets.pop()) as peer:
        numbers = [peer.request(path, method) for method, path in (("PUT", "/e"), ("GET", "/f"))]
        told = [(await peer.response(number)).body for number in numbers]
        # The other one may have come after the handshake, on a slow machine.
        check("what changes something", told[0].count(b"early-data"), 0)
        check("taken again", (peer.resumed, peer.early), (True, True))
    async with again(used) as peer:
        check("a session that was used", b"early-data" in (await peer.get("/g")).body, False)
        check("refused", (peer.resumed, peer.early), (False, False))


async def updates_keys(address, _):
    async with client(address) as peer:
        for _ in range(4):
            check("before", len((await peer.get("/bytes/200000")).body), 200_000)
            # Not before something of this phase is acknowledged (RFC 9001 §6.1), which aioquic does not see to; the engine may just have begun one.
            await peer.ping()
            await peer.ping()
            peer.request_key_update()
            check("after", len((await peer.get("/bytes/200000")).body), 200_000)


async def moves(address, _):
    """Another local port in the midst of a download, three times: by itself as behind a NAT, and on purpose with another connection id."""
    async with client(address) as peer:
        number = peer.request("/bytes/1500000")
        response = peer.responses[number]
        for count, on_purpose in enumerate((False, True, False), 1):
            await peer.until("a part of it", lambda: len(response.body) > count * 300_000)
            new = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            new.bind(("::", 0))
            # What still comes to the old port is lost, as behind a NAT.
            peer._transport.abort()
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: peer, sock=new)
            if on_purpose:
                peer.change_connection_id()
            peer._quic.send_ping(count)
            peer.transmit()
        check("all of it", len((await peer.response(number)).body), 1_500_000)
        check("and more", (await peer.get()).body, b"hello\n")


async def gives_up(address, _):
    """STOP_SENDING of an answer, and RESET_STREAM of a request whose answer is awaited: the connection goes on."""
    async with client(address) as peer:
        stopped = peer.request("/endless")
        await peer.until("content", lambda: len(peer.responses[stopped].body) > 100_000)
        peer.stop(stopped)
        check("another one", (await peer.get()).body, b"hello\n")
        begun = peer.request("/begun", "POST", body=b"begun", end=False)
        await asyncio.sleep(0.2)
        peer.reset(begun)
        check("another one", (await peer.get()).body, b"hello\n")
        # For as long as this takes they can only be over because they were given up.
        await asyncio.sleep(3)


async def swaps(address, ready, go):
    """Certificates are swapped between `ready` and `go`: the first connection stays."""
    async with client(address) as first:
        check("before", (await first.get()).body, b"hello\n")
        shown = first._quic.tls._peer_certificate
        pathlib.Path(ready).touch()
        while not pathlib.Path(go).exists():
            check("meanwhile", (await first.get()).body, b"hello\n")
            await asyncio.sleep(0.05)
        async with client(address) as second:
            check("a new one", (await second.get()).body, b"hello\n")
            check("another certificate", second._quic.tls._peer_certificate != shown, True)
        check("the old one", (await first.get()).body, b"hello\n")


async def stops(address, ready, go):
    """Answers that the engine has had as a whole, and that wait for a window here, are not wanted any more: each stream ends, and its place is the next one's."""
    async with wire(address, config=configuration(max_stream_data=600)) as peer:
        # The windows stay as they are, whatever comes.
        peer._quic._write_stream_limits = lambda *_, **__: None
        for turn in range(3):
            numbers = [peer.ask() for _ in range(60)]
            streams = [peer.stream(number) for number in numbers]
            await peer.until(f"all heads, {turn}", lambda: all(len(stream.data) > 100 for stream in streams))
            pathlib.Path(f"{ready}-{turn}").touch()
            while not pathlib.Path(f"{go}-{turn}").exists():
                await asyncio.sleep(0.02)
            for number in numbers:
                peer.stop(number)
            await peer.until(f"all are reset, {turn}", lambda: all(stream.reset is not None for stream in streams))
        check("the connection", peer.closed, None)


async def never_takes(address, _):
    """Answers for which there is no window: their streams are cut off, and not before a slow path had its time."""
    async with wire(address, config=configuration(max_stream_data=600)) as peer:
        write = peer._quic._write_stream_limits
        peer._quic._write_stream_limits = lambda *_, **__: None
        begun = time.monotonic()
        streams = [peer.stream(peer.ask()) for _ in range(5)]
        await peer.until("all heads", lambda: all(len(stream.data) > 100 for stream in streams))
        await peer.until("they are cut off", lambda: all(stream.reset is not None for stream in streams), 50)
        check("not at once", time.monotonic() - begun > 25, True)
        check("the code", {stream.reset for stream in streams}, {0x10C})
        peer._quic._write_stream_limits = write
        answer = await peer.answer(peer.ask())
        check("the connection goes on", (answer.status, len(answer.body)), (200, 1_500))


def own_address(to):
    """Where we are, as whoever is at this address sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((to.rsplit(":", 1)[0], 9))
        return probe.getsockname()[0]


async def told(address, _):
    async with client(address) as peer:
        fields = (await peer.get("/told", "GET", ("x-mine", "1"))).body.decode()
        for line in ("host: localhost", "x-forwarded-proto: https", f"x-forwarded-for: {own_address(address)}", "x-mine: 1"):
            check(f"{line} in {fields}", f"{line}\n" in fields, True)
        # A stream that ends with its head has no content, and nobody need wait for any.
        check(f"no content in {fields}", "transfer-encoding" in fields or "content-length" in fields, False)


async def takes_long_ones(address, _):
    """Datagrams are as long as the way to us is known to take: an Ethernet's, or four of those that a loopback interface takes at once."""
    async with client(address) as peer:
        # Each acknowledgement says more of the way.
        for _ in range(5):
            check("content", len((await peer.get("/bytes/1000000")).body), 1_000_000)
        near = own_address(address) == address.rsplit(":", 1)[0]
        check("the longest datagram", peer.longest, 16_376 if near else 1_472)


async def drains(address, pid):
    """SIGTERM with requests under way: all are answered, the leave is told in two steps, and the end is in order."""
    async with wire(address) as peer:
        await peer.serves("before")
        numbers = [peer.ask(*asking("/slow/700")) for _ in range(20)]
        await asyncio.sleep(0.2)
        os.kill(int(pid), signal.SIGTERM)
        # Those on their way are still looked at.
        await asyncio.sleep(0.02)
        numbers.append(peer.ask(*asking("/slow/100")))
        for number in numbers:
            check("answered", (await peer.answer(number)).body, b"slow\n")
        check("the end", await peer.until_closed("an end"), NO_ERROR)
        control = next(stream for stream in peer.streams.values() if stream.data[:1] == b"\0")
        del control.data[:1]
        leaves = [payload for kind, payload in control.frames() if kind == GOAWAY]
        check("the last leave", int.from_bytes(leaves[-1], "big") & 0x3FFF, numbers[-1] + 4)


SCENARIOS = {
    "many": many, "trailers": trailers, "expects": expects, "calls": calls, "resumes": resumes, "early": early, "updates-keys": updates_keys, "moves": moves,
    "gives-up": gives_up, "swaps": swaps, "stops": stops, "never-takes": never_takes, "told": told, "takes-long-ones": takes_long_ones,
    "drains": drains,
}


async def main():
    scenario, address, *more = sys.argv[1:]
    await asyncio.wait_for(SCENARIOS[scenario](address, *more or [None]), 60)
    print("all well")


asyncio.run(main())
