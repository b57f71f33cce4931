// The steps that every driver goes through, one a line on standard input; what came of each on standard output.
'use strict';
const readline = require('node:readline');

// An error in one line: its class, its code where it has one, and its first words.
function told(error) {
  const inner = error.errors?.[0] ?? error;
  const text = String(inner.message).replace(/\s+/g, ' ').slice(0, 110);
  return `${error.constructor.name}${inner.code ? ' ' + inner.code : ''}: ${text}`;
}

async function outcome(step) {
  const began = Date.now();
  let result;
  try {
    const answer = await step();
    result = answer === undefined ? 'ok' : `ok: ${answer}`;
  } catch (error) {
    result = told(error);
  }
  return `${result} [${((Date.now() - began) / 1000).toFixed(1)} s]`;
}

// Writes until it succeeds: how many attempts failed before, and with what at first.
async function again(write) {
  const failures = [];
  const began = Date.now();
  const took = () => ((Date.now() - began) / 1000).toFixed(1);
  while (Date.now() - began < 60000) {
    const result = await outcome(write);
    if (result.startsWith('ok')) {
      return `after ${failures.length} failures${failures.length ? ', first ' + failures[0] : ''} [${took()} s]`;
    }
    failures.push(result);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return `never: ${failures.length} failures, last ${failures.at(-1)}`;
}

async function serve(steps) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const name = line.trim();
    console.log(name === 'again' ? await again(steps.write) : await outcome(steps[name]));
  }
  process.exit(0);
}

module.exports = { outcome, serve };
