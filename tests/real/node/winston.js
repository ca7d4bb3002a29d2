// winston's JSON format on a plain http server; errors go to stderr.
'use strict';
const http = require('node:http');
const winston = require('winston');
const drive = require('./drive');

const { combine, timestamp, json, errors } = winston.format;
const logger = winston.createLogger({
  level: 'silly',
  format: combine(errors({ stack: true }), timestamp(), json()),
  transports: [new winston.transports.Console({ stderrLevels: ['error'] })],
});
const server = http.createServer((request, response) => {
  const status = drive.behave(request.url, (level, { err, ...fields }, text) => {
    logger.log(level, text, err ? { ...fields, stack: err.stack } : fields);
  });
  response.writeHead(status).end();
});
server.listen(0, '127.0.0.1', () => {
  logger.info('listening');
  drive(server.address().port, () => server.close(() => logger.info('closed')));
});
