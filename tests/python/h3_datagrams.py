"""Datagrams of requests (RFC 9297) by aioquic, from an engine's client and from its endpoint. A client prints `all well`.

usage: h3_datagrams.py origin CERT KEY PORT | h3_datagrams.py SCENARIO ADDRESS

The origin grants `connect-udp`, at once or (`/late`) after a while, and sends back what comes: datagrams and bytes, each as what it is.
"""

import asyncio
import sys

from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, DatagramReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from h3wire import DATA, Wire, asking, check, configuration, frame, integer, wire

H3_DATAGRAM, DATAGRAM_ERROR, SETTINGS_ERROR, ID_ERROR = 0x33, 0x33, 0x109, 0x108


class Origin(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # That is how aioquic is told to take datagrams.
        self.http = H3Connection(self._quic, enable_webtransport=True)

    def quic_event_received(self, event):
        for one in self.http.handle_event(event):
            if isinstance(one, HeadersReceived):
                fields = dict(one.headers)
                if fields.get(b":protocol") == b"connect-udp":
                    late = 0.7 if fields[b":path"] == b"/late" else 0
                    asyncio.get_running_loop().call_later(late, self.grant, one.stream_id)
                else:
                    self.http.send_headers(one.stream_id, [(b":status", b"200"), (b"content-length", b"6")])
                    self.http.send_data(one.stream_id, b"hello\n", end_stream=True)
            elif isinstance(one, DataReceived):
                self.http.send_data(one.stream_id, one.data, end_stream=one.stream_ended)
            elif isinstance(one, DatagramReceived):
                self.http.send_datagram(one.stream_id, one.data)
        self.transmit()

    def grant(self, stream):
        self.http.send_headers(stream, [(b":status", b"200"), (b"capsule-protocol", b"?1")])
        self.transmit()


async def origin(cert, key, port):
    config = QuicConfiguration(alpn_protocols=["h3"], is_client=False, max_datagram_frame_size=65_536)
    config.load_cert_chain(cert, key)
    await serve("127.0.0.1", int(port), configuration=config, create_protocol=Origin)
    await asyncio.Future()


class Peer(Wire):
    """A client that takes datagrams, and keeps them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.datagrams = []

    def quic_event_received(self, event):
        if isinstance(event, events.DatagramFrameReceived):
            self.datagrams.append(event.data)
        super().quic_event_received(event)

    def send(self, payload):
        self._quic.send_datagram_frame(payload)
        self.transmit()


class Tunnel:
    """UDP by CONNECT (RFC 9298), as far as its bytes are concerned."""

    def __init__(self, peer, path="/"):
        self.peer = peer
        fields = [(":method", "CONNECT"), (":protocol", "connect-udp"), *asking(path)[1:], ("capsule-protocol", "?1")]
        self.number = peer.ask(*fields, end=False)
        self.stream = peer.stream(self.number)

    async def granted(self):
        await self.peer.until("an answer", lambda: self.stream.frames() or self.stream.over)
        check("reset", self.stream.reset, None)
        return self

    def send(self, payload):
        self.peer.send(integer(self.number // 4) + payload)

    def received(self):
        head = integer(self.number // 4)
        return [one[len(head) :] for one in self.peer.datagrams if one.startswith(head)]

    def content(self):
        return b"".join(payload for kind, payload in self.stream.frames() if kind == DATA)

    async def says(self, what, content):
        await self.peer.until(what, lambda: len(self.content()) >= len(content))
        check(what, self.content(), content)


def client(address, **more):
    return wire(address, config=configuration(max_datagram_frame_size=65_536), protocol=Peer, greeted=False, **more)


async def greet(peer, *entries):
    peer.greet(*(entries or [(H3_DATAGRAM, 1)]))
    control = lambda: next((stream for stream in peer.streams.values() if stream.data[:1] == b"\0"), None)
    await peer.until("SETTINGS", lambda: control() and control().data[2:])
    return bytes(control().data)


async def passes(address):
    """There and back, of every length that a path takes, on two requests of one connection, and bytes beside them."""
    async with client(address) as peer:
        said = await greet(peer)
        assert b"\x33\x01" in said, "SETTINGS_H3_DATAGRAM"
        tunnels = [await Tunnel(peer).granted() for _ in range(2)]
        sent = [bytes([at]) * length for at, length in enumerate([0, 1, 7, 100, 500, 1_000, 1_100])]
        for at, tunnel in enumerate(tunnels):
            for one in sent:
                tunnel.send(bytes([at]) + one)
                # One by one, so that none finds a queue full.
                await peer.until("the same", lambda: bytes([at]) + one in tunnel.received())
            check("each came once", tunnel.received(), [bytes([at]) + one for one in sent])
            peer.say(tunnel.number, frame(DATA, b"\x01\x03abc"))
            await tunnel.says("bytes", b"\x01\x03abc")
            # A datagram that comes as a capsule goes on as one, and so does its echo.
            peer.say(tunnel.number, frame(DATA, b"\0\x06cap"))
            peer.say(tunnel.number, frame(DATA, bytes([at]) + b"up"))
            await peer.until("what was a capsule", lambda: b"cap" + bytes([at]) + b"up" in tunnel.received())
            check("bytes", tunnel.content(), b"\x01\x03abc")
        # One that is over is nobody's, and the connection goes on.
        peer.say(tunnels[0].number, end=True)
        await peer.until("its end", lambda: tunnels[0].stream.over)
        tunnels[0].send(b"late")
        tunnels[1].send(b"still")
        await peer.until("the other goes on", lambda: b"still" in tunnels[1].received())
        check("nothing late", b"late" in tunnels[0].received(), False)


async def ahead(address):
    """More than are kept, before the tunnel is there (RFC 9298 §5 allows to be so bold): the first ones arrive, the others are dropped."""
    async with client(address) as peer:
        await greet(peer)
        tunnel = Tunnel(peer, "/late")
        await asyncio.sleep(0.2)
        for at in range(200):
            tunnel.send(bytes([at]))
            if at % 10 == 0:
                await asyncio.sleep(0)
        await tunnel.granted()
        await peer.until("the first", lambda: len(tunnel.received()) >= 64)
        tunnel.send(b"now")
        await peer.until("what comes later", lambda: b"now" in tunnel.received())
        check("what was kept", sorted(tunnel.received()), sorted([bytes([at]) for at in range(64)] + [b"now"]))


async def capsules(address):
    """To an endpoint of HTTP/1.1: where a capsule ends, and only there, a datagram becomes one. Its echo becomes a datagram again, wherever it is cut."""
    async with client(address) as peer:
        await greet(peer)
        tunnel = await Tunnel(peer).granted()
        tunnel.send(b"first")
        await peer.until("a datagram", lambda: tunnel.received() == [b"first"])
        peer.say(tunnel.number, frame(DATA, b"\x17\x05ab"))
        await tunnel.says("half a capsule", said := b"\x17\x05ab")
        tunnel.send(b"lost")
        await asyncio.sleep(0.2)
        peer.say(tunnel.number, frame(DATA, b"cde"))
        await tunnel.says("the other half", said := said + b"cde")
        tunnel.send(b"x" * 100)
        peer.say(tunnel.number, frame(DATA, b"\0\0"))
        await peer.until("and datagrams", lambda: sorted(tunnel.received()) == [b"", b"first", b"x" * 100])
        check("bytes", tunnel.content(), said)
        # What is too long for any path stays a capsule, and so does what has not come whole at the end.
        long = b"\0\x7f\xf2" + b"y" * 16_370
        peer.say(tunnel.number, frame(DATA, long))
        await tunnel.says("a long one", said := said + long)
        peer.say(tunnel.number, frame(DATA, b"\0\x05ab"), end=True)
        await tunnel.says("the end", said + b"\0\x05ab")


async def stay(address):
    """To a client that takes no datagrams: a capsule stays one."""
    async with client(address) as peer:
        await greet(peer, (H3_DATAGRAM, 0))
        tunnel = await Tunnel(peer).granted()
        peer.say(tunnel.number, frame(DATA, said := b"\0\x05first\x17\x05other\0\0"))
        await tunnel.says("capsules", said)
        check("datagrams", tunnel.received(), [])


async def rejected(address):
    """What must not be, each with its section and code."""
    for what, act, code in [
        ("RFC 9297 2.1: no stream", lambda peer: peer.send(b""), DATAGRAM_ERROR),
        ("RFC 9297 2.1: half a stream", lambda peer: peer.send(b"\x40"), DATAGRAM_ERROR),
        ("RFC 9297 2.1: a stream that cannot be", lambda peer: peer.send(integer(1 << 60) + b"x"), DATAGRAM_ERROR),
        ("RFC 9297 2.1: the last one that could, beyond the limit", lambda peer: peer.send(integer((1 << 60) - 1)), ID_ERROR),
        ("RFC 9297 2.1: a stream beyond the limit", lambda peer: peer.send(integer(100) + b"x"), ID_ERROR),
    ]:
        async with client(address) as peer:
            await greet(peer)
            act(peer)
            check(what, hex(await peer.until_closed(what)), hex(code))
    async with client(address) as peer:
        peer.greet((H3_DATAGRAM, 2))
        check("RFC 9297 2.1.1", hex(await peer.until_closed("neither 0 nor 1")), hex(SETTINGS_ERROR))
    async with client(address) as peer:
        await greet(peer)
        # The last that may be, which has not come: dropped.
        peer.send(integer(99) + b"x")
        number = peer.ask(*asking("/slow/5000", "POST"), end=False)
        await asyncio.sleep(0.2)
        peer.send(integer(number // 4) + b"x")
        stream = peer.stream(number)
        await peer.until("its end", lambda: stream.reset is not None)
        check("RFC 9297 2: a request that has no use for datagrams", (stream.reset, stream.stopped), (DATAGRAM_ERROR, DATAGRAM_ERROR))
        await peer.serves("the connection goes on")


async def off(address):
    """A door that takes none does not say that it does."""
    async with client(address) as peer:
        said = await greet(peer)
        check("SETTINGS_H3_DATAGRAM", b"\x33\x01" in said, False)
        peer._quic.send_datagram_frame(b"\0x")
        peer.transmit()
        # PROTOCOL_VIOLATION (RFC 9221 3).
        check("the end", await peer.until_closed("a frame that is not taken"), 0x0A)


SCENARIOS = {"passes": passes, "ahead": ahead, "capsules": capsules, "stay": stay, "rejected": rejected, "off": off}


async def main():
    if sys.argv[1] == "origin":
        await origin(*sys.argv[2:])
    scenario, address = sys.argv[1:]
    await asyncio.wait_for(SCENARIOS[scenario](address), 60)
    print("all well")


asyncio.run(main())
