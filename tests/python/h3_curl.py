"""libcurl with ngtcp2, against an engine whose origin is the harness's standard one. Prints `all well`.

usage: h3_curl.py SCENARIO ADDRESS AUTHORITY [CERTIFICATE KEY]
"""

import hashlib
import io
import os
import re
import sys

import pycurl

THIRD_ONLY = pycurl.CURL_HTTP_VERSION_3ONLY
# What libcurl calls the third version in its report.
THIRD = 30


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r:.300} is not {wanted!r:.300}")


class Curl:
    """One handle, so one connection for as long as it can be used again."""

    def __init__(self, address, authority, version=THIRD_ONLY, identity=None):
        host, port = address.rsplit(":", 1)
        family = pycurl.IPRESOLVE_V6 if host.startswith("[") else pycurl.IPRESOLVE_V4
        self.base, self.curl, self.connects = f"https://localhost:{port}", pycurl.Curl(), 0
        self.options = {pycurl.HTTP_VERSION: version, pycurl.CAINFO: authority, pycurl.TIMEOUT: 30, pycurl.IPRESOLVE: family, pycurl.NOPROXY: "*",
                        pycurl.RESOLVE: [f"localhost:{port}:{host}"]}
        if identity:
            self.options |= {pycurl.SSLCERT: identity[0], pycurl.SSLKEY: identity[1]}

    def ask(self, path, **more):
        self.curl.reset()
        body, said = io.BytesIO(), io.BytesIO()
        options = self.options | {pycurl.URL: self.base + path, pycurl.WRITEDATA: body, pycurl.HEADERFUNCTION: said.write}
        for option, value in options.items():
            self.curl.setopt(option, value)
        for option, value in more.items():
            self.curl.setopt(getattr(pycurl, option), value)
        self.curl.perform()
        self.connects += self.curl.getinfo(pycurl.NUM_CONNECTS)
        self.version = self.curl.getinfo(pycurl.INFO_HTTP_VERSION)
        return self.curl.getinfo(pycurl.RESPONSE_CODE), body.getvalue(), said.getvalue().decode("latin-1").lower()


def transfers(address, authority):
    curl = Curl(address, authority)
    code, body, said = curl.ask("/")
    check("small", (code, body, curl.version), (200, b"hello\n", THIRD))
    check("nothing is advertised to who has it", "alt-svc" in said, False)
    _, body, said = curl.ask("/head")
    check("the origin is told", b"x-forwarded-proto: https" in body.lower(), True)
    code, large, said = curl.ask("/bytes/5000000")
    check("large", (code, len(large), "content-length: 5000000" in said), (200, 5_000_000, True))
    check("twice the same", hashlib.sha256(curl.ask("/bytes/5000000")[1]).digest(), hashlib.sha256(large).digest())
    upload = os.urandom(3_000_000)
    check("an upload", curl.ask("/echo", POST=1, POSTFIELDS=upload)[1] == upload, True)
    # Of untold length.
    untold = curl.ask("/echo", UPLOAD=1, CUSTOMREQUEST="POST", READFUNCTION=io.BytesIO(upload).read)
    check("an upload of untold length", (untold[0], untold[1] == upload), (200, True))
    code, body, said = curl.ask("/bytes/500", NOBODY=1)
    check("HEAD", (code, body, "content-length: 500" in said), (200, b"", True))
    check("404", curl.ask("/status/404")[:2], (404, b""))
    code, body, said = curl.ask("/chunked/300000")
    check("chunks, and trailers", (code, len(body), "x-sum: " in said, "transfer-encoding" in said), (200, 300_000, True, False))
    check("until the connection's end", len(curl.ask("/until-close/70000")[1]), 70_000)
    for number in range(200):
        check("one of many", curl.ask(f"/{number}")[:2], (200, b"hello\n"))
    check("connections", curl.connects, 1)


def certificates(address, authority, cert, key):
    check("with one", Curl(address, authority, identity=(cert, key)).ask("/")[:2], (200, b"hello\n"))
    try:
        got = Curl(address, authority).ask("/")
    except pycurl.error:
        return
    sys.exit(f"without one: {got}")


def advertised(address, authority):
    """What HTTP/1 and 2 learn of HTTP/3 is true."""
    host = address.rsplit(":", 1)[0]
    for version in (pycurl.CURL_HTTP_VERSION_1_1, pycurl.CURL_HTTP_VERSION_2TLS):
        _, _, said = Curl(address, authority, version).ask("/")
        told = re.search(r'alt-svc: h3=":(\d+)"; ma=86400', said)
        if not told:
            sys.exit(f"no Alt-Svc of ours: {said}")
        code, body, _ = Curl(f"{host}:{told[1]}", authority).ask("/")
        check("at the port that was named", (code, body), (200, b"hello\n"))


def without(address, authority):
    """Where HTTP/3 is switched off nobody is told of it, and nobody is served."""
    code, body, said = Curl(address, authority, pycurl.CURL_HTTP_VERSION_2TLS).ask("/")
    check("HTTP/2", (code, body, "alt-svc" in said), (200, b"hello\n", False))
    try:
        got = Curl(address, authority).ask("/", CONNECTTIMEOUT=3)
    except pycurl.error:
        return
    sys.exit(f"HTTP/3: {got}")


SCENARIOS = {"transfers": transfers, "certificates": certificates, "advertised": advertised, "without": without}

SCENARIOS[sys.argv[1]](*sys.argv[2:])
print("all well")
