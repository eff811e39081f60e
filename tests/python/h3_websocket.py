"""A WebSocket on a stream of HTTP/3 (RFC 9220), through an engine to a server of `websockets`. Prints `all well`.

usage: h3_websocket.py ORIGIN ENGINE
"""

import asyncio
import os
import sys

from h3wire import DATA, HEADERS, Wire, asking, check, frame, wire
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

ENDED = []


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass
    ENDED.append((socket.close_code, socket.close_reason))


class Socket:
    """One stream."""

    def __init__(self, peer: Wire):
        self.peer, self.frames, self.read = peer, StreamReader(), 0

    async def open(self, path="/"):
        # RFC 9220 3: only when the server has said that it can.
        control = lambda: next((stream for stream in self.peer.streams.values() if stream.data[:1] == b"\0"), None)
        await self.peer.until("SETTINGS", lambda: control() and b"\x08\x01" in control().data)
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), *asking(path)[1:], ("sec-websocket-version", "13")]
        self.number = self.peer.ask(*fields, end=False)
        self.stream = self.peer.stream(self.number)
        await self.peer.until("an answer", lambda: self.stream.data or self.stream.over)

    def send_raw(self, data, end=False):
        self.peer.say(self.number, frame(DATA, data) if data else b"", end)

    def send(self, opcode, payload, **more):
        self.send_raw(Frame(opcode, payload).serialize(mask=True), **more)

    def content(self):
        return b"".join(payload for kind, payload in self.stream.frames() if kind == DATA)

    async def receive(self):
        parser = Frame.parse(self.frames.read_exact, mask=False, max_size=None)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                return done.value
            # What is not a whole frame of HTTP/3 yet is not seen.
            await self.peer.until("a frame", lambda: self.content()[self.read :] or self.stream.over)
            content = self.content()
            if len(content) == self.read:
                sys.exit(f"no whole frame: {content[-40:]!r}, reset {self.stream.reset}")
            self.frames.feed_data(content[self.read :])
            self.read = len(content)


async def talk(address):
    async with wire(address) as peer:
        socket = Socket(peer)
        await socket.open()
        kind, _ = socket.stream.frames()[0]
        check("HEADERS", kind, HEADERS)
        for size in [0, 1, 125, 126, 65_535, 65_536, 300_000]:
            body = os.urandom(size)
            socket.send(Opcode.BINARY, body)
            got = await socket.receive()
            check("an echo over HTTP/3", (got.opcode, bytes(got.data) == body), (Opcode.BINARY, True))
        socket.send(Opcode.PING, b"over HTTP/3")
        got = await socket.receive()
        check("a pong over HTTP/3", (got.opcode, bytes(got.data)), (Opcode.PONG, b"over HTTP/3"))
        socket.send(Opcode.CLOSE, Close(4000, "enough").serialize(), end=True)
        got = await socket.receive()
        check("the Close", Close.parse(got.data).code, 4000)
        await peer.until("the end", lambda: socket.stream.over)
        check("in order", (socket.stream.ended, socket.stream.reset), (True, None))
        await asyncio.sleep(0.2)
        check("what the server heard", ENDED, [(4000, "enough")])

        # Whoever breaks the rules is told so, and its stream ends in order: the connection goes on.
        socket = Socket(peer)
        await socket.open()
        socket.send_raw(b"\x81\x02hi")
        got = await socket.receive()
        check("unmasked", Close.parse(got.data).code, 1002)
        await peer.until("the end", lambda: socket.stream.over)
        check("no reset", socket.stream.reset, None)
        await Socket(peer).open()
        check("the connection goes on", peer.closed, None)


async def main():
    origin, engine = sys.argv[1:]
    host, port = origin.split(":")
    async with serve(echo, host, int(port), max_size=None, ping_interval=None):
        await asyncio.wait_for(talk(engine), 60)
    print("all well")


asyncio.run(main())
