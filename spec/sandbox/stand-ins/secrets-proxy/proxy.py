#!/usr/bin/python3
# proxy.py: stands in for the Secrets Proxy.
#   GET /health            200 while the registry can be read
#   PUT /registry          NAME=value lines: keeps each name with a keyed fingerprint
#   GET /registry          the names
#   POST /webhooks/diun    Diun's notice of an update: kept, and nothing else is done
import hashlib
import hmac
import json
import os
import signal
import sqlite3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

key = bytes.fromhex(os.environ["SAFETY_WRAPPER_REGISTRY_KEY"])
path = "/data/registry.db"


def query(sql, *values):
    with sqlite3.connect(path, timeout=10) as db:
        return db.execute(sql, values).fetchall()


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, data):
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        try:
            names = [row[0] for row in query("SELECT name FROM secrets ORDER BY name")]
        except sqlite3.Error as err:
            self.answer(503, {"error": str(err)})
            return
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/registry":
            self.answer(200, {"names": names})
        else:
            self.answer(404, {})

    def do_PUT(self):
        if self.path != "/registry":
            self.answer(404, {})
            return
        for line in self.body().splitlines():
            name, equals, value = line.partition(b"=")
            if equals and not line.startswith(b"#"):
                query("INSERT OR REPLACE INTO secrets VALUES (?, ?)", name.decode(),
                      hmac.new(key, value, hashlib.sha256).hexdigest())
        self.answer(200, {})

    def do_POST(self):
        if self.path != "/webhooks/diun":
            self.answer(404, {})
            return
        try:
            notice = json.loads(self.body())
        except ValueError:
            self.answer(400, {})
            return
        query("INSERT INTO notices VALUES (?)", json.dumps(notice))
        self.answer(204, {})

    def log_message(self, format, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
query("PRAGMA journal_mode=WAL")
query("CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL)")
query("CREATE TABLE IF NOT EXISTS notices (body TEXT NOT NULL)")
ThreadingHTTPServer(("0.0.0.0", 8100), Handler).serve_forever()
