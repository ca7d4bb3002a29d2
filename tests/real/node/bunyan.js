// bunyan on a plain http server. Version 2 gets no trace id from the instrumentation: the serialised request's header has it.
'use strict';
const http = require('node:http');
const bunyan = require('bunyan');
const drive = require('./drive');

const logger = bunyan.createLogger({ name: 'cart', level: 'trace', serializers: bunyan.stdSerializers });
const server = http.createServer((request, response) => {
  const log = logger.child({ req: request });
  const status = drive.behave(request.url, (level, fields, text) => log[level](fields, text));
  response.writeHead(status).end();
});
server.listen(0, '127.0.0.1', () => {
  logger.info('listening');
  drive(server.address().port, () => server.close(() => logger.fatal('closed')));
});
