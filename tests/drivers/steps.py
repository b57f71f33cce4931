"""The steps that every driver goes through, one a line on standard input; what came of each on standard output."""

import asyncio
import inspect
import sys
import time


def told(error):
    """An error in one line: its class, its SQLSTATE where it has one, and its first words."""
    state = getattr(error, "sqlstate", None)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{' ' + state if state else ''}: {text[:110]}"


async def outcome(step):
    began = time.monotonic()
    try:
        answer = step()
        if inspect.isawaitable(answer):
            answer = await answer
        result = "ok" if answer is None else f"ok: {answer}"
    except Exception as error:  # whatever it is: it is what the table is about
        result = told(error)
    return f"{result} [{time.monotonic() - began:.1f} s]"


async def serve(steps):
    """`steps` has a function for each line; `again` is made of `write`."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name = line.strip()
        if name == "again":
            print(await again(steps["write"]), flush=True)
        else:
            print(await outcome(steps[name]), flush=True)


async def again(write):
    """Writes until it succeeds: how many attempts failed before, and with what at first."""
    failures = []
    began = time.monotonic()
    while time.monotonic() - began < 60:
        result = await outcome(write)
        if result.startswith("ok"):
            return f"after {len(failures)} failures{', first ' + failures[0] if failures else ''} [{time.monotonic() - began:.1f} s]"
        failures.append(result)
        await asyncio.sleep(0.05)
    return f"never: {len(failures)} failures, last {failures[-1]}"
