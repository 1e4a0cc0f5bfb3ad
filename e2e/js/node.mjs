// node node.mjs EXPORTER URL: sends a trace as an application in Node.js does, and prints its id.

import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';

import { order, RESOURCE } from './trace.mjs';

const MODULES = {
  'otlp-grpc': ['@opentelemetry/exporter-trace-otlp-grpc', 'OTLPTraceExporter'],
  'otlp-proto': ['@opentelemetry/exporter-trace-otlp-proto', 'OTLPTraceExporter'],
  'otlp-json': ['@opentelemetry/exporter-trace-otlp-http', 'OTLPTraceExporter'],
  jaeger: ['@opentelemetry/exporter-jaeger', 'JaegerExporter'],
  zipkin: ['@opentelemetry/exporter-zipkin', 'ZipkinExporter'],
};

const [exporter, url, compression] = process.argv.slice(2);
const [module, name] = MODULES[exporter];
const options = exporter === 'jaeger' ? { endpoint: url } : { url, compression };
const provider = new NodeTracerProvider({
  resource: defaultResource().merge(resourceFromAttributes(RESOURCE)),
  spanProcessors: [new BatchSpanProcessor(new (await import(module))[name](options))],
});
const id = order(provider);
await provider.shutdown();
console.log(id);
