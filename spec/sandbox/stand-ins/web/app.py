#!/usr/bin/python3
# app.py: stands in for Ghost, Nextcloud and Uptime Kuma. It keeps rows in the tool's
# database, by the database's own client, and a file in the tool's volume, and answers the
# tool's health path when it can read both. It does nothing that the tools are for.
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

env = os.environ


class Failed(Exception):
    pass


def client(argv, sql, variables):
    done = subprocess.run(argv, input=sql, env={**env, **variables}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise Failed(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the client failed")
    return done.stdout.splitlines()


def postgres(sql):
    return client(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", env["POSTGRES_HOST"],
                   "-U", env["POSTGRES_USER"], "-d", env["POSTGRES_DB"]],
                  sql, {"PGPASSWORD": env["POSTGRES_PASSWORD"], "PGCONNECT_TIMEOUT": "5"})


def mysql(sql):
    prefix = "database__connection__"
    return client(["mysql", "-N", "-B", "--connect-timeout=5", "-h", env[prefix + "host"], "-u", env[prefix + "user"],
                   env[prefix + "database"]], sql, {"MYSQL_PWD": env[prefix + "password"]})


def sqlite(sql):
    with sqlite3.connect("/app/data/kuma.db") as db:
        db.execute("PRAGMA journal_mode=WAL")
        rows = [row[0] for part in sql.split(";") if part.strip() for row in db.execute(part)]
    return rows


def trusted(host):
    name = host.rsplit(":", 1)[0]
    return name in ("127.0.0.1", "localhost") or name in env["NEXTCLOUD_TRUSTED_DOMAINS"].split()


if "NEXTCLOUD_TRUSTED_DOMAINS" in env:
    tool, port, folder, query = "nextcloud", 80, "/var/www/html", postgres
    health, body = "/status.php", {"installed": True}
elif env.get("database__client") == "mysql":
    tool, port, folder, query = "ghost", 2368, "/var/lib/ghost/content", mysql
    health, body = "/ghost/api/admin/site/", {"site": {"url": env["url"]}}
elif "UPTIME_KUMA_DB_TYPE" in env:
    tool, port, folder, query = "uptime-kuma", int(env["UPTIME_KUMA_PORT"]), "/app/data", sqlite
    health, body = "/api/entry-page", {"type": "entryPage"}
else:
    sys.exit("app.py: the variables of no tool that it stands in for are set")

marker = folder + "/installed"
ready = threading.Event()


def install():
    while True:
        try:
            query("CREATE TABLE IF NOT EXISTS entries (body TEXT);")
            if not os.path.exists(marker):
                query("INSERT INTO entries VALUES ('first');")
                with open(marker, "w", encoding="utf-8") as f:
                    f.write(tool + "\n")
            break
        except (Failed, OSError, sqlite3.Error) as err:
            print(f"{tool}: the database does not answer: {err}", flush=True)
            time.sleep(2)
    ready.set()
    print(f"{tool}: ready", flush=True)


def entries():
    if not ready.is_set():
        raise Failed("it is not installed yet")
    with open(marker, encoding="utf-8") as f:
        f.read()
    return query("SELECT body FROM entries;")


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
        host = self.headers.get("Host", "")
        if tool == "nextcloud" and not trusted(host):
            self.answer(400, {"error": "untrusted domain"})
        elif tool == "ghost" and self.headers.get("X-Forwarded-Proto") != "https":
            self.answer(301, {}, [("Location", env["url"] + self.path)])
        else:
            return False
        return True

    def do_GET(self):
        if self.refused():
            return
        try:
            rows = entries()
        except (Failed, OSError, sqlite3.Error) as err:
            self.answer(503, {"error": str(err)})
            return
        if self.path == health:
            self.answer(200, body)
        elif self.path == "/":
            self.answer(200, {"tool": tool, "entries": rows, "headers": dict(self.headers)})
        else:
            self.answer(404, {})

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        word = self.rfile.read(length).decode()
        if self.refused():
            return
        if not word.isalnum():
            self.answer(400, {"error": "letters and digits"})
            return
        query(f"INSERT INTO entries VALUES ('{word}');")
        self.answer(201, {})

    def log_message(self, format, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.makedirs(folder, exist_ok=True)
threading.Thread(target=install, daemon=True).start()
address = env.get("UPTIME_KUMA_HOST", "0.0.0.0")
ThreadingHTTPServer((address, port), Handler).serve_forever()
