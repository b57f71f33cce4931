// ioredis. `reconnecting`: with the option that makes it connect anew and send again after READONLY.
'use strict';
const Redis = require('ioredis');
const { outcome, serve } = require('./steps');

const [host, port] = process.argv[2].split(':');
const options = { host, port };
if (process.argv.includes('reconnecting')) {
  // 2: connect anew, and send the command again. It may: READONLY says that nothing was applied.
  options.reconnectOnError = (error) => (error.message.startsWith('READONLY') ? 2 : false);
}
const client = new Redis(options);
const waiting = new Redis(options);
client.on('error', () => {});
waiting.on('error', () => {});
let waited;

serve({
  async open() {
    await client.set('order:1', 'A');
  },
  async begin() {
    await client.watch('order:1');
    waited = outcome(() => waiting.blpop('work', 0));
  },
  async commit() {
    const results = await client.multi().set('order:1', 'A, in a transaction').exec();
    if (results === null) throw new Error('the watched key has changed');
  },
  async blocked() {
    return Promise.race([waited, new Promise((resolve) => setTimeout(resolve, 3000, 'waits on'))]);
  },
  async write() {
    await client.set('order:1', 'A');
  },
  async read() {
    return client.get('order:1');
  },
});
