"""An application that uses OpenTelemetry as its documentation says, and signs: one call, then many
at once, then one refused.
"""

from __future__ import annotations

import asyncio
import contextlib

import capsign
from capsign_wire.intents import new_intent_id
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

AT_ONCE = 24

provider = TracerProvider(resource=Resource.create({"service.name": "app"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")


async def many() -> None:
    async with capsign.AsyncSigner() as signer:

        async def one(number: int) -> None:
            with tracer.start_as_current_span("many"):
                await signer.sign(b"%d" % number, purpose="artifact", algorithm="ES256")

        await asyncio.gather(*[one(number) for number in range(AT_ONCE)])


with capsign.Signer() as signer, capsign.Signer(coalesce=False) as unary:
    intent_id = new_intent_id()
    with tracer.start_as_current_span("streamed"):
        signer.sign(b"m", purpose="artifact", algorithm="ES256", intent_id=intent_id)
    with tracer.start_as_current_span("unary"):
        unary.sign(b"m", purpose="artifact", algorithm="ES256")
    with tracer.start_as_current_span("refused"), contextlib.suppress(capsign.Refused):
        signer.sign(b"another", purpose="artifact", algorithm="ES256", intent_id=intent_id)
asyncio.run(many())
provider.shutdown()
