// fastify with fastify-metrics.
'use strict';
const fastify = require('fastify');
const metrics = require('fastify-metrics');
const { answer, wait } = require('./routes');

const app = fastify({ logger: true });
app.register(metrics, { endpoint: '/metrics' });
app.after(() => {
  app.get('/orders/:id', async (request) => ({ id: request.params.id }));
  app.get('/fail/:id', async (request, reply) => {
    reply.code(answer('fail'));
    return {};
  });
  app.get('/wait/:ms', (request, reply) => {
    // What a handler returns is its answer.
    setTimeout(() => reply.send({}), wait(request.params.ms));
  });
});
app.listen({ port: 0, host: '127.0.0.1' }).then(() => console.log(JSON.stringify({ port: app.server.address().port })));
