#!/usr/bin/python3
# app.py: stands in for every tool of the catalog. Which one it is, its port, its health path
# and its database it finds in tools.json by the variables and words that it was started
# with. It keeps rows in the tool's database, by the database's own client, and a file in the
# tool's first volume, and answers the health path when it can read both. It does nothing
# that the tools are for.
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

env = os.environ


class Failed(Exception):
    pass


def find():
    with open("/app/tools.json", encoding="utf-8") as f:
        table = json.load(f)
    fits = [one for one in table if all(name in env for name in one["env"])
            and all(word in sys.argv[1:] for word in one["args"])]
    if not fits:
        sys.exit("app.py: neither variables nor command are those of a tool that it stands in for")
    return max(fits, key=lambda one: len(one["env"]) + len(one["args"]))


me = find()
tool = me["tool"]


# What the variables say of the database: parts, a URL, or a URL with parts beside it.
def database():
    given = me["database"]
    parts = {key: env[name] for key, name in given["variables"].items() if key != "url"}
    if "url" in given["variables"]:
        url = urlsplit(env[given["variables"]["url"]])
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        found = {"host": url.hostname, "port": url.port, "name": url.path.strip("/") or query.get("d"),
                 "user": unquote(url.username) if url.username else query.get("u"),
                 "password": unquote(url.password) if url.password else query.get("p")}
        parts = {**{k: v for k, v in found.items() if v}, **parts}
    if ":" in parts["host"]:
        parts["host"] = parts["host"].split(":")[0]
    parts.setdefault("name", tool)
    return parts


def client(argv, sql, variables):
    done = subprocess.run(argv, input=sql, env={**env, **variables}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise Failed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the client failed")
    return done.stdout.splitlines()


def postgres(sql, name=None):
    db = database()
    return client(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", db["host"], "-U", db["user"],
                   "-d", name or db["name"]], sql, {"PGPASSWORD": db["password"], "PGCONNECT_TIMEOUT": "5"})


def mysql(sql):
    db = database()
    return client(["mysql", "-N", "-B", "--connect-timeout=5", "-h", db["host"], "-u", db["user"], db["name"]],
                  sql, {"MYSQL_PWD": db["password"]})


# The stand-in for MongoDB speaks lines of JSON.
def mongo(sql):
    db = database()
    if sql.startswith("CREATE"):
        request = {"op": "ping"}
    elif sql.startswith("INSERT"):
        request = {"op": "insert", "collection": "entries", "document": {"body": sql.split("'")[1]}}
    else:
        request = {"op": "find", "collection": "entries"}
    request.update(user=db["user"], password=db["password"], db=db["name"])
    with socket.create_connection((db["host"], int(db.get("port", 27017))), timeout=5) as link:
        link.sendall((json.dumps(request) + "\n").encode())
        answer = json.loads(link.makefile().readline())
    if not answer["ok"]:
        raise Failed(answer["error"])
    return [document["body"] for document in answer.get("documents", [])]


# Where tools that are known to use SQLite keep it, inside their first volume.
SQLITE = {"uptime-kuma": "kuma.db", "vikunja": "vikunja.db", "paperless": "db.sqlite3", "roundcube": "sqlite.db"}


def sqlite(sql):
    with sqlite3.connect(f"{folder}/{SQLITE.get(tool, 'stand-in.db')}") as db:
        db.execute("PRAGMA journal_mode=WAL")
        return [row[0] for part in sql.split(";") if part.strip() for row in db.execute(part)]


folder = me["folder"] or "/var/lib/stand-in"
marker = folder + "/installed"
engine = me["database"]["engine"] if me["database"] else "sqlite"
query = {"postgres": postgres, "mysql": mysql, "mongo": mongo, "sqlite": sqlite}[engine]
ready = threading.Event()


# As Odoo does: the database that the container makes is not the tool's.
def make_database():
    if engine == "postgres" and "name" not in me["database"]["variables"] and "url" not in me["database"]["variables"]:
        if not postgres(f"SELECT 1 FROM pg_database WHERE datname = '{tool}';", "postgres"):
            postgres(f'CREATE DATABASE "{tool}";', "postgres")


def install():
    while True:
        try:
            make_database()
            query("CREATE TABLE IF NOT EXISTS entries (body TEXT);")
            if not os.path.exists(marker):
                query("INSERT INTO entries VALUES ('first');")
                with open(marker, "w", encoding="utf-8") as f:
                    f.write(tool + "\n")
            break
        except (Failed, OSError, sqlite3.Error) as err:
            print(f"{tool}: the database does not answer: {err}", flush=True)
            time.sleep(1)
    ready.set()
    print(f"{tool}: ready", flush=True)


def entries():
    if not ready.is_set():
        raise Failed("it is not installed yet")
    with open(marker, encoding="utf-8") as f:
        f.read()
    return query("SELECT body FROM entries;")


# What tools are known to refuse, by the catalog's section on health checks.
def stranger(host):
    name = host.rsplit(":", 1)[0]
    if tool == "nextcloud":
        return name not in ("127.0.0.1", "localhost", *env["NEXTCLOUD_TRUSTED_DOMAINS"].split())
    return tool == "homepage" and host not in env["HOMEPAGE_ALLOWED_HOSTS"].split(",")


# Uptime Kuma's: what it was told to watch, and what was pushed.
def monitors(order=None):
    path = folder + "/monitors.json"
    if order is not None:
        with open(path + ".new", "w", encoding="utf-8") as f:
            json.dump(order, f)
        os.replace(path + ".new", path)
    if not os.path.exists(path):
        return {"monitors": []}
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def pushed(path):
    url = urlsplit(path)
    told = parse_qs(url.query)
    known = monitors()
    for one in known["monitors"]:
        if one.get("pushToken") == url.path.split("/")[-1]:
            one["last"] = [told["status"][0], told["msg"][0]]
            monitors(known)
            return True
    return False


