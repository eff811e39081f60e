"""gRPC-Web by libcurl, over each version of HTTP and in both codings, against an engine before our gRPC server. Prints `all well`.

usage: grpc_web_client.py ADDRESS AUTHORITY
"""

import base64
import io
import re
import sys

import pycurl

VERSIONS = (pycurl.CURL_HTTP_VERSION_1_1, pycurl.CURL_HTTP_VERSION_2TLS, pycurl.CURL_HTTP_VERSION_3ONLY)
address, authority = sys.argv[1:]
handle = pycurl.Curl()


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r:.300} is not {wanted!r:.300}")


def framed(message, flag=0):
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def decoded(text):
    """Padding may stand behind each message: each group is read by itself, as browsers' clients do."""
    check("whole groups", len(text) % 4, 0)
    return b"".join(base64.b64decode(text[at : at + 4], validate=True) for at in range(0, len(text), 4))


def call(version, coding, name, *messages):
    """The messages of the answer, and its status and trailers."""
    content, kind = b"".join(map(framed, messages)), f"application/grpc-web{'-text' if coding == 'text' else ''}+proto"
    body, said = io.BytesIO(), io.BytesIO()
    sent = base64.b64encode(content) if coding == "text" else content
    options = {
        pycurl.URL: f"https://localhost:{address.rsplit(':')[-1]}/test.Calls/{name}",
        pycurl.HTTP_VERSION: version,
        pycurl.CAINFO: authority,
        pycurl.TIMEOUT: 30,
        pycurl.IPRESOLVE: pycurl.IPRESOLVE_V4,
        pycurl.NOPROXY: "*",
        pycurl.POST: 1,
        pycurl.POSTFIELDSIZE_LARGE: len(sent),
        pycurl.READFUNCTION: io.BytesIO(sent).read,
        pycurl.HTTPHEADER: [f"Content-Type: {kind}", f"Accept: {kind}", "X-Grpc-Web: 1", "Expect:"],
        pycurl.WRITEDATA: body,
        pycurl.HEADERFUNCTION: said.write,
    }
    handle.reset()
    for option, value in options.items():
        handle.setopt(option, value)
    handle.perform()
    head = said.getvalue().decode("latin-1").lower()
    check("status", handle.getinfo(pycurl.RESPONSE_CODE), 200)
    check("content-type", re.findall(r"^content-type: (.*?)\r$", head, re.MULTILINE), [kind])
    answer = decoded(body.getvalue()) if coding == "text" else body.getvalue()
    told, said = [], None
    while answer:
        flag, length = answer[0], int.from_bytes(answer[1:5], "big")
        message, answer = answer[5 : 5 + length], answer[5 + length :]
        check("a whole message", len(message), length)
        if flag == 0x80:
            check("nothing follows trailers", answer, b"")
            said = dict(line.split(": ", 1) for line in message.decode().splitlines())
        else:
            told.append(message)
    if said is None:
        said = dict(re.findall(r"^(grpc-[a-z]+): (.*?)\r$", head, re.MULTILINE))
    return told, said


for version in VERSIONS:
    for coding in ("binary", "text"):
        for length in range(8):
            told, said = call(version, coding, "Unary", b"x" * length)
            check("unary", (told, said["grpc-status"], said.get("x-last")), ([b"x" * length], "0", "word"))
        large = bytes(range(256)) * (4 << 12)
        check("large", call(version, coding, "Unary", large)[0] == [large], True)
        check("from the server", call(version, coding, "Counting", b"n")[0], [b"n%d" % number for number in range(10)])
        check("from the client", call(version, coding, "Joined", b"a", b"b" * 70_000, b"")[0], [b"a" + b"b" * 70_000])
        check("both", call(version, coding, "Echo", b"1", b"", b"22")[0], [b"1", b"", b"22"])
        told, said = call(version, coding, "Fail", b"9")
        check("a failure", (told, said["grpc-status"], said["grpc-message"]), ([], "9", "as you wish: %c3%a4"))
        check("no such method", call(version, coding, "Nothing", b"")[1]["grpc-status"], "12")
print("all well")
