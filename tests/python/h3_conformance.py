"""What an endpoint must reject, row by row: RFC 9114 §§4-7, RFC 9204, RFC 9218 §7. Each row names its section and the exact code.

usage: h3_conformance.py TABLE ADDRESS; the tables are `connections`, `messages` and `borne`. Prints `all well`.
"""

import asyncio
import sys

from h3wire import (
    CANCEL_PUSH, CONTROL, DATA, DECODER, ENCODER, GOAWAY, HEADERS, MAX_PUSH_ID, PRIORITY_UPDATE, PRIORITY_UPDATE_PUSH, PUSH, PUSH_PROMISE,
    SETTINGS, asking, check, frame, head, integer, prefixed, section, settings, wire,
)

STREAM_CREATION, CLOSED_CRITICAL, UNEXPECTED, FRAME_ERROR, ID_ERROR, SETTINGS_ERROR, MISSING_SETTINGS = (
    0x103, 0x104, 0x105, 0x106, 0x108, 0x109, 0x10A)
REQUEST_INCOMPLETE, MESSAGE_ERROR = 0x10D, 0x10E
DECOMPRESSION_FAILED, ENCODER_STREAM, DECODER_STREAM = 0x200, 0x201, 0x202

HTTP2_FRAMES = (0x2, 0x6, 0x8, 0x9)
REQUEST = head(*asking())
OPEN = head(*asking("/echo", "POST"))


def control(data, end=False):
    """Said on the control stream, behind our SETTINGS."""
    return lambda peer: peer.say(peer.control, data, end)


def greeting(data, end=False):
    """The whole control stream."""
    return lambda peer: peer.one_way(CONTROL, data, end)


def request(data, end=False):
    """A whole request's stream."""
    return lambda peer: peer.say(0, data, end)


def again(kind):
    """A second stream of which there is only one."""

    def act(peer):
        peer.one_way(kind)
        peer.one_way(kind)

    return act


def closed(kind):
    return lambda peer: peer.one_way(kind, end=True)


def told(kind, data):
    """Said on a stream of QPACK's."""
    return lambda peer: peer.one_way(kind, data)


async def reset_control(peer):
    # What is reset before it is read is a stream of no kind.
    await peer.serves("before")
    peer.reset(peer.control)


def stop_ours(peer):
    # The first stream of the server's in one direction is one that must stay (RFC 9114 6.2.1: it is its control stream).
    peer.stop(3)


def referring(prefix, line):
    """A request whose section refers to a table with one entry, by this prefix (RFC 9204 §4.5.1) and line."""

    def act(peer):
        peer.one_way(ENCODER, prefixed(5, 0x20, 1024) + prefixed(5, 0x40, 3) + b"x-a\x01b")
        peer.say(0, frame(HEADERS, prefix + section([*asking(), line])[2:]))

    return act


# An integer of 70 bits in a string's length.
ENDLESS = b"\xff" * 10 + b"\x01"