# GlitchTip's: an event that an SDK of Sentry's sends, with a key that one of its projects has.
def event(path, auth, body):
    project = re.fullmatch(r"/api/(\d+)/store/", path)
    key = re.search(r"sentry_key=([0-9a-f]{32})\b", auth)
    if not project or not key:
        return 404, {}
    if not query(f"SELECT 1 FROM keys WHERE public_key = '{key[1]}' AND project = {project[1]};"):
        return 403, {"detail": "Denied"}
    told = json.loads(body)
    message = re.sub(r"[^\w .,:-]", "", told["message"])
    query(f"INSERT INTO events VALUES ({project[1]}, '{message}');")
    return 200, {"id": told["event_id"]}


# The admins of tools that are set up over HTTP, as far as each tool's first set-up asks: a password
# is kept by its hash alone.
def admin(password=None):
    if password is not None:
        query("CREATE TABLE IF NOT EXISTS admins (hash TEXT);")
        query("DELETE FROM admins;")
        query(f"INSERT INTO admins VALUES ('{hashlib.sha256(password.encode()).hexdigest()}');")
        return None
    try:
        return (query("SELECT hash FROM admins;") or [None])[0]
    except Failed:
        return None


def is_admins(password):
    return hashlib.sha256(password.encode()).hexdigest() == (admin() or hashlib.sha256(b"umami").hexdigest())


def set_up(path, body, headers):
    if tool == "calcom" and path == "/api/auth/setup":
        told = json.loads(body)
        if admin():
            return 400, {"message": "No setup needed."}
        if not told["username"] or len(told["full_name"]) < 3 or "@" not in told["email_address"] or len(told["password"]) < 15:
            return 422, {"message": "invalid"}
        admin(told["password"])
        return 200, {"message": "First admin user created successfully."}
    if tool == "umami" and path == "/api/auth/login":
        told = json.loads(body)
        if told["username"] != "admin" or not is_admins(told["password"]):
            return 401, {"error": {"code": "incorrect-username-password"}}
        return 200, {"token": session, "user": {"username": "admin"}}
    if tool == "umami" and path == "/api/me/password":
        told = json.loads(body)
        if headers.get("Authorization") != "Bearer " + session:
            return 401, {}
        if not is_admins(told["currentPassword"]) or len(told["newPassword"]) < 8:
            return 400, {"error": {"message": "Current password is incorrect"}}
        admin(told["newPassword"])
        return 200, {"username": "admin"}
    if tool == "chatwoot" and path == "/installation/onboarding":
        told = {key: values[0] for key, values in parse_qs(body).items()}
        if not admin() and all(told.get(f"user[{key}]") for key in ("name", "company", "email", "password")):
            admin(told["user[password]"])
        return 302, {}
    return None


session = secrets.token_hex(32)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, data, more=()):
        text = (json.dumps(data, separators=(",", ":")) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in more:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def refused(self):
        if stranger(self.headers.get("Host", "")):
            self.answer(400, {"error": "untrusted domain"})
        elif tool == "ghost" and self.headers.get("X-Forwarded-Proto") != "https":
            self.answer(301, {}, [("Location", env["url"] + self.path)])
        else:
            return False
        return True

    def do_GET(self):
        if self.refused():
            return
        if tool == "uptime-kuma" and self.path.startswith("/api/push/"):
            fine = pushed(self.path)
            self.answer(200 if fine else 404, {"ok": fine})
            return
        if tool == "chatwoot" and self.path == "/installation/onboarding":
            self.answer(302 if admin() else 200, {})
            return
        try:
            rows = entries()
        except (Failed, OSError, sqlite3.Error) as err:
            self.answer(503, {"error": str(err)})
            return
        if self.path == "/" or self.path == me["health"]:
            body = {"tool": tool, "service": me["service"], "status": "ok"}
            if tool == "nextcloud":
                body["installed"] = True
            if self.path == "/":
                body.update(entries=rows, headers=dict(self.headers))
            self.answer(200, body)
        else:
            self.answer(404, {})

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        word = self.rfile.read(length).decode()
        if self.refused():
            return
        if tool == "uptime-kuma" and self.path == "/stand-in/monitors":
            monitors(json.loads(word))
            self.answer(200, {})
            return
        found = set_up(self.path, word, self.headers)
        if found:
            self.answer(*found)
            return
        if tool == "glitchtip" and self.path.startswith("/api/"):
            self.answer(*event(self.path, self.headers.get("X-Sentry-Auth", ""), word))
            return
        if not word.isalnum():
            self.answer(400, {"error": "letters and digits"})
            return
        query(f"INSERT INTO entries VALUES ('{word}');")
        self.answer(201, {})

    def log_message(self, format, *args):
        pass


# A port that is no web page: it greets and closes.
def greet(port):
    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            link, _ = server.accept()
            with link:
                link.sendall(b"220 stand-in\r\n")


def serve(port):
    ThreadingHTTPServer((me["address"], port), Handler).serve_forever()


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.makedirs(folder, exist_ok=True)
if me["init"]:
    install()
    sys.exit(0)
threading.Thread(target=install, daemon=True).start()
for number in me["greets"]:
    threading.Thread(target=greet, args=(number,), daemon=True).start()
for number in me["ports"][1:]:
    threading.Thread(target=serve, args=(number,), daemon=True).start()
if me["ports"]:
    serve(me["ports"][0])
threading.Event().wait()
