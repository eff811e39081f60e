"""Attacks on HTTP/3 and QUIC: who makes one is cut off with the right code, and costs the engine little memory while it lasts. Prints `all well`.

usage: h3_attacks.py ATTACK ADDRESS PID
"""

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import socket
import struct
import sys
import time

from aioquic.quic.connection import QuicConnection
from h3wire import (
    DATA, ENCODER, HEADERS, PRIORITY_UPDATE, Wire, asking, check, configuration, frame, head, integer, prefixed, section, wire,
)

NO_ERROR, EXCESSIVE_LOAD, DECOMPRESSION_FAILED = 0x100, 0x107, 0x200

# No attack costs the engine more.
GROWTH_MAX = 24 << 20
# Of Linux (asm-generic/socket.h, linux/sockios.h), where Python does not know them.
SO_TIMESTAMPNS, SIOCGSTAMPNS = 35, 0x8907
ROUNDS_MAX = 30_000


class Attacker(Wire):
    """A client that counts on nothing, and keeps nothing of what it is told."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.held = {}

    def next(self):
        return self._quic.get_next_available_stream_id()

    def once(self, what, make):
        if what not in self.held:
            self.held[what] = make()
        return self.held[what]

    def request(self, data):
        number = self.next()
        self.say(number, data)
        return number

    def request_whole(self, data):
        number = self.next()
        self.say(number, data, end=True)
        return number

    def is_cut(self):
        """The other side has closed the connection, which is told (`closed`) only when nothing of it can be under way any more (RFC 9000 §10.2.2)."""
        return self.closed or self._quic._close_event is not None

    async def room(self):
        """Waits for the engine's leave to open a stream: what is said without it is another offence."""
        full = lambda: self._quic._local_next_stream_id_bidi // 4 >= self._quic._remote_max_streams_bidi
        # That it has come is no event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while full() and not self.closed:
                    await asyncio.sleep(0.002)


def attacker(address, **more):
    return wire(address, protocol=Attacker, **more)


def state(thread):
    """What a thread is doing, in the kernel's letter."""
    with open(f"/proc/{thread}/stat") as line:
        return line.read().rsplit(")", 1)[1].split()[0]


