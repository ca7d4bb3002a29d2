// express with pino and pino-http; run with or without `--require ./otel.js`.
'use strict';
const express = require('express');
const pino = require('pino');
const pinoHttp = require('pino-http');
const drive = require('./drive');

const logger = pino({ level: 'trace' });
const app = express();
app.disable('x-powered-by');
app.use(pinoHttp({ logger }));
app.use((request, response) => {
  const status = drive.behave(request.path, (level, fields, text) => request.log[level](fields, text));
  response.status(status).json({ status });
});
const server = app.listen(0, '127.0.0.1', () => {
  logger.info({ port: server.address().port }, 'listening');
  drive(server.address().port, () => {
    logger.fatal('going away');
    server.close();
  });
});
