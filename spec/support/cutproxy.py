#!/usr/bin/env python3
# cutproxy.py: a connection between a spec's server and its peer that breaks off in the middle.
#	cutproxy.py ADDRESS PORT TO_PORT BYTES
# It listens on ADDRESS (on a free port if PORT is 0, which it prints) and passes on to TO_PORT
# there. When BYTES have gone through it, of both directions and all connections together, all are
# reset, and so is each that begins later; it says "cut" then. It never cuts where BYTES is 0.
import asyncio
import socket
import struct
import sys

address, port, to_port, left = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
limited = left > 0
writers = set()


def reset(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def pump(reader, writer):
    global left
    try:
        while data := await reader.read(16384):
            if limited:
                if left > 0 >= left - len(data):
                    print("cut", flush=True)
                left -= len(data)
                if left <= 0:
                    for w in list(writers):
                        reset(w)
                    return
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass


async def serve(reader, writer):
    if limited and left <= 0:
        reset(writer)
        return
    try:
        to_reader, to_writer = await asyncio.open_connection(address, to_port)
    except OSError:
        reset(writer)
        return
    both = {writer, to_writer}
    writers.update(both)
    await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))
    writers.difference_update(both)
    for w in both:
        w.close()


async def main():
    server = await asyncio.start_server(serve, address, port)
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
