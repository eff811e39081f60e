"""niquests (with qh3 under it) against an engine: it begins with HTTP/2, reads `Alt-Svc`, and goes over to HTTP/3. Prints `all well`.

usage: h3_niquests.py upgrades ADDRESS AUTHORITY
"""

import sys
import time

import niquests
from h3wire import check

PATIENCE = 30


def upgrades(url, authority):
    with niquests.Session() as session:
        # Not what the environment says of authorities and proxies.
        session.verify, session.trust_env = authority, False
        first = session.get(f"{url}/")
        check("the first answer", (first.status_code, first.content, first.http_version), (200, b"hello\n", 20))
        begun, version = time.monotonic(), None
        while version != 30:
            if time.monotonic() - begun > PATIENCE:
                sys.exit(f"it does not go over to HTTP/3: {version}")
            answer = session.get(f"{url}/")
            check("an answer", (answer.status_code, answer.content), (200, b"hello\n"))
            version = answer.http_version
        large = session.get(f"{url}/bytes/1000000")
        check("a large answer", (large.http_version, large.status_code, len(large.content)), (30, 200, 1_000_000))
        content = bytes(range(256)) * 1_000
        echoed = session.post(f"{url}/echo", data=content)
        check("what was sent comes back", (echoed.http_version, echoed.content == content), (30, True))
        for _ in range(100):
            answer = session.get(f"{url}/")
            check("many", (answer.http_version, answer.content), (30, b"hello\n"))
        check("HEAD", (session.head(f"{url}/bytes/10").http_version, session.head(f"{url}/bytes/10").content), (30, b""))


def main():
    scenario, address, authority = sys.argv[1:]
    {"upgrades": upgrades}[scenario](f"https://localhost:{address.rsplit(':', 1)[1]}", authority)
    print("all well")


main()
