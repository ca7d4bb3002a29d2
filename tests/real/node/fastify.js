// fastify with its built-in pino logger.
'use strict';
const fastify = require('fastify');
const drive = require('./drive');

const app = fastify({ logger: { level: 'trace' } });
app.get('/*', async (request, reply) => {
  const status = drive.behave(request.url, (level, fields, text) => request.log[level](fields, text));
  reply.code(status);
  return { status };
});
app.listen({ port: 0, host: '127.0.0.1' }).then(() => {
  drive(app.server.address().port, () => app.close());
});
