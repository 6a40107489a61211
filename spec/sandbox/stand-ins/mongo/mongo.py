#!/usr/bin/python3
# mongo.py: stands in for MongoDB. A server that keeps collections of documents as files of
# JSON, one request a line, and the commands mongosh, mongodump and mongorestore under their
# own names, with the options that backups use. It speaks nothing of MongoDB's protocol, and its
# archives are its own: no real MongoDB reads them.
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import sys
import threading

PORT = 27017
DATA = "/data/db"
MAGIC = b"\x6d\xe2\x99\x81"  # what an archive of mongodump begins with
lock = threading.Lock()


class Refused(Exception):
    pass


def users_file():
    return DATA + "/admin.users.json"


def check(request):
    with open(users_file(), encoding="utf-8") as f:
        users = json.load(f)
    if users and users.get(request.get("user")) != request.get("password"):
        raise Refused("Authentication failed.")


def path_of(db, collection):
    for name in (db, collection):
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name or ""):
            raise Refused(f"Invalid namespace specified '{db}.{collection}'")
    return f"{DATA}/{db}/{collection}.json"


def documents_of(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def keep(path, documents):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in documents)
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".new", path)


def namespaces():
    for db in sorted(os.listdir(DATA)):
        if os.path.isdir(f"{DATA}/{db}"):
            for file in sorted(os.listdir(f"{DATA}/{db}")):
                if file.endswith(".json"):
                    yield db, file[:-5]


