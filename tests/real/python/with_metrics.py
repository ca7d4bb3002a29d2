"""A service with prometheus_client: every metric type, labels that need escaping, exemplars where OpenMetrics is asked for.

It listens on a free port of 127.0.0.1, prints {"port": N} as its first line, and serves until it is killed.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client import openmetrics

REGISTRY = CollectorRegistry()
REQUESTS = Counter("requests", "Requests.", ["path", "code"], registry=REGISTRY)
SECONDS = Histogram("work_seconds", "Work.", ["kind"], buckets=(0.01, 0.2, 1), registry=REGISTRY)
SIZES = Summary("sizes_bytes", "Sizes.", registry=REGISTRY)
STATE = Enum("state", "State.", states=["starting", "running"], registry=REGISTRY)
BUILD = Info("build", "Build.", registry=REGISTRY)
ODD = Gauge("odd", 'Odd "help" \\ with\na newline.', ["text"], registry=REGISTRY)

STATE.state("running")
BUILD.info({"version": "1.2.3", "note": 'a "quoted" \\ note\nof two lines'})
ODD.labels(text="nan").set(float("nan"))
ODD.labels(text="tiny").set(5e-324)
ODD.labels(text="large").set(1.7976931348623157e308)


class Handler(BaseHTTPRequestHandler):
    """Every request but the scrape is counted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/metrics":
            wanted = self.headers.get("Accept", "")
            if "application/openmetrics-text" in wanted:
                body = openmetrics.exposition.generate_latest(REGISTRY)
                content_type = openmetrics.exposition.CONTENT_TYPE_LATEST
            else:
                body, content_type = generate_latest(REGISTRY), CONTENT_TYPE_LATEST
            self.reply(200, content_type, body)
            return
        code = 500 if self.path.startswith("/fail") else 200
        trace = self.headers.get("traceparent", "").split("-")
        exemplar = {"trace_id": trace[1]} if len(trace) == 4 else None
        REQUESTS.labels(path=self.path.split("/")[1], code=str(code)).inc(1, exemplar)
        SECONDS.labels(kind="request").observe(0.15, exemplar)
        SIZES.observe(len(self.path))
        self.reply(code, "text/plain", b"done\n")

    def reply(self, code, content_type, body):
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The test reads standard output."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()
