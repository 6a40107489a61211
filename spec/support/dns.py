#!/usr/bin/env python3
# dns.py: a stand-in for the internet's name servers, for specs: a resolver and the one
# server that owns the zones, at two addresses of the loopback.
#	dns.py FILE RESOLVER:PORT AUTHORITATIVE
# FILE is read at each question: { "zones": ["acme.example"], "resolver": { NAME: ADDRESS },
# "authoritative": { NAME: ADDRESS } }. Prints "ready"; ends with its standard input. It
# knows A and NS alone, no cache and no delegation.
import json
import os
import socket
import struct
import sys
import threading

path, resolver, own = sys.argv[1:4]


def name_at(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 5


def wire(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"


def answer(data, who):
    name, end = name_at(data, 12)
    kind = struct.unpack(">H", data[end - 4:end - 2])[0]
    with open(path, encoding="utf-8") as f:
        known = json.load(f)
    body, count = b"", 0
    if kind == 2 and name in known["zones"]:
        target = wire("ns1." + name)
        body, count = b"\xc0\x0c" + struct.pack(">HHIH", 2, 1, 60, len(target)) + target, 1
    address = own if name.startswith("ns1.") else known[who].get(name)
    if kind == 1 and address:
        body, count = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address), 1
    return data[:2] + struct.pack(">HHHHH", 0x8580, 1, count, 0, 0) + data[12:end] + body


def serve(address, port, who):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, port))

    def loop():
        while True:
            data, peer = s.recvfrom(4096)
            try:
                s.sendto(answer(data, who), peer)
            except (IndexError, ValueError, OSError):
                pass
    threading.Thread(target=loop, daemon=True).start()


host, _, number = resolver.partition(":")
serve(host, int(number), "resolver")
serve(own, 53, "authoritative")
print("ready", flush=True)
while os.read(0, 4096):
    pass
