"""asyncpg and its pool."""

import asyncio
import sys

import asyncpg
from steps import serve

address, port = sys.argv[1].split(":")
held = {}


async def main():
    pool = asyncpg.create_pool(host=address, port=int(port), user="app", database="postgres", ssl=False, min_size=2, max_size=4, timeout=5)

    async def open_pool():
        await pool
        async with pool.acquire() as one, pool.acquire() as other:
            await one.execute("UPDATE orders SET by_whom = 'A'")
            await other.execute("SELECT 1")

    async def begin():
        held["connection"] = await pool.acquire()
        held["transaction"] = held["connection"].transaction()
        await held["transaction"].start()
        await held["connection"].execute("UPDATE orders SET by_whom = 'A, in a transaction'")

    async def commit():
        try:
            await held["transaction"].commit()
        finally:
            await pool.release(held["connection"])

    async def write():
        async with pool.acquire() as connection:
            await connection.execute("UPDATE orders SET by_whom = 'A'")

    await serve({"open": open_pool, "begin": begin, "commit": commit, "write": write})


asyncio.run(main())
