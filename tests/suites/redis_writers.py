"""Writers at a Redis, each at an address of its own, and what came of every write: a history for `epochgate verify`.

    redis_writers.py write SECONDS OUT A [B]     writes; what the writers saw goes to OUT.clients.jsonl
    redis_writers.py applied TARGET OUT          what the server has applied, to OUT.db.jsonl; OUT.guard.jsonl has the terms

A write is one script that puts its own name, and the server's time, behind all others of one list. So the list is the order
in which the server applied them. No write knows its epoch: what one writer put there in one go is taken for the next term
that was that writer's. Where the list cannot be told so, a write of an old leader stands behind one of a new one.
"""

import json
import socket
import sys
import threading
import time

PUSH = "local t = redis.call('TIME') return redis.call('RPUSH', 'applied', ARGV[1] .. ' ' .. t[1] .. string.format('%06d', t[2]))"


class Closed(Exception):
    pass


class Connection:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.replies = self.socket.makefile("rb")

    def send(self, *words):
        words = [word.encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))

    def reply(self):
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise Closed
        form, text = line[:1], line[1:-2].decode()
        if form == b"$":
            return self.replies.read(int(text) + 2)[:-2].decode()
        return [self.reply() for _ in range(int(text))] if form == b"*" else (form + text.encode()).decode()


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def write(name, address, until, say):
    """Until then, a few hundred times a second."""
    connection, nth = None, 0
    while time.monotonic() < until:
        try:
            connection = connection or Connection(address)
        except OSError:
            time.sleep(0.05)
            continue
        nth += 1
        op = f"{name}{nth}"
        say(event="sent", op=op, resource="orders", target="db")
        try:
            connection.send("EVAL", PUSH, "1", "applied", op)
            told = connection.reply()
        except (OSError, Closed):
            told, connection = "-closed", None
        answered = told.startswith(":")
        outcome = "answered" if answered else "not_applied" if "outcome not_applied" in told else "unknown"
        say(event="ended", op=op, outcome=outcome)
        time.sleep(0.001 if answered else 0.02)


def write_all(seconds, out, *addresses):
    until, lock = time.monotonic() + float(seconds), threading.Lock()
    with open(out + ".clients.jsonl", "w", encoding="utf-8") as file:

        def say(**line):
            with lock:
                file.write(json.dumps({"at": now(), "from": "clients", **line}) + "\n")

        writers = [threading.Thread(target=write, args=(*of, until, say)) for of in zip("ab", addresses)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()


def terms(out):
    """The terms that the guard has had, in order: epoch, and the writer's letter."""
    with open(out + ".guard.jsonl", encoding="utf-8") as file:
        seen = {int(line["epoch"]): line["writer"][-1] for line in map(json.loads, file) if line["event"] == "verified"}
    return sorted(seen.items())


def applied(target, out):
    connection, left, epoch, last = Connection(target), terms(out), None, None
    connection.send("LRANGE", "applied", "0", "-1")
    to_boot = now() - time.time_ns()
    with open(out + ".db.jsonl", "w", encoding="utf-8") as file:
        for seq, entry in enumerate(connection.reply()):
            op, micros = entry.split(" ")
            while op[0] != last:
                if not left:
                    sys.exit(f"{op} stands where no term of its writer's is left")
                epoch, last = left.pop(0)
            line = {"event": "applied", "target": "db", "resource": "orders", "op": op, "epoch": str(epoch), "seq": seq}
            file.write(json.dumps({"at": int(micros) * 1000 + to_boot, "from": "db", **line}) + "\n")


{"write": write_all, "applied": applied}[sys.argv[1]](*sys.argv[2:])
