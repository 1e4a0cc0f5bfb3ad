"""The messages of the query API as Grafana's Tempo data source (13.1.5) knows them: it refuses answers in JSON that have any other member.

Written here and not read from `proto/`, which may come to say more than that client knows.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.common.v1 import common_pb2

FIELDS = {
    "SearchRequest": "Limit=4:uint32 start=5:uint32 end=6:uint32 Query=8:string SpansPerSpanSet=9:uint32",
    "SearchResponse": "traces=1:*TraceSearchMetadata metrics=2:SearchMetrics",
    "TraceSearchMetadata": "traceID=1:string rootServiceName=2:string rootTraceName=3:string startTimeUnixNano=4:uint64"
    " durationMs=5:uint32 spanSet=6:SpanSet spanSets=7:*SpanSet serviceStats=8:*ServiceStatsEntry",
    "ServiceStatsEntry": "key=1:string value=2:ServiceStats",
    "ServiceStats": "spanCount=1:uint32 errorCount=2:uint32",
    "SpanSet": "spans=1:*Span matched=2:uint32 attributes=3:*KeyValue",
    "Span": "spanID=1:string name=2:string startTimeUnixNano=3:uint64 durationNanos=4:uint64 attributes=5:*KeyValue",
    "SearchMetrics": "inspectedTraces=1:uint32 inspectedBytes=2:uint64 totalBlocks=3:uint32 completedJobs=4:uint32 totalJobs=5:uint32"
    " totalBlockBytes=6:uint64 inspectedSpans=7:uint64",
    "QueryRangeRequest": "query=1:string start=2:uint64 end=3:uint64 step=4:uint64 exemplars=16:uint32",
    "QueryRangeResponse": "series=1:*TimeSeries metrics=2:SearchMetrics",
    "TimeSeries": "labels=1:*KeyValue samples=2:*Sample exemplars=4:*Exemplar",
    "Sample": "value=1:double timestamp_ms=2:int64",
    "Exemplar": "labels=1:*KeyValue value=2:double timestamp_ms=3:int64",
    "QueryInstantRequest": "query=1:string start=2:uint64 end=3:uint64",
    "QueryInstantResponse": "series=1:*InstantSeries metrics=2:SearchMetrics",
    "InstantSeries": "labels=1:*KeyValue value=2:double",
}


def classes():
    file = descriptor_pb2.FileDescriptorProto(name="grafana_tempo.proto", package="grafana", syntax="proto3")
    file.dependency.append(common_pb2.DESCRIPTOR.name)
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        # An entry of a map lies within the message that has the map.
        if name == "ServiceStatsEntry":
            file.message_type.pop()
            owner = next(m for m in file.message_type if m.name == "TraceSearchMetadata")
            message = owner.nested_type.add(name=name)
            message.options.map_entry = True
        for text in fields.split():
            field, kind = text.split(":")
            field, number = field.split("=")
            added = message.field.add(name=field, number=int(number), label=3 if kind.startswith("*") else 1)
            kind = kind.removeprefix("*")
            if kind in ("uint32", "uint64", "int64", "double", "string"):
                added.type = getattr(added, f"TYPE_{kind.upper()}")
            else:
                added.type = added.TYPE_MESSAGE
                outer = {"KeyValue": ".opentelemetry.proto.common.v1", "ServiceStatsEntry": ".grafana.TraceSearchMetadata"}
                added.type_name = f"{outer.get(kind, '.grafana')}.{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    names = [name for name in FIELDS if name != "ServiceStatsEntry"]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grafana.{name}")) for name in names}


globals().update(classes())
