#!/usr/bin/python3
# gateway.py: stands in for OpenClaw's gateway: it answers its health path while its
# configuration can be read and names at least one model to fall back to.
import json
import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def config():
    with open(os.environ["OPENCLAW_CONFIG_PATH"], encoding="utf-8") as f:
        return json.load(f)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, data = 404, {}
        if self.path in ("/health", "/healthz"):
            try:
                model = config()["agents"]["defaults"]["model"]
                status, data = (200, {"ok": True}) if model["fallbacks"] else (503, {"ok": False})
            except (OSError, ValueError, KeyError, TypeError) as err:
                status, data = 503, {"ok": False, "error": str(err)}
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
assert os.environ["OPENCLAW_GATEWAY_TOKEN"]
ThreadingHTTPServer(("127.0.0.1", config()["gateway"]["port"]), Handler).serve_forever()
