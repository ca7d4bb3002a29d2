// OpenTelemetry's automatic instrumentation, as a service would load it (`node --require ./otel.js`). Spans are recorded, so that
// each has an id of its own, and go nowhere.
'use strict';
const { NodeSDK } = require('@opentelemetry/sdk-node');
const { getNodeAutoInstrumentations } = require('@opentelemetry/auto-instrumentations-node');

const discard = {
  onStart() {},
  onEnd() {},
  forceFlush: async () => {},
  shutdown: async () => {},
};

new NodeSDK({
  serviceName: process.env.OTEL_SERVICE_NAME || 'real-service',
  spanProcessors: [discard],
  logRecordProcessors: [],
  metricReaders: [],
  instrumentations: [getNodeAutoInstrumentations({ '@opentelemetry/instrumentation-fs': { enabled: false } })],
}).start();
