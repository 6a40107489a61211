#!/usr/bin/env python3
# httpd.py: an HTTP server for specs that also answers wrongly, slowly or not at all.
#	httpd.py FOLDER
# Listens on loopback without TLS ("plain"), with each certificate of httpd.sh ("good",
# "wrong", "expired", "self"), where nobody speaks ("silent"), and on FOLDER/http.sock. It
# prints a line "NAME PORT" for each, then "ready", and ends with its standard input.
import hashlib
import json
import socket
import ssl
import sys
import threading
import time

folder = sys.argv[1]
ports = {}
swallowed = []  # requests that got no answer


def read_request(f):
    line = f.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while True:
        line = f.readline()
        if line in (b"\r\n", b""):
            break
        name, value = line.decode("latin-1").split(":", 1)
        headers.setdefault(name.lower(), []).append(value.strip())
    body = f.read(int(headers.get("content-length", ["0"])[0]))
    return method, path, headers, body


def reply(c, status=200, body=b"", headers=(), length=None):
    head = "HTTP/1.1 %d Some text\r\nContent-Length: %d\r\n" % (status, len(body) if length is None else length)
    head += "".join(line + "\r\n" for line in headers) + "\r\n"
    c.sendall(head.encode("latin-1") + body)


def redirect(c, where, status=302):
    reply(c, status, b"elsewhere", ["Location: " + where])


# Returns False when the connection is to be closed.
def answer(c, name, method, path, headers, body):
    word, _, rest = path[1:].partition("/")
    if word == "echo":
        text = json.dumps({
            "method": method, "path": path, "headers": headers, "server": name,
            "body": body[:1000].decode("ascii", "ignore").replace("\0", ""), "sha256": hashlib.sha256(body).hexdigest(),
        })
        reply(c, 200, b"" if method == "HEAD" else text.encode(), ["Content-Type: application/json"], len(text))
    elif word == "status":
        reply(c, int(rest), b"said " + rest.encode())
    elif word == "headers":
        reply(c, 200, b"", ["X-One: 1", "X-ONE:   2 ", "Set-Cookie: a=1, x", "Set-Cookie: b=2", "X-Empty:"])
    elif word == "loop":
        redirect(c, "/loop")
    elif word == "hop":
        redirect(c, "/echo" if rest == "0" else "/hop/%d" % (int(rest) - 1))
    elif word == "to":  # /to/PORTNAME/scheme/host
        where, scheme, host = rest.split("/")[:3]
        redirect(c, "%s://%s:%d/echo" % (scheme, host, ports[where]))
    elif word == "file":
        redirect(c, "file:///etc/passwd")
    elif word == "ftp":
        redirect(c, "ftp://127.0.0.1/x")
    elif word == "slow":
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            c.sendall(b"x")
            time.sleep(0.1)
    elif word == "wait":
        time.sleep(float(rest))
        reply(c, 200, b"waited")
    elif word == "huge":
        c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        block = b"h" * 65536
        while True:
            c.sendall(block)
    elif word == "bytes":
        reply(c, 200, bytes(i % 251 for i in range(int(rest))))
    elif word == "chunked":
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    elif word == "badchunk":
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
        return False
    elif word == "drop":
        reply(c, 200, b"only this", length=1000)
        return False
    elif word == "empty":
        swallowed.append(method)
        return False
    elif word == "count":
        reply(c, 200, b"%d" % len(swallowed))
    elif word == "garbage":
        c.sendall(b"\x00\xff\x01 this is not HTTP\r\n\r\n")
        return False
    elif word == "flood":
        c.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            c.sendall(b"X-Flood: " + b"y" * 1000 + b"\r\n")
    else:
        reply(c, 404, b"nothing here")
    return True


def serve(c, name, context):
    try:
        if name == "silent":
            time.sleep(60)
            return
        if context:
            c = context.wrap_socket(c, server_side=True)
        f = c.makefile("rb")
        while True:
            request = read_request(f)
            if not request or not answer(c, name, *request):
                break
        f.close()
    except (OSError, ValueError):
        pass
    finally:
        c.close()


def listen(s, name, context=None):
    s.listen(200)

    def accept():
        while True:
            c, _ = s.accept()
            threading.Thread(target=serve, args=(c, name, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


for name in ("plain", "good", "wrong", "expired", "self", "silent"):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    context = None
    if name not in ("plain", "silent"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("%s/%s.pem" % (folder, name), "%s/%s.key" % (folder, name))
    ports[name] = s.getsockname()[1]
    listen(s, name, context)
    print(name, ports[name])
s = socket.socket(socket.AF_UNIX)
s.bind(folder + "/http.sock")
listen(s, "unix")
print("ready", flush=True)
sys.stdin.read()
