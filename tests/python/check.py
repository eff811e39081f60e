"""Reads JSON lines and lets h11, which we did not write, judge raw HTTP/1 bytes.

{"name": …, "side": "request",  "raw": hex, "bodies": [hex, …]}   exactly these requests, and not a byte more
{"name": …, "side": "response", "raw": hex, "methods": ["GET", …]} exactly one final response each, and not a byte more
Prints what is wrong, a line each; exits with 1 if anything is.
"""

import json
import sys

import h11


def requests(raw):
    bodies = []
    while True:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(raw)
        body, ended = None, False
        while not ended:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if body is None and not connection.trailing_data[0]:
                    return bodies
                raise ValueError(f"incomplete after {len(bodies)} requests: {connection.trailing_data[0][:80]!r}")
            if isinstance(event, h11.Request):
                body = bytearray()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                bodies.append(bytes(body))
                ended = True
        raw = connection.trailing_data[0]
        if not raw:
            return bodies


def responses(raw, methods):
    for method in methods:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(raw)
        ended_by_close = False
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if ended_by_close:
                    raise ValueError("incomplete")
                # Only the last response may end with its connection.
                connection.receive_data(b"")
                ended_by_close = True
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise ValueError(f"no response but {event!r}")
        raw = b"" if ended_by_close else connection.trailing_data[0]
    if raw:
        raise ValueError(f"bytes after the last response: {raw[:80]!r}")


def main():
    wrong = judged = 0
    for line in sys.stdin:
        case = json.loads(line)
        raw = bytes.fromhex(case["raw"])
        judged += 1
        try:
            if case["side"] == "request":
                wanted = [bytes.fromhex(body) for body in case["bodies"]]
                got = requests(raw) if raw else []
                if got != wanted:
                    raise ValueError(f"{len(got)} requests with {got!r}, not {wanted!r}")
            else:
                responses(raw, case["methods"])
        except (h11.ProtocolError, ValueError) as error:
            wrong += 1
            print(f"{case['name']}: {error}; {raw[:300]!r}")
    print(f"{judged} judged, {wrong} wrong")
    sys.exit(1 if wrong or not judged else 0)


main()
