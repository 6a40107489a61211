#!/usr/bin/env python3
# slowproxy.py: a bad network between a spec and its server, on loopback.
#	slowproxy.py PORT proxy TO_PORT DELAY_MS BYTES_PER_SECOND   (0: no limit)
#	slowproxy.py PORT silent | close | garbage | endless | banner
# SIGUSR1 makes the proxy swallow everything from then on, with the connections open, and
# SIGUSR2 resets them. It speaks no SSH.
import asyncio
import signal
import socket
import struct
import sys

port, mode = int(sys.argv[1]), sys.argv[2]
swallow = False
writers = set()


async def pump(reader, writer, delay, rate):
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue(64)

    async def feed():
        try:
            while True:
                data = await reader.read(16384 if not rate else max(256, rate // 50))
                await queue.put((loop.time() + delay, data))
                if not data:
                    return
        except ConnectionError:
            await queue.put((loop.time(), b""))

    task = asyncio.create_task(feed())
    try:
        while True:
            due, data = await queue.get()
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            if swallow:
                continue
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            if rate:
                await asyncio.sleep(len(data) / rate)
    except (ConnectionError, OSError):
        pass
    finally:
        await task


async def proxy(reader, writer):
    delay, rate = float(sys.argv[4]) / 1000, int(sys.argv[5])
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[3]))
    writers.update((writer, to_writer))
    await asyncio.gather(pump(reader, to_writer, delay, rate), pump(to_reader, writer, delay, rate))
    for w in (writer, to_writer):
        writers.discard(w)
        w.close()


async def serve(reader, writer):
    try:
        if mode == "close":
            writer.close()
        elif mode == "garbage":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nwho are you?\r\n")
            await writer.drain()
            writer.close()
        elif mode == "endless":
            while True:
                writer.write(b"x" * 4095 + b"\n")
                await writer.drain()
        elif mode == "banner":
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            writer.write(bytes(range(256)) * 40)
            await writer.drain()
            await reader.read()
        else:
            while await reader.read(4096):
                pass
    except ConnectionError:
        pass


def on_swallow():
    global swallow
    swallow = True


def on_reset():
    for w in list(writers):
        sock = w.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        w.transport.abort()


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, on_swallow)
    loop.add_signal_handler(signal.SIGUSR2, on_reset)
    server = await asyncio.start_server(proxy if mode == "proxy" else serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


asyncio.run(main())
