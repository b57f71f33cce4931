#!/usr/bin/env bash
# Two writers, one guard, one Redis: a failover, after which the old leader may read, and cannot write.
#
#   ./run.sh
#
# Everything listens on free ports of 127.0.0.1 and is ended at the end. Exits 1 where something is not as told.
# BINARY=path takes another epochgate; KEEP=1 keeps the logs of a good run too.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# == 0 ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
# shellcheck source=examples/common.sh
. "$here/../common.sh"
need redis-server redis-cli
etcd='' peer='' target='' guard='' a='' b='' guard_admin='' a_admin='' b_admin=''
free_addresses etcd peer target guard a b guard_admin a_admin b_admin

# ---- what is said to Redis ------------------------------------------------------------------------------------------

at() {
  local address=$1
  shift
  redis-cli -h "${address%:*}" -p "${address#*:}" "$@"
}

expect() {
  local expected=$1 answer
  shift
  answer=$(at "$@")
  [[ $answer == "$expected" ]] || wrong "$*: expected $expected, got $answer"
}

# The last line of a file is a refusal: READONLY, with the reason.
expect_refusal() {
  local told
  told=$(grep . "$1" | tail -n 1)
  [[ $told == READONLY* ]] || wrong "expected READONLY, got: $told"
  echo "  $told"
}

expect_value_of_b() {
  expect B "$target" GET order:1
  echo "  ✓ the value is B's"
}

# ---- the story ------------------------------------------------------------------------------------------------------

echo "1. etcd, Redis, a guard in front of it, and writer A with its sidecar"
start_etcd
start redis redis-server --bind 127.0.0.1 --port "${target#*:}" --dir "$work" --save ''
await 30 "Redis serves" at "$target" PING
write_configs 6379 6380 6381 6382
start guard "$binary" run -c "$work/guard.yaml"
start orders-a "$binary" run -c "$work/orders-a.yaml"
await 60 "A leads" leads "$a_admin"
start orders-b "$binary" run -c "$work/orders-b.yaml"
await 30 "B's sidecar is there" answers "http://$b_admin/livez"
if leads "$b_admin" 2>/dev/null; then wrong "B leads beside A"; fi
expect OK "$a" SET order:1 "A, at first"
epoch_of_a=$(curl -sS "http://$a_admin/leader?resource=orders" | sed -n 's/.*"epoch": *"\([0-9]*\)".*/\1/p')
echo "  A leads, and wrote the value in epoch $epoch_of_a"

echo "2. A watches the value for a transaction, and another of its clients waits for work; then A stands still (SIGSTOP)"
mkfifo "$work/to-client"
at "$a" <"$work/to-client" >"$work/client.log" 2>&1 &
pids[client]=$! may_end[client]=yes
exec {to_client}>"$work/to-client"
printf '%s\n' "WATCH order:1" "MULTI" "SET order:1 A" >&"$to_client"
await 30 "the transaction is queued" grep -q QUEUED "$work/client.log"
at "$a" BLPOP work 0 >"$work/waiting.log" 2>&1 &
pids[waiting]=$! may_end[waiting]=yes
blocks() { at "$target" INFO clients | tr -d '\r' | grep -qx 'blocked_clients:1'; }
await 30 "the client waits for work" blocks
kill -STOP "${pids[client]}" "${pids[waiting]}" "${pids[orders-a]}"
stopped=$SECONDS

echo "3. its lease lapses, B is elected; the guard ends what A's connections still wait for, and lets B in"
await 60 "B leads" leads "$b_admin"
expect OK "$b" SET order:1 B
echo "  B leads and wrote the value, $((SECONDS - stopped)) s after A stopped"
if blocks; then wrong "A's client still waits in Redis: it could take B's work"; fi
expect_value_of_b

echo "4. A wakes (SIGCONT), believes that it leads, and says EXEC"
kill -CONT "${pids[orders-a]}" "${pids[client]}" "${pids[waiting]}"
echo "EXEC" >&"$to_client"
exec {to_client}>&-
client_is_over() { ! kill -0 "${pids[client]}"; }
await 30 "A's client has its answer" client_is_over
echo "  it was told: $(grep . "$work/client.log" | tail -n 1)"
expect_value_of_b

echo "  (i) A writes anew, through its own sidecar; it may still read:"
at "$a" SET order:1 A >"$work/anew.log" 2>&1
expect_refusal "$work/anew.log"
expect B "$a" GET order:1
expect_value_of_b

echo "  (ii) without a sidecar, at the guard, with A's epoch:"
printf '%s\n' "EPOCHGATE EPOCH $epoch_of_a" "SET order:1 A" | at "$guard" >"$work/stale.log" 2>&1
expect_refusal "$work/stale.log"
expect_value_of_b

echo "  (iii) at the guard, with no epoch at all; a script that writes is a write too:"
at "$guard" EVAL "return redis.call('SET', KEYS[1], 'A')" 1 order:1 >"$work/none.log" 2>&1
expect_refusal "$work/none.log"
expect B "$guard" GET order:1
expect_value_of_b

epoch_of_b=$(curl -sS "http://$b_admin/leader?resource=orders" | sed -n 's/.*"epoch": *"\([0-9]*\)".*/\1/p')
echo "5. A client without a sidecar that knows B's epoch, $epoch_of_b, may write"
printf '%s\n' "EPOCHGATE EPOCH $epoch_of_b" "SET order:1 B" | at "$guard" >"$work/known.log" 2>&1
[[ $(grep . "$work/known.log" | tail -n 1) == OK ]] || wrong "it was refused: $(cat "$work/known.log")"
expect_value_of_b

ok=yes
echo "No write of A was applied after B's."
