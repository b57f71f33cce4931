// node-postgres and its pool.
'use strict';
const { Pool } = require('pg');
const { serve } = require('./steps');

const [host, port] = process.argv[2].split(':');
const pool = new Pool({ host, port, user: 'app', database: 'postgres', min: 2, max: 4, connectionTimeoutMillis: 5000 });
// Without this an idle connection that the server ends takes the whole process with it.
let complaints = 0;
pool.on('error', () => complaints++);
let held;

serve({
  async open() {
    const [one, other] = [await pool.connect(), await pool.connect()];
    await one.query("UPDATE orders SET by_whom = 'A'");
    await other.query('SELECT 1');
    one.release();
    other.release();
  },
  async begin() {
    held = await pool.connect();
    held.on('error', () => complaints++);
    await held.query('BEGIN');
    await held.query("UPDATE orders SET by_whom = 'A, in a transaction'");
  },
  async commit() {
    let failed;
    try {
      await held.query('COMMIT');
    } catch (error) {
      failed = error;
      throw error;
    } finally {
      held.release(failed);
    }
  },
  async write() {
    await pool.query("UPDATE orders SET by_whom = 'A'");
  },
});
