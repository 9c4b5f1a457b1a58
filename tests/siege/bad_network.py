"""A bad line to a server: everything on 127.0.0.3 goes to the same port of 127.0.0.1, late, slowly, in pieces, and cut off.

bad_network.py DELAY_MS BYTES_A_SECOND CUT_AFTER PORT...   (CUT_AFTER: bytes to the server after which a connection is reset,
somewhere between a third of it and all of it; 0: never). Prints a line when it listens.
"""
import asyncio
import random
import socket
import struct
import sys

delay, rate, cut_after, ports = float(sys.argv[1]) / 1000, float(sys.argv[2]), int(sys.argv[3]), map(int, sys.argv[4:])
rng = random.Random(1)


async def carry(reader, writer, budget):
    """One direction: pieces of at most a packet, each after its delay; more are under way meanwhile."""
    queue = asyncio.Queue(64)

    async def send():
        while (item := await queue.get()) is not None:
            due, piece = item
            await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    sender = asyncio.create_task(send())
    try:
        while piece := await reader.read(rng.randint(1, 1400)):
            if budget is not None:
                budget -= len(piece)
                if budget < 0:
                    raise ConnectionResetError
            await asyncio.sleep(len(piece) / rate)
            await queue.put((asyncio.get_running_loop().time() + delay, piece))
        await queue.put(None)
        await sender
    finally:
        sender.cancel()


def reset(writer):
    """RST instead of FIN, as a router that has forgotten the connection."""
    sock = writer.get_extra_info("socket")
    if sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def line_to(port):
    async def line(reader, writer):
        budget = rng.randint(cut_after // 3, cut_after) if cut_after else None
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return reset(writer)
        try:
            await asyncio.gather(carry(reader, to_writer, budget), carry(to_reader, writer, None))
        except (OSError, RuntimeError):
            reset(writer)
            reset(to_writer)
        for each in (writer, to_writer):
            each.close()
    return line


async def main():
    for port in ports:
        await asyncio.start_server(line_to(port), "127.0.0.3", port)
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
