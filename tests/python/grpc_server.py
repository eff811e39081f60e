"""A gRPC server of every kind of call, on the address given. Messages are bytes; no code is generated.

The second word says what else it has: `plain`, or `health` (grpc.health.v1). A certificate and its key may follow."""

import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def same(data):
    return data


def unary(request, context):
    context.set_trailing_metadata((("x-last", "word"),))
    return request


def fail(request, context):
    context.abort(grpc.StatusCode(code(request)), "as you wish: ä")


def code(request):
    wanted = int(request)
    return next(one.value for one in grpc.StatusCode if one.value[0] == wanted)


lock, refused = threading.Lock(), {}


def once(request, context):
    """UNAVAILABLE the first time that it is asked this, and the answer afterwards."""
    with lock:
        seen = refused.get(request, 0)
        refused[request] = seen + 1
    if seen == 0:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    return request


def slow(request, context):
    time.sleep(3)
    return request


def counting(request, context):
    for number in range(10):
        yield request + str(number).encode()


def joined(requests, context):
    return b"".join(requests)


def echo(requests, context):
    yield from requests


cancelled = threading.Event()


def forever(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        yield b"x"
        time.sleep(0.02)


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(5) else b"no"


health_servicer = health.HealthServicer()


def become(request, context):
    """Says from now on that a service is as told: `NAME=STATUS`."""
    name, status = request.decode().split("=")
    health_servicer.set(name, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    return request


UNARY = {"Become": become, "Unary": unary, "Fail": fail, "Once": once, "Slow": slow, "WasCancelled": was_cancelled}
SERVER = {"Counting": counting, "Forever": forever}


class Calls(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[-1]
        if name in UNARY:
            return grpc.unary_unary_rpc_method_handler(UNARY[name], same, same)
        if name in SERVER:
            return grpc.unary_stream_rpc_method_handler(SERVER[name], same, same)
        if name == "Joined":
            return grpc.stream_unary_rpc_method_handler(joined, same, same)
        if name == "Echo":
            return grpc.stream_stream_rpc_method_handler(echo, same, same)
        return None


server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 64 << 20)])
server.add_generic_rpc_handlers((Calls(),))
if sys.argv[2] == "health":
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
if len(sys.argv) > 3:
    certificate, key = (open(path, "rb").read() for path in sys.argv[3:5])
    server.add_secure_port(sys.argv[1], grpc.ssl_server_credentials([(key, certificate)]))
else:
    server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
