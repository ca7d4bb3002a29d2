// Makes a service of this directory call itself: N requests over loopback, one after the other, each with a traceparent that the test
// can work out: trace id = SEED (16 hex digits) and the request's number (16 hex digits). Then the service ends by itself.
//
// Environment: REQUESTS (default 20), PAUSE_MS between two requests (default 0), SEED (16 hex digits).
'use strict';
const http = require('node:http');

const requests = Number(process.env.REQUESTS || 20);
const pause = Number(process.env.PAUSE_MS || 0);
const seed = process.env.SEED || '00000000000000aa';
const hex = (number) => number.toString(16).padStart(16, '0');

// Every kind of request: fine, slow, failing, unknown, large, odd characters, and a burst.
const paths = ['/ok', '/slow', '/ok', '/fail', '/ok', '/unicode', '/missing', '/large', '/burst', '/ok'];

function call(port, number) {
  const path = `${paths[number % paths.length]}/${number}`;
  const headers = { traceparent: `00-${seed}${hex(number + 1)}-00f067aa0ba902b7-01` };
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => {
      response.resume();
      response.on('end', resolve);
    });
    request.on('error', reject);
    request.end();
  });
}

// `port`: where the service listens. `stop`: called after the last answer; must let the process end.
module.exports = async function drive(port, stop) {
  // The requests are no part of the service's own traces: without this each would start one.
  const { context } = require('@opentelemetry/api');
  const { suppressTracing } = require('@opentelemetry/core');
  for (let number = 0; number < requests; number += 1) {
    await context.with(suppressTracing(context.active()), () => call(port, number));
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
  }
  stop();
};

// What the services do, told to any logger: `log(level, fields, text)`.
module.exports.behave = function behave(path, log) {
  const [, kind, number] = path.split('/');
  const order = `o-${number}`;
  switch (kind) {
    case 'ok':
      log('info', { order, amount: 12.5, nested: { a: [1, 2, { b: null }], level: 99 } }, 'order placed');
      return 200;
    case 'slow':
      log('warn', { order, ms: 1203 }, 'slow upstream');
      return 200;
    case 'fail':
      log('error', { order, err: new Error(`cannot charge ${order}: "declined"`) }, 'payment failed');
      return 500;
    case 'unicode':
      log('info', { order, name: 'Zoë \u2028 \u0000 \u001b[31m 漢字 🚀', path: 'C:\\temp\\"x"' }, 'tab\there\nand a newline');
      return 200;
    case 'large':
      log('info', { order, blob: 'x'.repeat(40_000), tail: 'end' }, 'large answer');
      return 200;
    case 'burst':
      for (let at = 0; at < 50; at += 1) log(at % 10 === 9 ? 'debug' : 'info', { order, at }, 'in a burst');
      return 200;
    default:
      log('warn', { order }, 'no such route');
      return 404;
  }
};
