#!/usr/bin/env python3
"""An independent OTLP receiver for the tests: HTTP protobuf (identity, gzip, zstd) and gRPC, logs, metrics and traces.

It decodes with PyPI's opentelemetry-proto and shares no code with the agent. Every record, data point and span that it accepts
is appended to a file as one JSON line, flushed before the answer is sent. A second file holds one line a request.

    otlp_receiver.py --records OUT.jsonl --requests REQ.jsonl [--path /v1/logs] [--tls-cert C --tls-key K [--client-ca A]]
                     [--max-message BYTES] [--bearer TOKEN] [--poison TEXT] [--no-metrics]

It prints one line when it listens: {"http": PORT, "grpc": PORT}. Faults come through POST /_faults with a JSON list;
each request for logs or metrics takes the first fault off the list and answers by it:

    {"http": 503, "retry_after": "1", "body": "text"}           an HTTP status; a body, if given, as it is
    {"http": 400, "message": "text", "code": 3}                  the same with a protobuf Status
    {"grpc": 8, "message": "text", "retry_info": 1.5}            a gRPC status, with RetryInfo if asked
    {"partial": 2, "message": "text"}                            taken, less the last n records
    {"accept_then_close": true}                                  taken, but the connection ends without an answer (HTTP)
    {"hang": 2.0}                                                wait, then go on with an answer of success

--poison refuses every request that holds a log line with that text: 400, or INVALID_ARGUMENT. --no-metrics: it
has no metrics, 404 or UNIMPLEMENTED.

It ends when its standard input ends, so that no test leaves it behind.
"""
import argparse
import base64
import gzip
import json
import socket
import struct
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import zstandard
from google.protobuf import any_pb2, duration_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

LOCK = threading.Lock()
FAULTS = []
ARGS = None


def value_of(value):
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "bytes_value":
        return {"bytes": base64.b64encode(value.bytes_value).decode()}
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, kind)


def attributes_of(pairs):
    found = {}
    for pair in pairs:
        if pair.key in found:
            raise ValueError(f"attribute {pair.key!r} twice")
        found[pair.key] = value_of(pair.value)
    return found