def answer(request):
    op = request["op"]
    if op == "hello":  # asked without a login, as db.runCommand('ping')
        return {}
    check(request)
    if op == "ping":
        return {}
    if op == "namespaces":
        return {"namespaces": list(namespaces())}
    if op == "drop_database":
        path_of(request["db"], "x")
        shutil.rmtree(f"{DATA}/{request['db']}", ignore_errors=True)
        return {}
    path = path_of(request["db"], request["collection"])
    if op == "find":
        return {"documents": documents_of(path)}
    if op == "insert":
        keep(path, documents_of(path) + [request["document"]])
        return {}
    if op == "replace":
        keep(path, request["documents"])
        return {}
    raise Refused(f"no such command: '{op}'")


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            try:
                with lock:
                    result = {"ok": 1, **answer(json.loads(line))}
            except (Refused, OSError, ValueError, KeyError) as err:
                result = {"ok": 0, "error": str(err)}
            self.wfile.write((json.dumps(result) + "\n").encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def serve():
    os.makedirs(DATA, exist_ok=True)
    if not os.path.exists(users_file()):
        user, password = (os.environ.get("MONGO_INITDB_ROOT_" + name) for name in ("USERNAME", "PASSWORD"))
        with open(users_file(), "w", encoding="utf-8") as f:
            json.dump({user: password} if user else {}, f)
        os.chmod(users_file(), 0o600)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(("0.0.0.0", PORT), Handler).serve_forever()


class Client:
    def __init__(self, options):
        self.login = {"user": options.get("username"), "password": options.get("password")}
        self.link = socket.create_connection((options.get("host", "127.0.0.1"), int(options.get("port", PORT))), timeout=60)
        self.lines = self.link.makefile()

    def ask(self, op, **more):
        self.link.sendall((json.dumps({"op": op, **self.login, **more}) + "\n").encode())
        result = json.loads(self.lines.readline())
        if not result["ok"]:
            raise Refused(result["error"])
        return result


SHORT = {"u": "username", "p": "password", "d": "db", "h": "host", "c": "collection"}
FLAGS = {"drop", "quiet", "gzip", "norc", "preserveUUID", "stopOnError", "shell"}


def parse(words):
    options, rest, i = {}, [], 0
    while i < len(words):
        found = re.fullmatch(r"--?([A-Za-z]+)(?:=(.*))?", words[i], re.S)
        if not found:
            rest.append(words[i])
        else:
            name, value = SHORT.get(found[1], found[1]), found[2]
            if value is None and name == "archive":
                value = "-"
            elif value is None and name not in FLAGS:
                i += 1
                value = words[i]
            options[name] = True if value is None else value
        i += 1
    return options, rest


# A password may come in a file: --config has lines `password: ...` and `uri: ...`.
def settings(options):
    if "config" in options:
        with open(options["config"], encoding="utf-8") as f:
            for line in f:
                key, _, value = line.partition(":")
                options[key.strip()] = value.strip().strip("'\"")
    if "uri" in options:
        from urllib.parse import unquote, urlsplit
        url = urlsplit(options["uri"])
        options.update({k: v for k, v in {
            "host": url.hostname, "port": url.port, "username": url.username and unquote(url.username),
            "password": url.password and unquote(url.password), "db": url.path.strip("/") or options.get("db"),
        }.items() if v})
    return options


def dump(options):
    if "archive" not in options or "gzip" in options:
        raise Refused("the stand-in knows mongodump --archive alone")
    client = Client(options)
    out = sys.stdout.buffer if options["archive"] == "-" else open(options["archive"], "wb")
    out.write(MAGIC + b" lbrun stand-in\n")
    for db, collection in client.ask("namespaces")["namespaces"]:
        if options.get("db", db) == db and options.get("collection", collection) == collection:
            documents = client.ask("find", db=db, collection=collection)["documents"]
            out.write((json.dumps({"db": db, "collection": collection, "documents": documents}) + "\n").encode())
            print(f"done dumping {db}.{collection} ({len(documents)} documents)", file=sys.stderr)
    out.write(b"end\n")
    out.flush()


def restore(options):
    if "archive" not in options or "gzip" in options:
        raise Refused("the stand-in knows mongorestore --archive alone")
    source = sys.stdin.buffer if options["archive"] == "-" else open(options["archive"], "rb")
    lines = source.read().split(b"\n")
    if not lines[0].startswith(MAGIC):
        raise Refused("stream or file does not appear to be a mongodump archive")
    if lines[-2:] != [b"end", b""]:
        raise Refused("corruption found in archive; it ends early")
    wanted = re.compile(re.escape(options.get("nsInclude", "*")).replace(r"\*", ".*"))
    client, count = Client(options), 0
    client.ask("ping")
    for line in lines[1:-2]:
        part = json.loads(line)
        if not wanted.fullmatch(part["db"] + "." + part["collection"]):
            continue
        old = [] if "drop" in options else client.ask("find", db=part["db"], collection=part["collection"])["documents"]
        client.ask("replace", db=part["db"], collection=part["collection"], documents=old + part["documents"])
        count += len(part["documents"])
    print(f"{count} document(s) restored successfully. 0 document(s) failed to restore.", file=sys.stderr)


# mongosh --quiet [DB] --eval TEXT: ping, a count, an insertion, a search, dropDatabase, the
# counts of all collections; a login by auth() with the variables of the first start.
def shell(options, rest):
    text = options.get("eval", "")
    client, db = Client(options), options.get("db") or (rest[0] if rest else "test")
    named = [name for name in re.findall(r"getSiblingDB\(['\"](\w+)['\"]\)", text) if name != "admin"]
    db = named[0] if named else db
    if ".auth(process.env.MONGO_INITDB_ROOT_USERNAME, process.env.MONGO_INITDB_ROOT_PASSWORD)" in text:
        client.login = {"user": os.environ["MONGO_INITDB_ROOT_USERNAME"], "password": os.environ["MONGO_INITDB_ROOT_PASSWORD"]}
    asked = re.search(r"(?:\.|getCollection\(['\"])(\w+)(?:['\"]\))?\.(insertOne|find|countDocuments)\((.*?)\)", text, re.S)
    if "ping" in text:
        client.ask("hello")
        print(1)
    elif "getCollectionNames" in text:
        for one, collection in client.ask("namespaces")["namespaces"]:
            if one == db:
                print(f"{collection}\t{len(client.ask('find', db=db, collection=collection)['documents'])}")
    elif "dropDatabase" in text:
        client.ask("drop_database", db=db)
        print(json.dumps({"ok": 1, "dropped": db}))
    elif asked and asked[2] == "insertOne":
        client.ask("insert", db=db, collection=asked[1], document=json.loads(re.sub(r"(\w+)\s*:", r'"\1":', asked[3]).replace("'", '"')))
        print(json.dumps({"acknowledged": True}))
    elif asked:
        documents = client.ask("find", db=db, collection=asked[1])["documents"]
        print(len(documents) if asked[2] == "countDocuments" else json.dumps(documents, ensure_ascii=False))
    else:
        raise Refused("the stand-in does not know this: " + text)


name = os.path.basename(sys.argv[0])
try:
    given, others = parse(sys.argv[1:])
    if name == "mongodump":
        dump(settings(given))
    elif name == "mongorestore":
        restore(settings(given))
    elif name == "mongosh":
        shell(settings(given), others)
    else:
        serve()
except (Refused, OSError) as err:
    sys.exit(f"Failed: {err}")
