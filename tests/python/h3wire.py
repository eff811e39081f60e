"""HTTP/3 by hand (RFC 9114), for the scripts beside this one: aioquic carries the streams, and what stands on them is said and read here, byte by
byte. Nothing of what a client must not say is refused, and no field section of ours uses QPACK's dynamic table unless a script does it itself.
"""

import asyncio
import contextlib
import ssl
import sys

import pylsqpack
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

PATIENCE = 20

CONTROL, PUSH, ENCODER, DECODER = 0, 1, 2, 3
DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0, 1, 3, 4, 5, 7, 13
PRIORITY_UPDATE, PRIORITY_UPDATE_PUSH = 0xF0700, 0xF0701


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r:.300} is not {wanted!r:.300}")


def integer(value):
    return encode_uint_var(value)


def frame(kind, payload=b""):
    return integer(kind) + integer(len(payload)) + payload


def settings(*entries):
    return frame(SETTINGS, b"".join(integer(name) + integer(value) for name, value in entries))


def prefixed(bits, first, value):
    """An integer with a prefix of so many bits, behind the other bits of its first byte (RFC 7541 §5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    encoded, value = [first | most], value - most
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def literal(name, value):
    """A field line with a literal name (RFC 9204 §4.5.6), without Huffman's code."""
    return prefixed(3, 0x20, len(name)) + name + prefixed(7, 0, len(value)) + value


def section(fields, required=0, base=0):
    """An encoded field section that refers to nothing unless told so by its prefix."""
    lines = b"".join(line if isinstance(line, bytes) else literal(*(to_bytes(part) for part in line)) for line in fields)
    return prefixed(8, 0, required) + prefixed(7, 0, base) + lines


def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def head(*fields):
    return frame(HEADERS, section(fields))


def asking(path="/", method="GET", *more):
    """The fields of a request."""
    return [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path), *more]


class Stream:
    """What came on a stream, and how it ended."""

    def __init__(self):
        self.data, self.ended, self.reset, self.stopped = bytearray(), False, None, None

    @property
    def over(self):
        return self.ended or self.reset is not None

    def frames(self):
        """Those that are here as a whole."""
        buffer, found = Buffer(data=bytes(self.data)), []
        with contextlib.suppress(BufferReadError):
            while not buffer.eof():
                kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
                found.append((kind, buffer.pull_bytes(length)))
        return found


class Answer:
    """A response that is complete."""

    def __init__(self, stream, number):
        self.interim, self.fields, self.body, self.trailers = [], None, b"", []
        decoder = pylsqpack.Decoder(0, 0)
        for kind, payload in stream.frames():
            if kind == DATA:
                self.body += payload
            elif kind == HEADERS:
                _, fields = decoder.feed_header(number, payload)
                fields = [(name.decode(), value.decode("latin-1")) for name, value in fields]
                if self.fields is not None:
                    self.trailers = fields
                elif dict(fields)[":status"].startswith("1"):
                    self.interim.append(fields)
                else:
                    self.fields = fields

    @property
    def status(self):
        return int(dict(self.fields)[":status"])

    def field(self, name):
        return dict(self.fields).get(name)


class Wire(QuicConnectionProtocol):
    """A connection, and all that came on it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.streams, self.changed, self.closed, self.control = {}, asyncio.Event(), None, None
        self.resumed = self.early = False

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            stream = self.stream(event.stream_id)
            stream.data += event.data
            stream.ended |= event.end_stream
        elif isinstance(event, events.StreamReset):
            self.stream(event.stream_id).reset = event.error_code
        elif isinstance(event, events.StopSendingReceived):
            self.stream(event.stream_id).stopped = event.error_code
        elif isinstance(event, events.ConnectionTerminated):
            self.closed = (event.error_code, event.reason_phrase)
        elif isinstance(event, events.HandshakeCompleted):
            self.resumed, self.early = event.session_resumed, event.early_data_accepted
        self.changed.set()

    def stream(self, number):
        return self.streams.setdefault(number, Stream())

    async def until(self, what, holds, patience=PATIENCE):
        """Waits for something, as long as the connection lives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not holds():
                    if self.closed:
                        break
                    self.changed.clear()
                    await self.changed.wait()
        if not holds():
            sys.exit(f"{what}: not so; the connection: {self.closed}")

    async def until_closed(self, what, patience=PATIENCE):
        await self.until(what, lambda: self.closed, patience)
        return self.closed[0]

    def say(self, number, data=b"", end=False):
        self._quic.send_stream_data(number, data, end)
        self.transmit()

    def reset(self, number, code=0x10C):
        self._quic.reset_stream(number, code)
        self.transmit()

    def stop(self, number, code=0x10C):
        self._quic.stop_stream(number, code)
        self.transmit()

    def one_way(self, kind, data=b"", end=False):
        """Opens a stream in one direction."""
        number = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self.say(number, integer(kind) + data, end)
        return number

    def greet(self, *entries):
        self.control = self.one_way(CONTROL, settings(*entries))

    def ask(self, *fields, body=b"", trailers=None, end=True):
        """A request: of these fields, or of those of a plain GET."""
        number = self._quic.get_next_available_stream_id()
        data = head(*(fields or asking()))
        if body:
            data += frame(DATA, body)
        if trailers:
            data += head(*trailers)
        self.say(number, data, end)
        return number

    async def answer(self, number, patience=PATIENCE):
        stream = self.stream(number)
        await self.until(f"an answer on {number}", lambda: stream.over, patience)
        if stream.reset is not None:
            sys.exit(f"stream {number} was reset: {stream.reset:#x}")
        return Answer(stream, number)

    async def serves(self, what):
        """A plain request is answered."""
        answer = await self.answer(self.ask())
        check(f"{what}: a further request", (answer.status, answer.body), (200, b"hello\n"))


def configuration(**more):
    return QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, server_name="localhost", **more)


@contextlib.asynccontextmanager
async def wire(address, greeted=True, config=None, protocol=Wire, **more):
    """A connection, on which our SETTINGS have been said if it is to be `greeted`."""
    host, port = address.rsplit(":", 1)
    async with connect(host.strip("[]"), int(port), configuration=config or configuration(), create_protocol=protocol, **more) as connection:
        if greeted:
            connection.greet()
        yield connection
