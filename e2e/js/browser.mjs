// The script of a page: sends a trace to the address that the page's own names, and shows its id.

import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import { SimpleSpanProcessor, WebTracerProvider } from '@opentelemetry/sdk-trace-web';

import { order, RESOURCE } from './trace.mjs';

const url = new URLSearchParams(location.search).get('to');
const exporter = new OTLPTraceExporter({ url, headers: { 'x-application': 'page' } });
const provider = new WebTracerProvider({ resource: defaultResource().merge(resourceFromAttributes(RESOURCE)), spanProcessors: [new SimpleSpanProcessor(exporter)] });
const id = order(provider);
await provider.shutdown();
document.title = id;
await fetch('/sent', { method: 'POST', body: id });
