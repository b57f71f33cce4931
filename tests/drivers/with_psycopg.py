"""psycopg 3 and its pool. `checked`: with the pool's own check of a connection before it is handed out."""

import asyncio
import sys

from psycopg_pool import ConnectionPool
from steps import serve

address, port = sys.argv[1].split(":")
check = ConnectionPool.check_connection if "checked" in sys.argv else None
pool = ConnectionPool(
    f"host={address} port={port} user=app dbname=postgres", min_size=2, max_size=4, timeout=5, check=check, open=False
)
kept = []


def open_pool():
    pool.open(wait=True, timeout=30)
    # Two connections at a time, so that there are two.
    with pool.connection() as one, pool.connection() as other:
        one.execute("UPDATE orders SET by_whom = 'A'")
        other.execute("SELECT 1")


def begin():
    kept.append(pool.getconn())
    kept[0].execute("UPDATE orders SET by_whom = 'A, in a transaction'")


def commit():
    try:
        kept[0].commit()
    finally:
        pool.putconn(kept.pop())


def write():
    with pool.connection() as connection:
        connection.execute("UPDATE orders SET by_whom = 'A'")


asyncio.run(serve({"open": open_pool, "begin": begin, "commit": commit, "write": write}))