# Section, what is done, the code of CONNECTION_CLOSE.
CONNECTIONS = [
    ("4.1 DATA before HEADERS", request(frame(DATA, b"x")), UNEXPECTED),
    ("4.1 HEADERS behind trailers", request(OPEN + head(("x-a", "b")) + head(("x-a", "b"))), UNEXPECTED),
    ("4.1 DATA behind trailers", request(OPEN + head(("x-a", "b")) + frame(DATA, b"x")), UNEXPECTED),
    ("6.2.1 a second control stream", lambda peer: peer.one_way(CONTROL), STREAM_CREATION),
    ("6.2.1 a control stream that ends", control(b"", end=True), CLOSED_CRITICAL),
    ("6.2.1 a control stream that is reset", reset_control, CLOSED_CRITICAL),
    ("6.2.1 our control stream is not wanted", stop_ours, CLOSED_CRITICAL),
    ("6.2.2 a client pushes", lambda peer: peer.one_way(PUSH, integer(0)), STREAM_CREATION),
    ("7.1 a frame that its stream cuts off", request(frame(HEADERS, section(asking()))[:-3], end=True), FRAME_ERROR),
    ("7.1 content that its stream cuts off", request(OPEN + frame(DATA, b"content")[:-3], end=True), FRAME_ERROR),
    ("7.1 GOAWAY that is longer than its identifier", control(frame(GOAWAY, integer(0) + b"x")), FRAME_ERROR),
    ("7.1 GOAWAY that is shorter than its identifier", control(frame(GOAWAY, b"\x40")), FRAME_ERROR),
    ("7.1 MAX_PUSH_ID without one", control(frame(MAX_PUSH_ID)), FRAME_ERROR),
    ("7.1 CANCEL_PUSH without one", control(frame(CANCEL_PUSH)), FRAME_ERROR),
    ("7.1 CANCEL_PUSH that is longer than its identifier", control(frame(CANCEL_PUSH, integer(0) + b"x")), FRAME_ERROR),
    ("7.1 a frame's type that its stream cuts off", request(b"\x40", end=True), FRAME_ERROR),
    ("7.1 a frame's length that its stream cuts off", request(integer(HEADERS) + b"\x40", end=True), FRAME_ERROR),
    ("7.2.1 DATA on the control stream", control(frame(DATA, b"x")), UNEXPECTED),
    ("7.2.2 HEADERS on the control stream", control(REQUEST), UNEXPECTED),
    ("7.2.3 CANCEL_PUSH on a request's stream", request(frame(CANCEL_PUSH, integer(0))), UNEXPECTED),
    ("7.2.3 CANCEL_PUSH of what nobody promised", control(frame(CANCEL_PUSH, integer(7))), ID_ERROR),
    ("7.2.4 a second SETTINGS", control(settings()), UNEXPECTED),
    ("7.2.4 SETTINGS on a request's stream", request(settings()), UNEXPECTED),
    ("7.2.5 PUSH_PROMISE on the control stream", control(frame(PUSH_PROMISE, integer(0) + section(asking()))), UNEXPECTED),
    ("7.2.5 a client promises a push", request(frame(PUSH_PROMISE, integer(0) + section(asking()))), UNEXPECTED),
    ("7.2.6 GOAWAY on a request's stream", request(frame(GOAWAY, integer(0))), UNEXPECTED),
    ("5.2 GOAWAY that goes up", control(frame(GOAWAY, integer(4)) + frame(GOAWAY, integer(8))), ID_ERROR),
    ("7.2.7 MAX_PUSH_ID on a request's stream", request(frame(MAX_PUSH_ID, integer(0))), UNEXPECTED),
    ("7.2.7 MAX_PUSH_ID that goes down", control(frame(MAX_PUSH_ID, integer(9)) + frame(MAX_PUSH_ID, integer(8))), ID_ERROR),
    *((f"7.2.8 HTTP/2's frame {kind:#x} on the control stream", control(frame(kind, bytes(4))), UNEXPECTED) for kind in HTTP2_FRAMES),
    *((f"7.2.8 HTTP/2's frame {kind:#x} on a request's stream", request(REQUEST + frame(kind, bytes(4))), UNEXPECTED) for kind in HTTP2_FRAMES),
    ("RFC 9218 7.2 PRIORITY_UPDATE on a request's stream", request(REQUEST + frame(PRIORITY_UPDATE, integer(0) + b"u=1")), UNEXPECTED),
    ("RFC 9218 7.2 PRIORITY_UPDATE of no request", control(frame(PRIORITY_UPDATE, integer(2) + b"u=1")), ID_ERROR),
    ("RFC 9218 7.2 PRIORITY_UPDATE of a push that is none", control(frame(PRIORITY_UPDATE_PUSH, integer(0) + b"u=1")), ID_ERROR),
    ("RFC 9204 4.2 a second encoder stream", again(ENCODER), STREAM_CREATION),
    ("RFC 9204 4.2 a second decoder stream", again(DECODER), STREAM_CREATION),
    ("RFC 9204 4.2 an encoder stream that ends", closed(ENCODER), CLOSED_CRITICAL),
    ("RFC 9204 4.2 a decoder stream that ends", closed(DECODER), CLOSED_CRITICAL),
    ("RFC 9204 3.1 a static entry that there is not", request(frame(HEADERS, section([*asking(), prefixed(6, 0xC0, 99)]))), DECOMPRESSION_FAILED),
    ("RFC 9204 2.2.3 an entry that its prefix does not require", request(frame(HEADERS, section([*asking(), prefixed(6, 0x80, 0)]))),
     DECOMPRESSION_FAILED),
    ("RFC 9204 2.2.3 an entry behind the base that is not there", referring(prefixed(8, 0, 2) + prefixed(7, 0x80, 0), prefixed(4, 0x10, 5)), DECOMPRESSION_FAILED),
    ("RFC 9204 2.2.3 an entry before the base that is not there", referring(prefixed(8, 0, 2) + prefixed(7, 0, 0), prefixed(6, 0x80, 7)), DECOMPRESSION_FAILED),
    ("RFC 9204 2.2.3 the name of an entry that is not there", referring(prefixed(8, 0, 2) + prefixed(7, 0, 0), prefixed(4, 0x40, 7) + b"\x01x"), DECOMPRESSION_FAILED),
    ("RFC 9204 4.5.1.2 a base below zero", referring(prefixed(8, 0, 2) + prefixed(7, 0x80, 1), prefixed(6, 0xC0, 1)), DECOMPRESSION_FAILED),
    ("RFC 9204 4.1.1 an integer of more than 62 bits", request(frame(HEADERS, section([*asking(), b"\x27" + ENDLESS]))), DECOMPRESSION_FAILED),
    ("RFC 9204 4.5.1.1 a required count beyond any", request(frame(HEADERS, section(asking(), required=100_000))), DECOMPRESSION_FAILED),
    ("RFC 9204 4.5.1 a section without its prefix", request(frame(HEADERS, b"\0")), DECOMPRESSION_FAILED),
    ("RFC 9204 4.1.2 a string that its section cuts off", request(frame(HEADERS, section(asking()) + b"\x23x")), DECOMPRESSION_FAILED),
    ("RFC 7541 5.2 padding that is none", request(frame(HEADERS, section([*asking(), b"\x23x-a\x81\x18"]))), DECOMPRESSION_FAILED),
    ("RFC 9204 4.3.1 a capacity beyond the one allowed", told(ENCODER, prefixed(5, 0x20, 1 << 30)), ENCODER_STREAM),
    ("RFC 9204 4.3.2 the name of a static entry that there is not", told(ENCODER, prefixed(6, 0xC0, 99) + b"\x01x"), ENCODER_STREAM),
    ("RFC 9204 4.1.1 an integer of more than 62 bits", told(ENCODER, b"\x5f" + ENDLESS), ENCODER_STREAM),
    ("RFC 9204 4.1.1 an integer of more than 62 bits", told(DECODER, ENDLESS), DECODER_STREAM),
    ("RFC 9204 4.3.2 the name of an entry that there is not", told(ENCODER, prefixed(5, 0x20, 100) + prefixed(6, 0x80, 3) + b"\x01x"), ENCODER_STREAM),
    ("RFC 9204 4.3.4 a copy of nothing", told(ENCODER, prefixed(5, 0x20, 100) + prefixed(5, 0, 0)), ENCODER_STREAM),
    ("RFC 9204 3.2.2 an entry larger than the table", told(ENCODER, prefixed(5, 0x20, 40) + b"\x43x-a" + prefixed(7, 0, 20) + bytes(20)),
     ENCODER_STREAM),
    ("RFC 9204 4.4.1 an acknowledgment of nothing", told(DECODER, prefixed(7, 0x80, 0)), DECODER_STREAM),
    ("RFC 9204 4.4.3 an increment of nothing", told(DECODER, prefixed(6, 0, 0)), DECODER_STREAM),
    ("RFC 9204 4.4.3 an increment beyond what was said", told(DECODER, prefixed(6, 0, 50)), DECODER_STREAM),
]

