"""Copies for other systems: one of them that hangs costs nobody a span."""

import random
import socket

import harness
import spans
from harness import http

REQUESTS = 150


def test_a_target_that_hangs_starves_nobody(tmp_path, programs):
    """Copies are dropped and counted where they would take memory that spans need; no tenant is refused for them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hung:
        one = harness.AllInOne(tmp_path)
        target = f"127.0.0.1:{hung.getsockname()[1]}"
        limits = tmp_path / "limits.yaml"
        limits.write_text("overrides: {copied: {forwarders: [hung]}}\n")
        config = one.default_config(f"""
multitenancy_enabled: true
memory: {{limit: 400MB}}
overrides:
  per_tenant_override_config: {limits}
  defaults: {{ingestion: {{rate_limit_bytes: 1000000000, burst_size_bytes: 1000000000}}}}
""")
        forwarders = f"  forwarders: [{{name: hung, backend: otlpgrpc, otlpgrpc: {{endpoints: ['{target}'], tls: {{insecure: true}}}}}}]\n"
        (tmp_path / "vivace.yaml").write_text(config.replace("distributor:\n", f"distributor:\n{forwarders}"))
        programs.append(one.program)
        one.start()

        def send(tenant, kilobytes):
            message, _ = spans.request(spans=1)
            span = message.resource_spans[0].scope_spans[0].spans[0]
            for number in range(kilobytes):
                span.attributes.add(key=f"k{number}").value.string_value = random.randbytes(512).hex()
            answer = http(one.otlp_http_url, data=message.SerializeToString(), content_type="application/x-protobuf", X_Scope_OrgID=tenant)
            assert answer.status == 200, (tenant, answer)

        for _ in range(REQUESTS):
            send("copied", 1000)
            send("other", 1)
        assert one.program.rss_bytes() < 500 << 20
        pushes = one.program.metric("tempo_distributor_forwarder_pushes_total", tenant="copied")
        dropped = one.program.metric("tempo_distributor_queue_pushes_failures_total", tenant="copied")
        assert pushes + dropped <= REQUESTS and dropped > 0, (pushes, dropped)
