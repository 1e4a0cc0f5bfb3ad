// One trace of two spans, the one that all clients of the tests send.

import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';

export const RESOURCE = { 'service.name': 'shop', 'deployment.environment': 'e2e' };

/** Returns the trace's id. */
export function order(provider) {
  const tracer = provider.getTracer('orders', '1.0');
  const earlier = tracer.startSpan('earlier');
  earlier.end();
  const attributes = { 'order.number': 7, 'order.total': 1.5, vip: true, customer: 'Zoë', items: ['a', 'b'] };
  const links = [{ context: earlier.spanContext(), attributes: { why: 'retry' } }];
  const root = tracer.startSpan('POST /order', { kind: SpanKind.SERVER, attributes, links, root: true });
  const child = tracer.startSpan('charge', { kind: SpanKind.CLIENT }, trace.setSpan(context.active(), root));
  child.addEvent('retry', { attempt: '2' });
  child.setStatus({ code: SpanStatusCode.ERROR, message: 'card declined' });
  child.end();
  root.end();
  return root.spanContext().traceId;
}
