#!/usr/bin/env bash
# What common drivers and their pools do when a guard refuses them: `make drivers`, by hand, since it needs the drivers.
#
#   tests/drivers/run.sh [NAME…]     psycopg psycopg-checked asyncpg pg jdbc redis-py ioredis ioredis-reconnecting
#
# Each goes through A's sidecar, over real failovers (`step-down`), and tells what came of each step:
#   commit    A led, a transaction was open; now B leads, and the transaction says COMMIT
#   refused   B leads; a write through the pool
#   again     A leads again; writes through the pool until one succeeds: what failed before
# Redis: also `blocked`, a BLPOP that waited while A led, and `read`, while B leads.
set -euo pipefail

own=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
here=$own/../../examples/postgres-two-writers
# shellcheck source=examples/common.sh
. "$here/../common.sh"
need postgres initdb psql redis-server redis-cli python3 node npm
all=(psycopg psycopg-checked asyncpg pg jdbc redis-py ioredis ioredis-reconnecting)
(($#)) || set -- "${all[@]}"

# ---- the drivers, into a folder that is kept ------------------------------------------------------------------------

kept=$top/.tools/drivers
mkdir -p "$kept"
cp "$own"/*.{py,js,java,txt,json,xml} "$kept/"
cd "$kept"
[[ -x py/bin/python ]] || python3 -m venv py
py/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
npm install --silent --no-audit --no-fund --no-package-lock >/dev/null 2>&1
jdbc=no
if command -v mvn java >/dev/null; then
  [[ -d lib ]] || mvn -q -B dependency:copy-dependencies -DoutputDirectory=lib >"$work/mvn.log" 2>&1
  jdbc=yes
else
  echo "jdbc is left out: there is no java, or no mvn"
fi

command_of() {
  case $1 in
    psycopg) echo "py/bin/python with_psycopg.py $2" ;;
    psycopg-checked) echo "py/bin/python with_psycopg.py $2 checked" ;;
    asyncpg) echo "py/bin/python with_asyncpg.py $2" ;;
    pg) echo "node with_pg.js $2" ;;
    jdbc) echo "java -cp lib/* WithJdbc.java $2" ;;
    redis-py) echo "py/bin/python with_redis_py.py $2" ;;
    ioredis) echo "node with_ioredis.js $2" ;;
    ioredis-reconnecting) echo "node with_ioredis.js $2 reconnecting" ;;
  esac
}

# ---- the world ------------------------------------------------------------------------------------------------------

etcd='' peer='' target='' redis=''
pg_guard='' pg_a='' pg_b='' redis_guard='' redis_a='' redis_b='' guard_admin='' a_admin='' b_admin=''
free_addresses etcd peer target redis pg_guard pg_a pg_b redis_guard redis_a redis_b guard_admin a_admin b_admin
start_etcd

start_postgres
start redis redis-server --bind 127.0.0.1 --port "${redis#*:}" --dir "$work" --save ''

# One process each: both protocols, each with a resource of its own.
config() {
  local id=$1 admin=$2
  cat <<YAML
id: $id
state_dir: $work/state/$id
coordinator: { etcd: { endpoints: ["http://$etcd"] }, lease_ttl: 2s }
resources: { orders: {}, cache: {} }
step_down: { pause: 1s }
drain: { timeout: 1s }
admin: { listen: $admin }
listeners:
YAML
}
listener() {
  echo "  - { name: $1-$2, role: $2, protocol: $1, listen: $3, resource: $4, upstream: { url: \"$1://$5\"${6:-} } }"
}
{
  config guard "$guard_admin"
  listener postgres guard "$pg_guard" orders "$target" ", control: { user: epochgate }"
  listener redis guard "$redis_guard" cache "$redis" ", control: {}"
} >"$work/guard.yaml"
{ config orders-a "$a_admin"; listener postgres stamp "$pg_a" orders "$pg_guard"; listener redis stamp "$redis_a" cache "$redis_guard"; } >"$work/a.yaml"
{ config orders-b "$b_admin"; listener postgres stamp "$pg_b" orders "$pg_guard"; listener redis stamp "$redis_b" cache "$redis_guard"; } >"$work/b.yaml"
for name in guard a b; do start "$name" "$binary" run -c "$work/$name.yaml"; done

leads_both() { leads "$1" && answers "http://$1/leader?resource=cache"; }
# hand_over FROM TO: FROM steps down where it leads, until TO leads both.
hand_over() {
  local resource began=$SECONDS
  until leads_both "$2" 2>/dev/null; do
    nobody_died
    for resource in orders cache; do
      if answers "http://$1/leader?resource=$resource" 2>/dev/null; then
        "$binary" step-down --resource "$resource" --admin "$1" >>"$work/step-down.log" 2>&1 || true
      fi
    done
    ((SECONDS - began < 60)) || wrong "$2 does not lead"
    sleep 0.2
  done
}
somebody_leads() { answers "http://$a_admin/leader?resource=$1" || answers "http://$b_admin/leader?resource=$1"; }
await 60 "somebody leads" somebody_leads orders
await 60 "somebody leads" somebody_leads cache

# ---- the steps ------------------------------------------------------------------------------------------------------

try() {
  local name=$1 address told late=''
  case $name in redis-py | ioredis*) address=$redis_a ;; *) address=$pg_a ;; esac
  hand_over "$b_admin" "$a_admin"
  echo "$name"
  # shellcheck disable=SC2046 # words
  coproc DRIVER { set -f; exec $(command_of "$name" "$address") 2>"$work/$name.log"; }
  pids[driver]=$DRIVER_PID may_end[driver]=yes
  # step NAME [AS] [SECONDS]
  step() {
    echo "$1" >&"${DRIVER[1]}"
    heard "${2:-$1}" "${3:-120}"
  }
  heard() {
    if read -r -t "$2" told <&"${DRIVER[0]}"; then
      printf '  %-8s %s\n' "$1" "$told"
    else
      nobody_died
      kill -0 "${pids[driver]}" 2>/dev/null || wrong "$name has ended: $(tail -n 3 "$work/$name.log")"
      printf '  %-8s no answer within %s s\n' "$1" "$2"
      late=$1
    fi
  }
  step open
  step begin
  hand_over "$a_admin" "$b_admin"
  step commit
  [[ $address != "$redis_a" ]] || { step blocked; step read; }
  step write refused 15
  hand_over "$b_admin" "$a_admin"
  [[ -z $late ]] || heard "$late" 60
  step again
  kill "${pids[driver]}" 2>/dev/null || true
  wait "${pids[driver]}" 2>/dev/null || true
  unset 'pids[driver]'
}

for name in "$@"; do
  [[ $name == jdbc && $jdbc == no ]] || try "$name"
done
ok=yes