# The same for a connection that has not said its SETTINGS.
UNGREETED = [
    ("6.2.1 a control stream that does not begin with SETTINGS", greeting(frame(GOAWAY, integer(0))), MISSING_SETTINGS),
    ("6.2.1 one that begins with a frame that nobody knows", greeting(frame(0x21, b"x")), MISSING_SETTINGS),
    ("7.2.4 one that ends at once", greeting(b"", end=True), CLOSED_CRITICAL),
    ("7.2.4 a setting twice", greeting(settings((6, 100), (6, 100))), SETTINGS_ERROR),
    *((f"7.2.4.1 HTTP/2's setting {name}", greeting(settings((name, 1))), SETTINGS_ERROR) for name in (2, 3, 4, 5)),
    ("RFC 8441 3 a switch that is neither on nor off", greeting(settings((8, 2))), SETTINGS_ERROR),
    ("7.1 a setting without its value", greeting(frame(SETTINGS, integer(6))), FRAME_ERROR),
]


async def connections(address):
    for greeted, rows in ((True, CONNECTIONS), (False, UNGREETED)):
        for what, act, code in rows:
            async with wire(address, greeted) as peer:
                # Our side of the streams is there from now on.
                await peer.until(what, lambda: 3 in peer.streams)
                acted = act(peer)
                if acted is not None and not isinstance(acted, int):
                    await acted
                got = await peer.until_closed(what)
                check(what, hex(got), hex(code))


