"""What both Python services do: REQUESTS pieces of work, each told to `log(level, text, **fields)`."""
import os
import time

REQUESTS = int(os.environ.get("REQUESTS", "20"))
PAUSE = int(os.environ.get("PAUSE_MS", "0")) / 1000
SEED = os.environ.get("SEED", "00000000000000bb")


def trace_id(number):
    """The trace id of a piece of work: the test works out the same."""
    return int(SEED + f"{number + 1:016x}", 16)


def behave(number, log):
    """One piece of work."""
    order = f"o-{number}"
    kind = number % 6
    if kind == 0:
        log("info", "order placed", order=order, amount=12.5, tags=["a", {"b": None}])
    elif kind == 1:
        log("warning", "slow query", order=order, ms=1203.5)
    elif kind == 2:
        try:
            raise ValueError(f'cannot charge {order}: "declined"')
        except ValueError:
            log("exception", "payment failed", order=order)
    elif kind == 3:
        log("info", "tab\there\nand a newline", order=order, name="Zoë \u2028 \u0000 \u001b[31m 漢字 🚀")
    elif kind == 4:
        log("critical", "large answer", order=order, blob="x" * 40_000, tail="end")
    else:
        for at in range(50):
            log("debug" if at % 10 == 9 else "info", "in a burst", order=order, at=at)
    if PAUSE:
        time.sleep(PAUSE)
