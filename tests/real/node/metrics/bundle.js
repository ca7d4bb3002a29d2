// express with express-prom-bundle, which brings a metric `up` of its own.
'use strict';
const express = require('express');
const bundle = require('express-prom-bundle');
const { answer, wait } = require('./routes');

const app = express();
app.disable('x-powered-by');
app.use(bundle({
  includeMethod: true,
  includePath: true,
  includeUp: true,
  normalizePath: [['^/orders/.*', '/orders/#id'], ['^/fail/.*', '/fail/#id'], ['^/wait/.*', '/wait/#ms']],
  promClient: { collectDefaultMetrics: {} },
}));
app.get('/orders/:id', (request, response) => response.json({ id: request.params.id }));
app.get('/fail/:id', (request, response) => response.status(answer('fail')).json({}));
app.get('/wait/:ms', (request, response) => setTimeout(() => response.json({}), wait(request.params.ms)));
const server = app.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
