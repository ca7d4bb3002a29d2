// What the services with metrics do, and how they start: they listen on a free port of 127.0.0.1, print `{"port":N,…}` as their first
// line, and serve until they are killed.
//
// GET /orders/:id answers 200, /fail/:id 500, /missing 404, /wait/:ms answers after so many milliseconds.
'use strict';

module.exports.answer = function answer(kind) {
  if (kind === 'fail') return 500;
  return 200;
};

// Milliseconds that a path of /wait asks for, bounded.
module.exports.wait = (text) => Math.min(Number(text) || 0, 2000);
