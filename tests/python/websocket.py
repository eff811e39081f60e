"""WebSockets through an engine: the clients and servers of `websockets`, and of `h2` for RFC 8441. Prints `all well`.

usage: websocket.py SCENARIO ORIGIN ENGINE [PID]
"""

import asyncio
import os
import signal
import sys

import h2.config
import h2.connection
import h2.events
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r:.200} is not {wanted!r:.200}")


async def echo(socket):
    """Echoes messages, fragment by fragment as they come; a few are orders."""
    try:
        async for message in socket:
            if message == "close":
                await socket.close(4001, "as you wish")
            elif message == "ping":
                await (await socket.ping(b"from the server"))
                await socket.send("pong came")
            elif message == "large":
                await socket.send(os.urandom(1 << 20))
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    ENDED.append((socket.close_code, socket.close_reason))


ENDED = []


async def ended():
    while not ENDED:
        await asyncio.sleep(0.01)
    return ENDED[-1]


async def talk(url, **options):
    async with connect(url, max_size=None, **options) as socket:
        body = os.urandom(1 << 20)
        for message in ["", "hello", "grüße, мир, 你好 🎉" * 500, b"", b"\0\xff", body, body.hex()]:
            await socket.send(message)
            check("an echo", await socket.recv(), message)
        await socket.send(["frag", "men", "", "ted"])
        check("fragments", await socket.recv(), "fragmented")
        await socket.send(body[at : at + 70_000] for at in range(0, len(body), 70_000))
        check("large fragments", await socket.recv(), body)
        await asyncio.wait_for(await socket.ping(b"are you there?"), 10)
        await socket.send("ping")
        check("the server's ping", await socket.recv(), "pong came")
        for number in range(2000):
            await socket.send(f"{number}")
        for number in range(2000):
            check("in order", await socket.recv(), f"{number}")
        extensions = [extension.name for extension in socket.protocol.extensions]
        check("compression", extensions, ["permessage-deflate"] if "compression" not in options else [])
        await socket.close(4000, "enough")
        check("our own close", (socket.close_code, socket.close_reason), (4000, "enough"))
    check("what the server heard", await ended(), (4000, "enough"))


async def echoes(url, _):
    await talk(url)
    ENDED.clear()
    await talk(url, compression=None)
    ENDED.clear()
    async with connect(url) as socket:
        await socket.send("close")
        try:
            check("nothing more", await socket.recv(), None)
        except ConnectionClosed:
            check("the server's close", (socket.close_code, socket.close_reason), (4001, "as you wish"))


async def drains(url, pid):
    async with connect(url) as socket, connect(url) as other:
        for each in (socket, other):
            await each.send("hello")
            check("an echo", await each.recv(), "hello")
        os.kill(int(pid), signal.SIGTERM)
        for each in (socket, other):
            try:
                check("nothing more", await asyncio.wait_for(each.recv(), 10), None)
            except ConnectionClosed as closed:
                check("a Close came", closed.rcvd and closed.rcvd.code, 1001)
    check("the server is told", (await ended())[0], 1001)


class Stream:
    """A WebSocket on a stream of HTTP/2 (RFC 8441)."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.head, self.frames, self.ended, self.reset = None, StreamReader(), False, None
        self.parsed, self.open_for = [], None

    async def begin(self, authority, path="/", protocol="websocket", **more):
        self.connection.initiate_connection()
        await self.step(lambda: self.connection.remote_settings.enable_connect_protocol)
        self.stream = self.connection.get_next_available_stream_id()
        head = {":method": "CONNECT", ":protocol": protocol, ":scheme": "http", ":path": path, ":authority": authority,
                "sec-websocket-version": "13", **more}
        self.connection.send_headers(self.stream, list(head.items()))
        await self.step(lambda: self.head)

    async def step(self, until):
        self.writer.write(self.connection.data_to_send())
        while not until():
            data = await asyncio.wait_for(self.reader.read(65_536), 10)
            if not data:
                sys.exit("the connection ended")
            for event in self.connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.head = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.frames.feed_data(event.data)
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended = True
                elif isinstance(event, h2.events.StreamReset):
                    self.ended, self.reset = True, event.error_code
            self.writer.write(self.connection.data_to_send())

    async def send_raw(self, data, end=False):
        while data:
            await self.step(lambda: self.connection.local_flow_control_window(self.stream) > 0)
            room = min(self.connection.local_flow_control_window(self.stream), self.connection.max_outbound_frame_size)
            self.connection.send_data(self.stream, data[:room])
            data = data[room:]
        if end:
            self.connection.end_stream(self.stream)
        self.writer.write(self.connection.data_to_send())

    async def send(self, opcode, payload, **more):
        await self.send_raw(Frame(opcode, payload).serialize(mask=True), **more)

    async def receive(self):
        parser = Frame.parse(self.frames.read_exact, mask=False, max_size=None)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                return done.value
            before = len(self.frames.buffer)
            await self.step(lambda: len(self.frames.buffer) > before or self.ended)
            if self.ended and len(self.frames.buffer) == before:
                sys.exit(f"no whole frame: {bytes(self.frames.buffer[:40])!r}, reset {self.reset}")


async def over_h2(url, _):
    authority = url.removeprefix("ws://")
    host, port = authority.split(":")
    stream = Stream(*await asyncio.open_connection(host, port))
    await stream.begin(authority)
    check("200", stream.head.get(":status"), "200")
    names = {"sec-websocket-accept", "connection", "upgrade"} & set(stream.head)
    check("fields of HTTP/1", names, set())
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20]:
        body = os.urandom(size)
        await stream.send(Opcode.BINARY, body)
        frame = await stream.receive()
        check("an echo over HTTP/2", (frame.opcode, bytes(frame.data)), (Opcode.BINARY, body))
    await stream.send(Opcode.PING, b"over HTTP/2")
    frame = await stream.receive()
    check("a pong over HTTP/2", (frame.opcode, bytes(frame.data)), (Opcode.PONG, b"over HTTP/2"))
    await stream.send(Opcode.CLOSE, Close(4000, "enough").serialize(), end=True)
    frame = await stream.receive()
    check("the Close", Close.parse(frame.data).code, 4000)
    await stream.step(lambda: stream.ended)
    check("what the server heard", (await ended(), stream.reset), ((4000, "enough"), None))

    # Whoever breaks the rules is told so, and its stream ends in order: the connection goes on.
    stream = Stream(*await asyncio.open_connection(host, port))
    await stream.begin(authority)
    await stream.send_raw(b"\x81\x02hi")
    frame = await stream.receive()
    check("unmasked", Close.parse(frame.data).code, 1002)
    await stream.step(lambda: stream.ended)
    check("no reset", stream.reset, None)


SCENARIOS = {"echoes": echoes, "drains": drains, "h2": over_h2}


async def main():
    scenario, origin, engine, *more = sys.argv[1:]
    host, port = origin.split(":")
    async with serve(echo, host, int(port), max_size=None, ping_interval=None):
        await asyncio.wait_for(SCENARIOS[scenario](f"ws://{engine}", *more or [None]), 40)
    print("all well")


asyncio.run(main())
