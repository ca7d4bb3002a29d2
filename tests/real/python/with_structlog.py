"""structlog with a processor that adds the ids of OpenTelemetry's current span, as its documentation shows."""
import structlog
import work
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("work")


def add_trace(_logger, _method, event):
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        add_trace,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
)
logger = structlog.get_logger()
logger.info("listening")
for number in range(work.REQUESTS):
    caller = trace.SpanContext(work.trace_id(number), 0x00F067AA0BA902B7, is_remote=True, trace_flags=trace.TraceFlags(1))
    with tracer.start_as_current_span("work", context=trace.set_span_in_context(trace.NonRecordingSpan(caller))):
        bound = logger.bind(request_id=f"r-{number}")
        work.behave(number, lambda level, text, **fields: getattr(bound, level)(text, **fields))
    # After the span: the request id still tells which trace this belongs to.
    bound.info("answer sent")
logger.info("closed")
