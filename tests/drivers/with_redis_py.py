"""redis-py, with its own pool and its own retries."""

import asyncio
import sys
import threading

import redis
from steps import outcome, serve

address, port = sys.argv[1].split(":")
client = redis.Redis(host=address, port=int(port), decode_responses=True)
held = {}


def open_pool():
    client.set("order:1", "A")


def begin():
    held["pipeline"] = client.pipeline(transaction=True)
    held["pipeline"].watch("order:1")
    held["pipeline"].multi()
    held["pipeline"].set("order:1", "A, in a transaction")

    # Another connection of the pool waits for work meanwhile.
    def wait():
        held["waited"] = asyncio.run(outcome(lambda: client.blpop("work", 0)))

    held["waiting"] = threading.Thread(target=wait, daemon=True)
    held["waiting"].start()


def commit():
    held.pop("pipeline").execute()


def blocked():
    held["waiting"].join(30)
    return held.get("waited", "waits on")


def write():
    client.set("order:1", "A")


def read():
    return client.get("order:1")


asyncio.run(serve({"open": open_pool, "begin": begin, "commit": commit, "blocked": blocked, "write": write, "read": read}))
