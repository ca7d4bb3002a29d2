// express with pino-http and prom-client: default metrics, a histogram of requests with exemplars where OpenMetrics is asked for.
'use strict';
const express = require('express');
const pino = require('pino');
const pinoHttp = require('pino-http');
const client = require('prom-client');
const { answer, wait } = require('./routes');

const openMetrics = process.env.OPENMETRICS === '1';
const register = new client.Registry();
if (openMetrics) register.setContentType(client.Registry.OPENMETRICS_CONTENT_TYPE);
client.collectDefaultMetrics({ register });
const seconds = new client.Histogram({
  name: 'http_request_duration_seconds',
  help: 'Duration of HTTP requests in seconds, by "route" and\nstatus \\ code',
  labelNames: ['method', 'route', 'status_code'],
  buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  enableExemplars: openMetrics,
  registers: [register],
});
const jobs = new client.Gauge({ name: 'jobs', help: 'Jobs.', labelNames: ['odd'], registers: [register] });
jobs.set({ odd: 'a "quoted" \\ value\nwith a newline' }, NaN);
jobs.set({ odd: 'über' }, -0.5);
jobs.set({ odd: '' }, Number.POSITIVE_INFINITY);

const app = express();
app.disable('x-powered-by');
app.get('/metrics', async (request, response) => {
  response.set('Content-Type', register.contentType).end(await register.metrics());
});
app.use(pinoHttp({ logger: pino() }));
app.use((request, response, next) => {
  const begun = process.hrtime.bigint();
  response.on('finish', () => {
    const labels = {
      method: request.method,
      route: request.route ? request.route.path : 'unmatched',
      status_code: response.statusCode,
    };
    const value = Number(process.hrtime.bigint() - begun) / 1e9;
    const trace = (request.headers.traceparent || '').split('-');
    if (openMetrics) {
      const exemplarLabels = trace.length === 4 ? { trace_id: trace[1], span_id: trace[2] } : {};
      seconds.observe({ labels, value, exemplarLabels });
    } else {
      seconds.observe(labels, value);
    }
  });
  next();
});
app.get('/orders/:id', (request, response) => response.json({ id: request.params.id }));
app.get('/fail/:id', (request, response) => response.status(answer('fail')).json({}));
app.get('/wait/:ms', (request, response) => setTimeout(() => response.json({}), wait(request.params.ms)));
const server = app.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
