"""Standard logging with python-json-logger, which writes no trace ids by itself; to stderr, logging's default."""
import logging

import work
from pythonjsonlogger.json import JsonFormatter

handler = logging.StreamHandler()
handler.setFormatter(
    JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "timestamp", "levelname": "severity"},
    )
)
logger = logging.getLogger("billing")
logger.addHandler(handler)
logger.setLevel(logging.DEBUG)
logger.propagate = False


def log(level, text, **fields):
    # `name` is the logger's own attribute: the standard library refuses to overwrite it.
    extra = {("customer" if key == "name" else key): value for key, value in fields.items()}
    getattr(logger, level)(text, extra=extra)


logger.info("listening")
for number in range(work.REQUESTS):
    work.behave(number, log)
logger.info("closed")
