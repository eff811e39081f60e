"""Python's http.client, against an engine whose origin is the harness's standard one. Prints `all well`."""

import http.client
import sys
import urllib.request


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r:.200} is not {wanted!r:.200}")


def main():
    address = sys.argv[1]
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.connect()
    socket = connection.sock
    for number in range(50):
        connection.request("GET", "/")
        response = connection.getresponse()
        check("GET", (response.status, response.read()), (200, b"hello\n"))
        check("the connection is kept", connection.sock, socket)
    body = bytes(range(256)) * 1000
    connection.request("POST", "/echo", body)
    check("POST", connection.getresponse().read(), body)
    connection.request("PUT", "/echo", (body[at : at + 7000] for at in range(0, len(body), 7000)), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    check("PUT in chunks", connection.getresponse().read(), body)
    connection.request("HEAD", "/bytes/500")
    response = connection.getresponse()
    check("HEAD", (response.status, response.getheader("Content-Length"), response.read()), (200, "500", b""))
    connection.request("GET", "/chunked/5000")
    check("chunked", len(connection.getresponse().read()), 5000)
    connection.request("GET", "/status/404")
    response = connection.getresponse()
    check("404", (response.status, response.read()), (404, b""))
    check("still the same connection", connection.sock, socket)
    with urllib.request.urlopen(f"http://{address}/until-close/3000", timeout=10) as response:
        check("urllib", len(response.read()), 3000)
    print("all well")


main()
