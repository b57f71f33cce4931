#!/usr/bin/env bash
# Two writers, one guard, one PostgreSQL: a failover in the middle of a transaction, which its old leader cannot commit.
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
need postgres initdb psql
etcd='' peer='' target='' guard='' a='' b='' guard_admin='' a_admin='' b_admin=''
free_addresses etcd peer target guard a b guard_admin a_admin b_admin

# ---- what is checked ------------------------------------------------------------------------------------------------

# expect_refusal NAME WORDS COMMAND…: says something as a client that is to be refused, and checks what it is told. psql
# tells the SQLSTATE of a session that is ended, and not that of one that is not let in.
expect_refusal() {
  local name=$1 words=$2 what
  shift 2
  ! "$@" >"$work/$name.told" 2>&1 || wrong "it was not refused: $(cat "$work/$name.told")"
  for what in FATAL DETAIL HINT $words; do
    grep -q "$what" "$work/$name.told" || wrong "no $what in: $(cat "$work/$name.told")"
  done
  grep -E 'FATAL|DETAIL|HINT' "$work/$name.told" | sed 's/.*FATAL/FATAL/; s/^/  /'
}

expect_row_of_b() {
  local row
  row=$(says "$target" postgres "SELECT by_whom FROM orders")
  [[ $row == B ]] || wrong "the row is $row's"
  echo "  ✓ the row is B's"
}

sessions_of_app() { says "$target" postgres "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"; }

# ---- the story ------------------------------------------------------------------------------------------------------

echo "1. etcd, PostgreSQL, a guard in front of it, and writer A with its sidecar"
start_etcd
start_postgres
write_configs 5432 6432 6433 6434
start guard "$binary" run -c "$work/guard.yaml"
start orders-a "$binary" run -c "$work/orders-a.yaml"
await 60 "A leads" leads "$a_admin"
start orders-b "$binary" run -c "$work/orders-b.yaml"
await 30 "B's sidecar is there" answers "http://$b_admin/livez"
if leads "$b_admin" 2>/dev/null; then wrong "B leads beside A"; fi
says "$a" app "UPDATE orders SET by_whom = 'A, at first'" || wrong "A leads, and cannot write"
epoch_of_a=$(curl -sS "http://$a_admin/leader?resource=orders" | sed -n 's/.*"epoch": *"\([0-9]*\)".*/\1/p')
echo "  A leads, and wrote the row in epoch $epoch_of_a"

echo "2. A begins a transaction that changes the row; then A stands still, client and sidecar (SIGSTOP)"
mkfifo "$work/to-client"
sql "$a" app <"$work/to-client" >"$work/client.log" 2>&1 &
pids[client]=$! may_end[client]=yes
exec {to_client}>"$work/to-client"
echo "BEGIN; UPDATE orders SET by_whom = 'A, in a transaction'; SELECT 'it holds the row';" >&"$to_client"
await 30 "the transaction holds the row" grep -q 'it holds the row' "$work/client.log"
kill -STOP "${pids[client]}" "${pids[orders-a]}"
stopped=$SECONDS

echo "3. its lease lapses, B is elected; the guard ends A's sessions, sees them gone, and lets B in"
await 60 "B leads" leads "$b_admin"
says "$b" app "SET lock_timeout = '5s'; UPDATE orders SET by_whom = 'B'" || wrong "B leads, and cannot write"
echo "  B leads and wrote the row, $((SECONDS - stopped)) s after A stopped; A's lock was gone"
[[ $(sessions_of_app) == 0 ]] || wrong "a session of A's is still there"
expect_row_of_b

echo "4. A wakes (SIGCONT), believes that it leads, and says COMMIT"
kill -CONT "${pids[orders-a]}" "${pids[client]}"
echo "COMMIT;" >&"$to_client"
exec {to_client}>&-
client_is_over() { ! kill -0 "${pids[client]}"; }
await 30 "A's client has its answer" client_is_over
expect_refusal commit "57P01 stale_epoch" bash -c 'grep -v "it holds the row" "$1"; exit 1' - "$work/client.log"
expect_row_of_b

echo "  (i) A connects anew, through its own sidecar:"
expect_refusal anew "not_leader orders-b" says "$a" app "UPDATE orders SET by_whom = 'A'"
expect_row_of_b

echo "  (ii) without a sidecar, at the guard, with A's epoch in the connection's options:"
expect_refusal stale "stale_epoch orders-b" env "PGOPTIONS=-c epochgate.epoch=$epoch_of_a" bash -c "$(declare -f sql says); says \"\$@\"" - \
  "$guard" app "UPDATE orders SET by_whom = 'A'"
expect_row_of_b

echo "  (iii) at the guard, with no epoch at all:"
expect_refusal none "stamp_required" says "$guard" app "UPDATE orders SET by_whom = 'A'"
expect_row_of_b

epoch_of_b=$(curl -sS "http://$b_admin/leader?resource=orders" | sed -n 's/.*"epoch": *"\([0-9]*\)".*/\1/p')
echo "5. A client without a sidecar that knows B's epoch, $epoch_of_b, is let in"
PGOPTIONS="-c epochgate.epoch=$epoch_of_b" says "$guard" app "UPDATE orders SET by_whom = 'B'" || wrong "it was refused"
expect_row_of_b

ok=yes
echo "No write of A was applied after B's."
