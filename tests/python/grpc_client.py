"""A gRPC client that makes the calls named on the command line, and asserts what comes of each."""

import sys
import time

import grpc


def same(data):
    return data


address, calls = sys.argv[1], sys.argv[2:]
options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0)]
if address.startswith("https://"):
    authority = open(calls.pop(0), "rb").read()
    channel = grpc.secure_channel(address[8:], grpc.ssl_channel_credentials(authority), options)
else:
    channel = grpc.insecure_channel(address, options)


def unary(name, timeout=10):
    call = channel.unary_unary(f"/test.Calls/{name}", same, same)
    return lambda request: call.with_call(request, timeout=timeout)


def failure(name, request=b"", timeout=10):
    try:
        unary(name, timeout)(request)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{name} did not fail")


class Checks:
    def unary(self):
        answer, call = unary("Unary")(b"hello")
        assert answer == b"hello" and call.code() == grpc.StatusCode.OK, (answer, call.code())
        assert ("x-last", "word") in call.trailing_metadata(), call.trailing_metadata()

    def large(self):
        message = bytes(range(256)) * (4 << 12)
        assert unary("Unary")(message)[0] == message

    def statuses(self):
        for wanted in grpc.StatusCode:
            if wanted != grpc.StatusCode.OK:
                error = failure("Fail", str(wanted.value[0]).encode())
                assert error.code() == wanted and error.details() == "as you wish: ä", (wanted, error)
        assert failure("Nothing").code() == grpc.StatusCode.UNIMPLEMENTED

    def deadline(self):
        begun = time.monotonic()
        assert failure("Slow", timeout=0.3).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 2

    def from_server(self):
        call = channel.unary_stream("/test.Calls/Counting", same, same)
        assert list(call(b"n", timeout=10)) == [b"n%d" % number for number in range(10)]

    def from_client(self):
        call = channel.stream_unary("/test.Calls/Joined", same, same)
        assert call(iter([b"a", b"b" * 100_000, b"c"]), timeout=10) == b"a" + b"b" * 100_000 + b"c"

    def both(self):
        def slowly():
            for number in range(5):
                time.sleep(0.02)
                yield str(number).encode()

        call = channel.stream_stream("/test.Calls/Echo", same, same)
        assert list(call(slowly(), timeout=10)) == [b"0", b"1", b"2", b"3", b"4"]

    def cancelled(self):
        call = channel.unary_stream("/test.Calls/Forever", same, same)(b"")
        for number, _ in enumerate(call):
            if number == 3:
                call.cancel()
                break
        assert unary("WasCancelled")(b"")[0] == b"yes"

    def many(self):
        call = channel.unary_unary("/test.Calls/Unary", same, same)
        waiting = [(number, call.future(b"%d" % number, timeout=20)) for number in range(1_000)]
        assert all(one.result() == b"%d" % number for number, one in waiting)

    def again(self):
        assert unary("Once")(b"key")[0] == b"key"

    def becomes(self, told):
        unary("Become")(told.encode())

    def refused(self):
        error = failure("Unary")
        print(error.code().name, "|", error.details())


for name in calls:
    check, *told = name.split(":")
    getattr(Checks(), check)(*told)
    print("good:", name, file=sys.stderr)