def but(name, *replaced):
    """The fields of a request with one of them replaced, or left out."""
    return [line for field in asking() for line in ([field] if field[0] != name else replaced)]


# What is malformed on its stream alone: MESSAGE_ERROR, or a response that says so (RFC 9114 §4.1.2).
MESSAGES = [
    ("4.2 an uppercase name", asking("/", "GET", ("X-A", "b"))),
    ("4.2 a name with a space", asking("/", "GET", ("x a", "b"))),
    ("4.2 a name with a colon", asking("/", "GET", ("x:a", "b"))),
    ("4.2 an empty name", asking("/", "GET", ("", "b"))),
    ("4.2 a line feed in a value", asking("/", "GET", ("x-a", "b\nc: d"))),
    ("4.2 a carriage return in a value", asking("/", "GET", ("x-a", "b\rc"))),
    ("4.2 a NUL in a value", asking("/", "GET", ("x-a", "b\0c"))),
    *((f"4.2 the field {name}", asking("/", "GET", (name, value))) for name, value in [
        ("connection", "close"), ("keep-alive", "1"), ("proxy-connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "websocket")]),
    ("4.2 TE with more than trailers", asking("/", "GET", ("te", "gzip"))),
    ("4.3 a pseudo-field that nobody knows", asking("/", "GET", (":x", "b"))),
    ("4.3 a response's pseudo-field", asking("/", "GET", (":status", "200"))),
    ("4.3 a pseudo-field behind a field", [("x-a", "b"), *asking()]),
    ("4.3.1 no method", but(":method")),
    ("4.3.1 no scheme", but(":scheme")),
    ("4.3.1 no path", but(":path")),
    ("4.3.1 an empty path", but(":path", (":path", ""))),
    ("4.3.1 two methods", but(":method", (":method", "GET"), (":method", "GET"))),
    ("4.3.1 two paths", but(":path", (":path", "/"), (":path", "/x"))),
    ("4.3.1 no authority", but(":authority")),
    ("4.3.1 an empty authority", but(":authority", (":authority", ""))),
    ("4.3.1 an authority that Host contradicts", asking("/", "GET", ("host", "elsewhere"))),
    ("4.4 CONNECT with a path", but(":method", (":method", "CONNECT"))),
    ("4.4 CONNECT with a scheme", [(":method", "CONNECT"), (":scheme", "https"), (":authority", "localhost")]),
    ("4.4 CONNECT without an authority", [(":method", "CONNECT")]),
    ("RFC 9220 3 a protocol without CONNECT", asking("/", "GET")[:4] + [(":protocol", "websocket")]),
    ("RFC 9220 3 a protocol without a path", [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "localhost")]),
    ("4.1.2 a length that is none", asking("/echo", "POST", ("content-length", "x"))),
    ("4.1.2 two lengths", asking("/echo", "POST", ("content-length", "1"), ("content-length", "2"))),
]

# The same for what follows a head: the bytes of the stream, and the codes that are right.
CONTENTS = [
    ("4.1.2 less content than promised", head(*asking("/echo", "POST", ("content-length", "5"))) + frame(DATA, b"abc"), [MESSAGE_ERROR]),
    ("4.1.2 more content than promised", head(*asking("/echo", "POST", ("content-length", "2"))) + frame(DATA, b"abc"), [MESSAGE_ERROR]),
    ("4.3 a pseudo-field in trailers", OPEN + frame(DATA, b"abc") + head((":path", "/")), [MESSAGE_ERROR]),
    ("4.2 an uppercase name in trailers", OPEN + frame(DATA, b"abc") + head(("X-A", "b")), [MESSAGE_ERROR]),
    ("4.1 a stream without a request", b"", [REQUEST_INCOMPLETE]),
    ("4.1 a stream with what nobody knows", frame(0x21, b"x"), [REQUEST_INCOMPLETE]),
]


async def messages(address):
    """All on one connection: whatever is wrong with a stream, the next one is served."""
    async with wire(address) as peer:
        for what, fields in MESSAGES:
            number = peer.ask(*fields)
            stream = peer.stream(number)
            await peer.until(what, lambda: stream.over)
            if stream.reset is None:
                check(what, (await peer.answer(number)).status, 400)
            else:
                check(what, hex(stream.reset), hex(MESSAGE_ERROR))
            await peer.serves(what)
        for what, data, codes in CONTENTS:
            number = peer._quic.get_next_available_stream_id()
            stream = peer.stream(number)
            peer.say(number, data, end=True)
            await peer.until(what, lambda: stream.over)
            if stream.reset is None or stream.reset not in codes:
                sys.exit(f"{what}: {stream.reset} is none of {codes}; {bytes(stream.data)[:200]!r}")
            await peer.serves(what)
        # 4.2.2: what is too large is answered, whether it is one field or many.
        for what, more in [("one field", [("x-a", "b" * 60_000)]), ("many", [("x-a", "b" * 600)] * 100), ("beyond what is read", [("x-a", "b" * 300_000)])]:
            answer = await peer.answer(peer.ask(*asking("/", "GET", *more)))
            check(f"4.2.2 a field section that is too large: {what}", answer.status, 431)
            await peer.serves(what)


async def borne(address):
    """What an endpoint has to bear (RFC 9114 §9, RFC 9204)."""
    async with wire(address, greeted=False) as peer:
        # Settings that nobody knows (7.2.4.1), and frames (7.2.8) between ours.
        peer.greet((0x21 + 0x1F * 5, 7), (6, 1 << 16))
        peer.say(peer.control, frame(0x21, b"x" * 100) + frame(MAX_PUSH_ID, integer(3)) + frame(GOAWAY, integer(0)))
        await peer.serves("frames that nobody knows on the control stream")
        grease = frame(0x21 + 0x1F * 9, b"anything")
        number = peer._quic.get_next_available_stream_id()
        peer.say(number, grease + OPEN + grease + frame(DATA, b"con") + grease + frame(DATA) + frame(DATA, b"tent") + grease, end=True)
        check("frames that nobody knows within a request", (await peer.answer(number)).body, b"content")
        # Streams of a kind that nobody knows (6.2.3): they may be refused, and nothing more.
        for kind in (0x21, 0x21 + 0x1F * 3, 0x54):
            peer.one_way(kind, b"whatever", end=True)
        await peer.serves("streams that nobody knows")
        # 6.2: one that ends, or is reset, before it says of what kind it is.
        for how in ("ended", "cut off", "reset"):
            number = peer._quic.get_next_available_stream_id(is_unidirectional=True)
            peer.say(number, b"" if how == "ended" else b"\x40", end=how != "reset")
            if how == "reset":
                peer.reset(number)
            await peer.serves(f"a stream without a kind that is {how}")
        # Byte by byte, each in a packet of its own.
        number = peer._quic.get_next_available_stream_id()
        for byte in OPEN + frame(DATA, b"slowly"):
            peer.say(number, bytes([byte]))
            await asyncio.sleep(0)
        peer.say(number, end=True)
        check("byte by byte", (await peer.answer(number)).body, b"slowly")
        # RFC 9204 2.1.2: a section that comes before the entries that it needs waits for them.
        number = peer._quic.get_next_available_stream_id()
        peer.say(number, frame(HEADERS, section([*asking("/head"), prefixed(6, 0x80, 0)], required=2, base=0)), end=True)
        await asyncio.sleep(0.2)
        check("a section that waits", (bytes(peer.stream(number).data), peer.stream(number).over), (b"", False))
        peer.one_way(ENCODER, prefixed(5, 0x20, 1024) + prefixed(5, 0x40, 8) + b"x-waited" + b"\x03for")
        check("an entry that came late", b"x-waited: for" in (await peer.answer(number)).body, True)
        # 9204 4.4.1: it was acknowledged.
        acknowledged = lambda: any(stream.data[:1] == b"\x03" and stream.data.endswith(prefixed(7, 0x80, number)) for stream in peer.streams.values())
        await peer.until("the section is acknowledged", acknowledged)
        # 4.3.1: `host` does for :authority.
        answer = await peer.answer(peer.ask(*but(":authority", *[]), ("host", "localhost")))
        check("Host instead of :authority", answer.status, 200)
        answer = await peer.answer(peer.ask(*asking("/head", "GET", ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"))))
        check("cookies are joined (4.2.1)", b"cookie: a=1; b=2\r\n" in answer.body.lower(), True)
        check("the connection", peer.closed, None)


async def main():
    table, address = sys.argv[1:]
    await {"connections": connections, "messages": messages, "borne": borne}[table](address)
    print("all well")


asyncio.run(main())