class Process:
    """The engine: what memory it has for itself, how much more that is than at the start, and a pause of it."""

    def __init__(self, pid):
        self.pid = int(pid)
        self.path = f"/proc/{pid}/smaps_rollup"
        self.before = self.now()

    def now(self):
        with open(self.path) as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))

    @contextlib.contextmanager
    def stopped(self):
        """For this time it does nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            while any(state(thread) != "T" for thread in os.listdir(f"/proc/{self.pid}/task")):
                time.sleep(0.001)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def grown(self):
        return max(self.now() - self.before, 0)

    def check(self, what, most=GROWTH_MAX):
        grown = self.grown()
        if grown > most:
            sys.exit(f"{what}: {grown} bytes more")


SLOW = head(*asking("/slow/1000"))
BEGUN = head(*asking("/echo", "POST"))


def rapid_reset(peer, _):
    """CVE-2023-44487: requests that are given up at once."""
    number = peer.next()
    peer.say(number, SLOW)
    peer.reset(number)


def stopped(peer, _):
    """The same by STOP_SENDING."""
    number = peer.next()
    peer.say(number, SLOW, end=True)
    peer.stop(number)


def requests_that_are_none(peer, _):
    """CVE-2025-8671: streams that the engine is made to reset."""
    peer.say(peer.next(), head((":method", "GET")), end=True)


def contradictions(peer, _):
    peer.say(peer.next(), head(*asking("/slow/1000", "POST", ("content-length", "1"))) + frame(DATA, b"too much"), end=True)


def empty_data(peer, _):
    peer.say(peer.once("stream", lambda: peer.request(BEGUN)), frame(DATA) * 10)


def tiny_data(peer, _):
    peer.say(peer.once("stream", lambda: peer.request(BEGUN)), frame(DATA, b"x") * 50)


def priorities(peer, at):
    peer.say(peer.control, frame(PRIORITY_UPDATE, integer(at % 50 * 4) + b"u=%d" % (at % 8)) * 20)


def copies(peer, _):
    """RFC 9204 §4.3.4: a byte that copies as much as the table holds."""
    entry = prefixed(5, 0x20, 4096) + prefixed(5, 0x40, 3) + b"x-a" + prefixed(7, 0, 1900) + bytes(1900)
    peer.say(peer.once("encoder", lambda: peer.one_way(ENCODER, entry)), prefixed(5, 0, 0) * 100)


FLOODS = [rapid_reset, stopped, requests_that_are_none, contradictions, empty_data, tiny_data, priorities, copies]


async def floods(address, memory):
    """What is said over and over: the connection is cut off."""
    for flood in FLOODS:
        async with attacker(address) as peer:
            rounds = 0
            while not peer.is_cut():
                if rounds >= ROUNDS_MAX:
                    sys.exit(f"{flood.__name__}: it goes on for ever")
                for _ in range(20):
                    await peer.room()
                    flood(peer, rounds)
                    rounds += 1
                await asyncio.sleep(0)
                memory.check(flood.__name__)
            await peer.until_closed("the end")
            # Who owes much is asked to go (GOAWAY) before it is cut off, and may be done with it by then.
            check(f"{flood.__name__}, after {rounds} rounds: {peer.closed}", peer.closed[0] in (EXCESSIVE_LOAD, NO_ERROR), True)
            print(flood.__name__, rounds, flush=True)
        memory.check(flood.__name__)


async def breath(address, memory):
    """Whole requests, each given up in the datagram that brings it: by STOP_SENDING, and by a reset of what is complete as well (RFC 9114 §4.1.1)."""
    for resets in (False, True):
        async with attacker(address) as peer:
            for _ in range(150):
                await peer.room()
                number = peer.next()
                peer._quic.send_stream_data(number, SLOW, not resets)
                peer._quic.stop_stream(number, 0x10C)
                if resets:
                    peer._quic.reset_stream(number, 0x10C)
                peer.transmit()
            await peer.serves("after requests that were given up")
        memory.check("given up in a breath")


async def moment(address, memory):
    """Whole requests, by twenties, each given up when it has been on its way for a moment."""
    rounds = 0
    for _ in range(3):
        async with attacker(address) as peer:
            while not peer.is_cut():
                numbers = []
                for _ in range(20):
                    await peer.room()
                    numbers.append(peer.request_whole(SLOW))
                await asyncio.sleep(0.005)
                for number in numbers:
                    peer.stop(number)
                rounds += 20
            await peer.until_closed("the end")
            check("the end", peer.closed[0] in (EXCESSIVE_LOAD, NO_ERROR), True)
    check(f"{rounds} requests are enough to be cut off", rounds > 400, True)
    memory.check("given up in a moment")


async def bombs(address, memory):
    """CVE-2016-6581 and its like: small sections that say much, by reference to one long entry."""
    for count in range(60):
        async with attacker(address) as peer:
            peer.one_way(ENCODER, prefixed(5, 0x20, 4096) + prefixed(5, 0x40, 3) + b"x-a" + prefixed(7, 0, 3900) + b"x" * 3900)
            reference = prefixed(6, 0x80, 0)
            for number in [peer.request(frame(HEADERS, section([*asking(), *[reference] * 10_000], required=2))) for _ in range(4)]:
                stream = peer.stream(number)
                await peer.until("it is refused", lambda: stream.over or stream.data)
                if stream.reset is None:
                    await peer.until("an answer", lambda: stream.over)
                    check("refused", (await peer.answer(number)).status in (400, 431), True)
        if count % 10 == 9:
            memory.check("QPACK bombs")


async def blocked(address, memory):
    """Sections that wait for entries which never come, as many as are allowed and as long as they may be; then one more."""
    waiting = frame(HEADERS, section([*asking(), ("x-a", "b" * 15_000), prefixed(6, 0x80, 0)], required=2))
    allowed = 0
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(attacker(address)) for _ in range(8)]
        for peer in peers:
            await peer.until("SETTINGS", lambda: any(stream.data.startswith(b"\0\x04") for stream in peer.streams.values()))
            control = next(stream for stream in peer.streams.values() if stream.data.startswith(b"\0\x04"))
            del control.data[:1]
            allowed = blocked_streams(control.frames()[0][1])
            for _ in range(allowed):
                peer.request(waiting)
            await peer.serves("beside blocked ones")
        memory.check("blocked streams")
        for peer in peers:
            peer.request(waiting)
            check("one more", hex(await peer.until_closed("one more")), hex(DECOMPRESSION_FAILED))
    print(allowed, "allowed")


def blocked_streams(payload):
    """SETTINGS_QPACK_BLOCKED_STREAMS."""
    values, at = [], 0
    while at < len(payload):
        length = 1 << (payload[at] >> 6)
        values.append(int.from_bytes(payload[at : at + length], "big") & ((1 << (8 * length - 2)) - 1))
        at += length
    return dict(zip(values[::2], values[1::2]))[7]


# What may be held for an answer that is not read: 64 KiB that are not sent, and as much again on its way from the origin, each in a buffer of its
# class.
HELD_MAX = 256 << 10


async def hoarders(address, memory):
    """Many large answers, and no window for them."""
    config = lambda: configuration(max_stream_data=600)
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(attacker(address, config=config())) for _ in range(4)]
        numbers = {}
        for peer in peers:
            # The windows stay as they are, whatever comes.
            peer._quic._write_stream_limits = lambda *_, **__: None
            peer._quic._write_connection_limits = lambda *_, **__: None
            numbers[peer] = []
            # Fewer in all than may wait to be accepted by an origin whose listener holds 128: each gets a connection of its own there.
            for _ in range(25):
                numbers[peer].append(peer.next())
                peer.say(numbers[peer][-1], head(*asking("/bytes/1000000")), end=True)
        for peer, asked in numbers.items():
            await peer.until("all heads", lambda: all(len(peer.stream(number).data) > 100 for number in asked), 40)
        await asyncio.sleep(0.5)
        held = sum(len(asked) for asked in numbers.values())
        memory.check(f"{held} answers that nobody reads", held * HELD_MAX)
        print(memory.grown() // held, "bytes for each answer that is not read")


# What a connection may have under way to us: its window (1 MiB), the buffers in which that waits, and what the origin's socket takes of it.
UPLOADED_MAX = 3 << 20


async def uploads(address, memory):
    """Many uploads for an origin that does not read: no more of them is taken than the windows say, and those do not go up."""
    content = frame(DATA, bytes(16_000)) * 40
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(attacker(address)) for _ in range(4)]
        for peer in peers:
            for _ in range(20):
                peer.request(head(*asking("/never", "POST")) + content)
        before = None
        while before != (before := [peer._quic._remote_max_data for peer in peers]):
            await asyncio.sleep(1)
            memory.check("uploads that nobody reads", len(peers) * UPLOADED_MAX + (4 << 20))
        print(before, "bytes allowed,", memory.grown() // len(peers), "bytes for each connection")


async def slow_heads(address, memory):
    """A head that comes byte by byte, and one that does not come: neither is waited for."""
    for trickling in (True, False):
        async with contextlib.AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(attacker(address)) for _ in range(20)]
            numbers = {peer: peer.request(integer(HEADERS) + integer(3_000) + b"\0\0") for peer in peers}
            begun = time.monotonic()
            while not all(peer.closed for peer in peers):
                if time.monotonic() - begun > 15:
                    sys.exit("heads that do not come are waited for")
                for peer, number in numbers.items():
                    if trickling and not peer.closed:
                        peer.say(number, b"\x21")
                await asyncio.sleep(0.2)
            check("the end", {hex(peer.closed[0]) for peer in peers}, {"0x100"})
        memory.check("slow heads")


class Far(Attacker):
    """Datagrams take a while, in both directions."""

    DELAY = 0.25

    def connection_made(self, transport):
        super().connection_made(FarTransport(transport))

    def datagram_received(self, data, addr):
        asyncio.get_running_loop().call_later(self.DELAY, super().datagram_received, data, addr)


class FarTransport:
    def __init__(self, transport):
        self.transport = transport

    def sendto(self, data, addr):
        asyncio.get_running_loop().call_later(Far.DELAY, self.transport.sendto, data, addr)

    def __getattr__(self, name):
        return getattr(self.transport, name)


class Deaf(Attacker):
    """Misses what is said in answer to a fault of its, for the first time, and goes on."""

    missed = None

    def datagram_received(self, data, addr):
        if self.missed == 0:
            self.missed = 1
            self._quic.send_ping(1)
            self.transmit()
        else:
            super().datagram_received(data, addr)


async def faults(address, _):
    """DATA on the control stream: by somebody who is far away, and by one who does not hear the first time that it was the end."""
    for protocol in (Deaf, Far):
        async with contextlib.AsyncExitStack() as stack:
            peer = await stack.enter_async_context(wire(address, protocol=protocol))
            await peer.serves("before the fault")
            await asyncio.sleep(0.1)
            peer.missed = 0
            peer.say(peer.control, frame(DATA))
            begun = time.monotonic()
            while not peer.is_cut():
                check("the end is told", time.monotonic() - begun < 10, True)
                await asyncio.sleep(0.01)
            check("the end", hex(peer._quic._close_event.error_code), "0x105")
            check("it has missed something", peer.missed, 1 if protocol is Deaf else 0)
            if protocol is Far:
                # Nothing that comes later matters.
                print("all well", flush=True)
                os._exit(0)


class Withholding:
    """A transport that keeps for later what is sent meanwhile."""

    def __init__(self, transport):
        self.transport, self.kept, self.keeps = transport, [], False

    def sendto(self, data, addr):
        if self.keeps:
            self.kept.append((data, addr))
        else:
            self.transport.sendto(data, addr)

    def __getattr__(self, name):
        return getattr(self.transport, name)


class Leaver(Attacker):
    """Counts what still comes."""

    came = 0

    def connection_made(self, transport):
        self.late = Withholding(transport)
        super().connection_made(self.late)

    def datagram_received(self, data, addr):
        self.came += 1
        super().datagram_received(data, addr)


async def leavers(address, _):
    """Who has said that it is the end is told nothing more, whatever of it comes late (RFC 9000 §10.2.2); but one that comes as if nothing had been."""
    async with contextlib.AsyncExitStack() as stack:
        peer = await stack.enter_async_context(wire(address, protocol=Leaver))
        await peer.serves("before the end")
        await asyncio.sleep(0.1)
        peer.late.keeps = True
        for _ in range(3):
            peer.ask()
        peer.late.keeps = False
        kept, peer.late.kept = peer.late.kept, []
        check("datagrams are kept back", len(kept) >= 3, True)
        peer._quic.close(error_code=NO_ERROR)
        peer.transmit()
        # That the end was heard may be said once.
        await asyncio.sleep(0.03)
        came = peer.came
        for data, to in kept[:2]:
            peer.late.sendto(data, to)
            await asyncio.sleep(0.01)
        check("told to who has left", peer.came - came, 0)
        # Three probe timeouts later nobody remembers.
        await asyncio.sleep(2.5)
        peer.late.sendto(*kept[2])
        await asyncio.sleep(0.1)
        check("told to a stranger", peer.came - came, 1)
        print("all well", flush=True)
        os._exit(0)


def initials(count):
    """The first datagrams of so many clients, each of which could become a connection; of several sizes, few of which are a third of what may come back."""
    made = []
    for at in range(count):
        quic = QuicConnection(configuration=configuration(max_datagram_size=(1_200, 1_252, 1_310, 1_350, 1_452)[at % 5]))
        quic.connect(("127.0.0.1", 1), now=0)
        made.append([data for data, _ in quic.datagrams_to_send(now=0)])
    return made


def garbage(count):
    """Datagrams that begin like QUIC's, of every sort, and are none."""
    source = random.Random(1)
    for at in range(count):
        noise = source.randbytes(1_200)
        first, version = [(0xC0, b"\0\0\0\1"), (0xC0, b"\x1a\x2a\x3a\x4a"), (0x40, noise[:4]), (0xE0, b"\0\0\0\1"), (0xF0, b"\x6b\x33\x43\xcf")][at % 5]
        yield [bytes([first | noise[0] & 0xF]) + version + b"\x08" + noise[6:14] + b"\x08" + noise[15 : source.choice([40, 1_200])]]


