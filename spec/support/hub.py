#!/usr/bin/env python3
# hub.py: a stand-in for the Hub: an HTTP server that takes the calls of modules/lua/hub.lua,
# keeps what it was told, and fails as it is told to. It knows no customer and no page.
#	hub.py FOLDER [ADDRESS [PORT]]
# Listens on ADDRESS (127.0.0.1) and PORT (0: any), prints "port N", and ends with SIGTERM, or
# with its standard input where that is a pipe. Of FOLDER it uses
#	token           the bearer tokens that it accepts, one a line
#	requests.jsonl  one line a request; the token's value is never in it. "effective" is true
#	                for the first request of its Idempotency-Key that was accepted
#	fault           JSON, read at each request: { "kind": KIND, "times": N } with KIND
#	                status (with "status": 500), slow ("seconds"), garbage, html, cut, lost.
#	                cut and lost take the request and break off in, or before, the answer
#	orders.json, health/TENANT.json  what the GET calls answer
# A server that is started again on the same folder remembers the keys.
import http.server
import json
import os
import re
import socket
import stat
import sys
import threading
import time

folder = sys.argv[1]
address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
lock = threading.Lock()
answers = {}  # by Idempotency-Key: (request, status, text)
count = 0

TENANT = r"/api/v1/tenants/[A-Za-z0-9._~%-]+"
CALLS = [
    ("PATCH", r"/api/v1/jobs/[A-Za-z0-9._~%-]+", ["status"]),
    ("PUT", TENANT + "/connection", ["host", "port", "user"]),
    ("PUT", TENANT + "/registration", ["domain"]),
    ("POST", TENANT + "/backups", ["status"]),
    ("POST", TENANT + "/restores", ["status"]),
    ("POST", TENANT + "/notices", ["kind", "subject"]),
    ("PUT", TENANT + "/key", ["public_key", "private_key"]),
    ("POST", TENANT + "/key/revocation", ["reason"]),
    ("POST", TENANT + "/deletion", ["reason", "keep_billing_until"]),
]


def path(name):
    return os.path.join(folder, name)


def slurp(name, otherwise=None):
    try:
        with open(path(name), encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return otherwise


def record(entry):
    global count
    count += 1
    entry = {"n": count, "time": time.time(), **entry}
    with open(path("requests.jsonl"), "a", encoding="utf-8") as f:
        f.write(json.dumps(entry) + "\n")


def remember():
    global count
    for line in (slurp("requests.jsonl") or "").splitlines():
        e = json.loads(line)
        count = e["n"]
        if e["effective"]:
            answers[e["key"]] = ([e["method"], e["path"], e["body"]], e["status"], e["answer"])


# The fault that this request meets, or {}.
def next_fault():
    text = slurp("fault")
    fault = json.loads(text) if text else {}
    left = fault.get("times")
    if left is not None:
        if left <= 0:
            return {}
        fault["times"] = left - 1
        with open(path("fault.new"), "w", encoding="utf-8") as f:
            json.dump(fault, f)
        os.replace(path("fault.new"), path("fault"))
    return fault


def get(where):
    if where == "/api/v1/orders?status=open":
        return 200, slurp("orders.json", "[]")
    m = re.fullmatch(r"/api/v1/tenants/([A-Za-z0-9._~-]+)/health", where)
    text = slurp("health/%s.json" % m.group(1)) if m else None
    return (200, text) if text else (404, json.dumps({"error": "not found"}))


def change(method, where, body, key):
    needed = next((n for m, p, n in CALLS if m == method and re.fullmatch(p, where)), None)
    if needed is None:
        return 404, {"error": "no such call"}
    if not key:
        return 400, {"error": "the Idempotency-Key is missing"}
    if not isinstance(body, dict):
        return 400, {"error": "the body is no JSON object"}
    missing = [n for n in needed if n not in body]
    if missing:
        return 422, {"error": "missing: " + ", ".join(missing)}
    return 200, {"accepted": key}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def token(self):
        given = self.headers.get("Authorization")
        if given is None:
            return "absent"
        known = ["Bearer " + t for t in (slurp("token") or "").split("\n") if t]
        return "right" if given in known else "wrong"

    # -> status, text, whether the connection is to be broken
    def decide(self, raw):
        key = self.headers.get("Idempotency-Key")
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = {"unreadable": len(raw)}
        e = {"method": self.command, "path": self.path, "key": key, "token": self.token(), "body": body,
             "headers": {k: v for k, v in self.headers.items() if k.lower() != "authorization"},
             "duplicate": False, "effective": False}
        fault = next_fault()
        kind = fault.get("kind")
        request = [self.command, self.path, body]
        if kind == "status":
            status, text = fault["status"], json.dumps({"error": "told to fail"})
        elif e["token"] != "right":
            status, text = 401, json.dumps({"error": "the token is " + e["token"]})
        elif self.command == "GET":
            status, text = get(self.path)
        elif key in answers:
            known, status, text = answers[key]
            e["duplicate"] = True
            if known != request:
                status, text = 422, json.dumps({"error": "this key was used for another request"})
        else:
            status, said = change(self.command, self.path, body, key)
            text = json.dumps(said)
            e["effective"] = status == 200
            if e["effective"]:
                answers[key] = (request, status, text)
        record({**e, "status": status, "answer": text, "fault": kind})
        return status, text, fault

    def handle_any(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with lock:
            status, text, fault = self.decide(raw)
        kind = fault.get("kind")
        if kind == "slow":
            time.sleep(fault["seconds"])
        if kind == "lost":
            return self.hang_up()
        if kind == "garbage":
            self.wfile.write(b"\x00\xff garbage\r\n\r\n")
            return self.hang_up()
        if kind == "html":
            text = "<html>please log in to this network</html>"
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            return self.hang_up()
        self.wfile.write(data)

    def hang_up(self):
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6 if ":" in address else socket.AF_INET


remember()
server = Server((address, port), Handler)
print("port %d" % server.server_address[1], flush=True)
if stat.S_ISFIFO(os.fstat(0).st_mode) or stat.S_ISSOCK(os.fstat(0).st_mode):
    def until_eof():
        while os.read(0, 4096):
            pass
        os._exit(0)
    threading.Thread(target=until_eof, daemon=True).start()
server.serve_forever()