def log_lines(request):
    for resource_logs in request.resource_logs:
        resource = attributes_of(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            scope = {"name": scope_logs.scope.name, "version": scope_logs.scope.version}
            for record in scope_logs.log_records:
                yield {
                    "signal": "logs",
                    "resource": resource,
                    "scope": scope,
                    "time": record.time_unix_nano,
                    "observed_time": record.observed_time_unix_nano,
                    "severity_number": record.severity_number,
                    "severity_text": record.severity_text,
                    "body": value_of(record.body),
                    "attributes": attributes_of(record.attributes),
                    "flags": record.flags,
                    "trace_id": record.trace_id.hex(),
                    "span_id": record.span_id.hex(),
                }


def span_lines(request):
    for resource_spans in request.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield {
                    "signal": "traces",
                    "resource": resource,
                    "scope": {"name": scope_spans.scope.name, "version": scope_spans.scope.version},
                    "name": span.name,
                    "attributes": attributes_of(span.attributes),
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_span_id": span.parent_span_id.hex(),
                }


def number_of(point):
    return None if point.WhichOneof("value") is None else getattr(point, point.WhichOneof("value"))


def exemplars_of(point):
    return [{"value": number_of(exemplar), "time": exemplar.time_unix_nano, "trace_id": exemplar.trace_id.hex(),
             "span_id": exemplar.span_id.hex(), "attributes": attributes_of(exemplar.filtered_attributes)}
            for exemplar in point.exemplars]


def point_of(kind, point):
    line = {"attributes": attributes_of(point.attributes), "start": point.start_time_unix_nano,
            "time": point.time_unix_nano, "flags": point.flags}
    if kind != "summary":
        line["exemplars"] = exemplars_of(point)
    if kind in ("gauge", "sum"):
        return line | {"value": number_of(point)}
    line["count"] = point.count
    if kind == "summary":
        return line | {"sum": point.sum, "quantiles": [[q.quantile, q.value] for q in point.quantile_values]}
    line["sum"] = point.sum if point.HasField("sum") else None
    if kind == "histogram":
        counts = list(point.bucket_counts)
        if counts and (len(counts) != len(point.explicit_bounds) + 1 or sum(counts) != point.count):
            raise ValueError(f"buckets {counts} do not fit their bounds or count")
        return line | {"counts": counts, "bounds": list(point.explicit_bounds)}
    buckets = lambda side: [side.offset, list(side.bucket_counts)]  # noqa: E731
    return line | {"scale": point.scale, "zero_count": point.zero_count, "zero_threshold": point.zero_threshold,
                   "positive": buckets(point.positive), "negative": buckets(point.negative)}


def point_lines(request):
    for resource_metrics in request.resource_metrics:
        resource = attributes_of(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            scope = {"name": scope_metrics.scope.name, "version": scope_metrics.scope.version}
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                if not data.data_points:
                    raise ValueError(f"metric {metric.name!r} without points")
                head = {"signal": "metrics", "resource": resource, "scope": scope, "name": metric.name,
                        "description": metric.description, "unit": metric.unit, "kind": kind,
                        "metadata": attributes_of(metric.metadata),
                        "temporality": getattr(data, "aggregation_temporality", 0),
                        "monotonic": getattr(data, "is_monotonic", False)}
                for point in data.data_points:
                    yield head | point_of(kind, point)


def finite(value):
    """JSON has no NaN and no infinity."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value


def append(path, lines):
    with LOCK, open(path, "a", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(finite(line), ensure_ascii=False) + "\n")


def note(transport, signal, headers, sent, records, outcome):
    wanted = ("authorization", "content-encoding", "content-type", "grpc-encoding", "user-agent", "x-scope-orgid")
    kept = {name.lower(): text for name, text in headers if name.lower() in wanted or name.lower().startswith("x-")}
    append(ARGS.requests, [{"transport": transport, "signal": signal, "headers": kept, "bytes": sent,
                            "records": records, "outcome": outcome, "at": time.time()}])


def is_poisoned(lines):
    return bool(ARGS.poison) and any(ARGS.poison in str(line.get("body")) for line in lines)


def next_fault():
    with LOCK:
        return FAULTS.pop(0) if FAULTS else None


def status_bytes(code, message, details=()):
    """google.rpc.Status, written by hand: fields 1 code, 2 message, 3 details (Any)."""
    def field(number, payload):
        return bytes([number << 3 | 2]) + varint(len(payload)) + payload

    def varint(value):
        out = b""
        while value >= 0x80:
            out += bytes([value & 0x7F | 0x80])
            value >>= 7
        return out + bytes([value])

    out = b"\x08" + varint(code) + field(2, message.encode())
    for detail in details:
        out += field(3, detail.SerializeToString())
    return out


def retry_info(seconds):
    delay = duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)).SerializeToString()
    return any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a" + bytes([len(delay)]) + delay)


def accept(lines, fault):
    """Stores what is accepted; returns (refused, message)."""
    refused = (fault or {}).get("partial", 0)
    append(ARGS.records, lines[: len(lines) - refused] if refused else lines)
    return refused, (fault or {}).get("message", "")


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="application/x-protobuf", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if size == 0:
                    return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        self.answer(405, b"405 method not allowed, supported: [POST]", "text/plain")

    def do_POST(self):
        raw = self.body()
        if self.path == "/_faults":
            with LOCK:
                FAULTS[:] = json.loads(raw)
            return self.answer(204)
        if self.path == ARGS.path:
            signal, make, lines_of = "logs", logs_service_pb2.ExportLogsServiceRequest, log_lines
        elif self.path == "/v1/metrics" and not ARGS.no_metrics:
            signal, make, lines_of = "metrics", metrics_service_pb2.ExportMetricsServiceRequest, point_lines
        elif self.path == "/v1/traces":
            signal, make, lines_of = "traces", trace_service_pb2.ExportTraceServiceRequest, span_lines
        else:
            return self.answer(404, b"404 page not found", "text/plain")
        if self.headers.get("Content-Type") != "application/x-protobuf":
            return self.answer(415, b"415 unsupported media type", "text/plain")
        if ARGS.bearer and self.headers.get("Authorization") != f"Bearer {ARGS.bearer}":
            note("http", signal, self.headers.items(), len(raw), 0, "unauthorized")
            return self.answer(401, status_bytes(16, "bad token"))
        try:
            encoding = self.headers.get("Content-Encoding", "")
            if encoding == "gzip":
                data = gzip.decompress(raw)
            elif encoding == "zstd":
                data = zstandard.ZstdDecompressor().decompress(raw)
            elif encoding == "":
                data = raw
            else:
                raise ValueError(f"unsupported Content-Encoding: {encoding}")
            request = make()
            request.ParseFromString(data)
            lines = list(lines_of(request))
        except Exception as error:  # noqa: BLE001 what cannot be read is a 400, whatever the reason
            note("http", signal, self.headers.items(), len(raw), 0, f"unreadable: {error}")
            return self.answer(400, status_bytes(3, f"proto: {error}"))
        fault = next_fault() if signal != "traces" else None
        headers = self.headers.items()
        if fault and "hang" in fault:
            time.sleep(fault["hang"])
        if fault and "http" in fault:
            note("http", signal, headers, len(raw), len(lines), fault["http"])
            extra = [("Retry-After", fault["retry_after"])] if "retry_after" in fault else []
            if "message" in fault:
                return self.answer(fault["http"], status_bytes(fault.get("code", 3), fault["message"]), headers=extra)
            return self.answer(fault["http"], fault.get("body", "").encode(), "text/plain", extra)
        if ARGS.max_message and len(data) > ARGS.max_message:
            note("http", signal, headers, len(raw), len(lines), 413)
            return self.answer(413, b"too large", "text/plain")
        if is_poisoned(lines):
            note("http", signal, headers, len(raw), len(lines), "poisoned")
            return self.answer(400, status_bytes(3, "poisoned"))
        refused, message = accept(lines, fault)
        note("http", signal, headers, len(raw), len(lines), "accepted")
        if fault and "accept_then_close" in fault:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return None
        return self.answer(200, response_to(signal, refused, message).SerializeToString())


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Handshakes that fail and connections that break are what some tests are about.
        note("http", "none", [], 0, 0, f"broken: {sys.exc_info()[1]}")


def response_to(signal, refused, message):
    if signal == "metrics":
        response = metrics_service_pb2.ExportMetricsServiceResponse()
    else:
        response = logs_service_pb2.ExportLogsServiceResponse()
    if refused or message:
        if signal == "metrics":
            response.partial_success.rejected_data_points = refused
        else:
            response.partial_success.rejected_log_records = refused
        response.partial_success.error_message = message
    return response


def export(signal, lines_of, request, context):
    headers = [(name, text) for name, text in context.invocation_metadata() if isinstance(text, str)]
    if ARGS.bearer and ("authorization", f"Bearer {ARGS.bearer}") not in headers:
        note("grpc", signal, headers, request.ByteSize(), 0, "unauthorized")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "bad token")
    lines = list(lines_of(request))
    fault = next_fault()
    if fault and "hang" in fault:
        time.sleep(fault["hang"])
    if fault and "grpc" in fault:
        note("grpc", signal, headers, request.ByteSize(), len(lines), fault["grpc"])
        message = fault.get("message", "injected")
        if "retry_info" in fault:
            details = status_bytes(fault["grpc"], message, [retry_info(fault["retry_info"])])
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        code = next(code for code in grpc.StatusCode if code.value[0] == fault["grpc"])
        context.abort(code, message)
    if is_poisoned(lines):
        note("grpc", signal, headers, request.ByteSize(), len(lines), "poisoned")
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "poisoned")
    refused, message = accept(lines, fault)
    note("grpc", signal, headers, request.ByteSize(), len(lines), "accepted")
    return response_to(signal, refused, message)


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def Export(self, request, context):
        return export("logs", log_lines, request, context)


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        return export("metrics", point_lines, request, context)


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        lines = list(span_lines(request))
        append(ARGS.records, lines)
        note("grpc", "traces", list(context.invocation_metadata()), request.ByteSize(), len(lines), "accepted")
        return trace_service_pb2.ExportTraceServiceResponse()


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", required=True)
    parser.add_argument("--requests", required=True)
    parser.add_argument("--path", default="/v1/logs")
    parser.add_argument("--max-message", type=int, default=0)
    parser.add_argument("--bearer", default="")
    parser.add_argument("--poison", default="")
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--client-ca")
    ARGS = parser.parse_args()
    for path in (ARGS.records, ARGS.requests):
        open(path, "a").close()

    http = Server(("127.0.0.1", 0), Http)
    options = [("grpc.max_receive_message_length", ARGS.max_message)] if ARGS.max_message else []
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    if not ARGS.no_metrics:
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    if ARGS.tls_cert:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ARGS.tls_cert, ARGS.tls_key)
        read = lambda path: open(path, "rb").read()  # noqa: E731
        client_ca = None
        if ARGS.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ARGS.client_ca)
            client_ca = read(ARGS.client_ca)
        # A pool of its own for handshakes is not needed: wrapping happens per connection, in its thread.
        http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        pair = (read(ARGS.tls_key), read(ARGS.tls_cert))
        credentials = grpc.ssl_server_credentials([pair], client_ca, require_client_auth=bool(client_ca))
        grpc_port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=http.serve_forever, daemon=True).start()
    print(json.dumps({"http": http.server_address[1], "grpc": grpc_port}), flush=True)
    sys.stdin.read()
    server.stop(0)
    http.shutdown()


if __name__ == "__main__":
    main()
