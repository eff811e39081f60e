"""Requests that h11 made, and the same with some bytes changed, inserted, removed or swapped: one a line, in hexadecimal."""

import argparse
import random

import h11

NASTY = [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"\xff", b"\x0b", b"chunked", b"5"]


def valid(dice):
    connection = h11.Connection(h11.CLIENT)
    method = dice.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "REPORT"])
    body = bytes(dice.choice(b"abcdef\r\n0: ") for _ in range(dice.choice([0, 0, 1, 5, 40, 3000])))
    headers = [("Host", dice.choice(["a", "example.net", "example.net:8080", "[::1]:80", "127.0.0.1"]))]
    for number in range(dice.randrange(5)):
        value = dice.choice(["", "x", " padded ".strip(), '"quoted, comma"', "a" * 300, "caf\u00e9".encode("latin-1")])
        headers.append((dice.choice(["X-One", "accept", "COOKIE", "x_under", "~odd!"]) + str(number), value))
    framing = dice.choice(["none", "length", "chunked"])
    if framing == "length":
        headers.append(("Content-Length", str(len(body))))
    elif framing == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
    target = dice.choice(["/", "/a/b?c=d&e", "/%00%0d%0a", "//x//y", "/;p=1", "/" + "x" * 500])
    raw = connection.send(h11.Request(method=method, target=target, headers=headers))
    if framing != "none":
        while body:
            length = dice.randrange(1, len(body) + 1)
            raw += connection.send(h11.Data(data=body[:length]))
            body = body[length:]
    trailers = [("X-Trailer", "t")] if framing == "chunked" and dice.random() < 0.3 else []
    return raw + connection.send(h11.EndOfMessage(headers=trailers))


def mutated(dice, raw):
    raw = bytearray(raw)
    for _ in range(dice.randrange(1, 4)):
        # Near the framing, where it hurts.
        end = raw.find(b"\r\n\r\n")
        at = dice.randrange(max(1, min(len(raw), end + 12)))
        kind = dice.randrange(5)
        if kind == 0:
            raw[at:at] = dice.choice(NASTY)
        elif kind == 1:
            raw[at : at + 1] = dice.choice(NASTY)
        elif kind == 2:
            del raw[at : at + dice.randrange(1, 4)]
        elif kind == 3:
            raw[at] ^= 1 << dice.randrange(8)
        else:
            line = dice.choice([b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: b", b"Connection: close"])
            place = raw.find(b"\r\n", at)
            raw[place:place] = b"\r\n" + line
        if not raw:
            raw = bytearray(b"G")
    return bytes(raw)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument("--count", type=int, required=True)
    wish = arguments.parse_args()
    dice = random.Random(wish.seed)
    for number in range(wish.count):
        raw = valid(dice)
        print((raw if number % 4 == 0 else mutated(dice, raw)).hex())


main()