class Strangers:
    """Sockets of many ports, whose owner answers nothing; what each has sent and received is counted."""

    def __init__(self, address):
        host, port = address.split(":")
        # When the machine got the first datagram of each, in seconds.
        self.address, self.sockets, self.first = (host, int(port)), {}, {}

    def send(self, datagrams):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        one.connect(self.address)
        self.sockets[one] = [0, 0]
        for data in datagrams:
            self.sockets[one][0] += one.send(data)

    def hear(self):
        for one, counts in self.sockets.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, [(_, _, stamp), *_], *_ = one.recvmsg(65_536, 64)
                    seconds, nanos = struct.unpack("ll", stamp)
                    self.first.setdefault(one, seconds + nanos / 1e9)
                    counts[1] += len(data)

    def check(self, what):
        self.hear()
        sent, heard = (sum(counts) for counts in zip(*self.sockets.values()))
        print(what, len(self.sockets), "ports", sent, "bytes sent", heard, "received")
        check(f"{what}: more than three times as much (RFC 9000 8.1)", [counts for counts in self.sockets.values() if counts[1] > 3 * counts[0]], [])
        for one in self.sockets:
            one.close()
        return heard


async def initial_flood(address, memory):
    """Who never answers, from ever other ports: handshakes that come to nothing, and what is not even one."""
    for what, flood in [("garbage", garbage(2_000)), ("Initials", initials(700))]:
        strangers = Strangers(address)
        for at, datagrams in enumerate(flood):
            strangers.send(datagrams)
            if at % 20 == 0:
                strangers.hear()
                await asyncio.sleep(0)
            if len(strangers.sockets) > 800:
                strangers.check(what)
                strangers = Strangers(address)
        # In the midst of it somebody who does answer is let in.
        async with wire(address) as peer:
            await peer.serves(what)
        # Time for what is sent again to whom it is not acknowledged.
        for _ in range(15):
            await asyncio.sleep(0.2)
            strangers.hear()
        strangers.check(what)
        memory.check(what, 48 << 20)
    print(memory.grown(), "bytes more")


