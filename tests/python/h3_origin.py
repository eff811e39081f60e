"""aioquic as an origin of HTTP/3, for engines to ask.

usage: h3_origin.py CERT KEY PORT

`/bytes/N`: a pattern of N bytes; `/echo`: the content and the `x-kept` field of the request; `/trailers`: with some; other: a greeting.
"""

import asyncio
import sys

from aioquic.asyncio import serve
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration


def pattern(seed, count):
    """What the harness calls so."""
    state, out = (seed * 0x9E37_79B9_7F4A_7C15) & (2**64 - 1) | 1, bytearray()
    while len(out) < count:
        state ^= (state << 13) & (2**64 - 1)
        state ^= state >> 7
        state ^= (state << 17) & (2**64 - 1)
        out += state.to_bytes(8, "little")
    return bytes(out[:count])


class Origin(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http, self.requests = H3Connection(self._quic), {}

    def quic_event_received(self, event):
        for one in self.http.handle_event(event):
            if isinstance(one, HeadersReceived):
                self.requests.setdefault(one.stream_id, (dict(one.headers), bytearray()))
            elif isinstance(one, DataReceived):
                self.requests[one.stream_id][1].extend(one.data)
            else:
                continue
            if one.stream_ended:
                self.answer(one.stream_id, *self.requests.pop(one.stream_id))
        self.transmit()

    def answer(self, stream, fields, content):
        path, kept, trailers = fields[b":path"].decode(), fields.get(b"x-kept"), ()
        if path.startswith("/bytes/"):
            count = int(path.removeprefix("/bytes/"))
            body = pattern(count, count)
        elif path == "/echo":
            body = bytes(content)
        elif path == "/trailers":
            body, trailers = b"with trailers\n", [(b"x-sum", b"1")]
        else:
            body = b"hello\n"
        head = [(b":status", b"200"), (b"server", b"aioquic"), (b"content-length", str(len(body)).encode())]
        self.http.send_headers(stream, head + ([(b"x-kept", kept)] if kept else []))
        self.http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.http.send_headers(stream, trailers, end_stream=True)


async def main():
    cert, key, port = sys.argv[1:]
    configuration = QuicConfiguration(alpn_protocols=["h3"], is_client=False)
    configuration.load_cert_chain(cert, key)
    await serve("127.0.0.1", int(port), configuration=configuration, create_protocol=Origin)
    await asyncio.Future()


asyncio.run(main())