class Stamped(Wire):
    """Remembers when its machine got the datagram that ended an answer; that may be long before anybody here reads it."""

    awaited = ended = None

    def stamp(self):
        """When the last datagram came that was read, by the machine's clock in seconds; from the first time that it is asked on."""
        with contextlib.suppress(FileNotFoundError):
            seconds, nanos = struct.unpack("ll", fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), SIOCGSTAMPNS, bytes(16)))
            return seconds + nanos / 1e9

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        if self.awaited is not None and self.stream(self.awaited).over and self.ended is None:
            self.ended = self.stamp()


async def crowd(address, engine):
    """Who has been let in is answered before a crowd is that came first: all that can be begun before anybody is asked for proof."""
    async with wire(address, protocol=Stamped) as peer:
        peer.stamp()
        await peer.serves("before")
        strangers, flood = Strangers(address), initials(CROWD)
        # All of it is there at once, and what was let in has come last, however fast anybody is.
        with engine.stopped():
            for datagrams in flood:
                strangers.send(datagrams)
            peer.awaited = peer.ask()
        answer = await peer.answer(peer.awaited)
        check("beside a crowd", (answer.status, answer.body), (200, b"hello\n"))
        strangers.hear()
        let_in = sum(came is not None and came < peer.ended for came in strangers.first.values())
        print(let_in, "of the crowd came first")
        check(f"{let_in} of the crowd came first", let_in < CROWD // 4, True)
        await asyncio.sleep(2)
        strangers.hear()
        check("at last all are begun", all(heard > 0 for _, heard in strangers.sockets.values()), True)


CROWD = 200

ATTACKS = {
    "floods": floods, "breath": breath, "moment": moment, "bombs": bombs, "blocked": blocked, "hoarders": hoarders, "uploads": uploads, "slow-heads": slow_heads, "initial-flood": initial_flood, "faults": faults, "leavers": leavers, "crowd": crowd,
}


async def main():
    attack, address, pid = sys.argv[1:]
    async with wire(address) as peer:
        # The engine's memory is that of one who has served somebody.
        await peer.serves("before")
    await asyncio.wait_for(ATTACKS[attack](address, Process(pid)), 75)
    print("all well")


asyncio.run(main())
