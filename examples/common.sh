# What the examples' run.sh share: processes that are ended with the script, free addresses, and how it waits.
#
# Sourced, after `set -euo pipefail`, with `here` set to the example's folder. A script ends with `ok=yes` and its last
# words; everything else is a failure, and then the logs are kept. shellcheck shell=bash

top=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
# What was started, by name; what of it may end by itself.
declare -A pids=() may_end=()
ok=no

cleanup() {
  local name
  for name in "${!pids[@]}"; do
    # A stopped process takes no SIGTERM.
    kill -CONT "${pids[$name]}" 2>/dev/null || true
    kill -TERM "${pids[$name]}" 2>/dev/null || true
  done
  for name in "${!pids[@]}"; do
    for _ in {1..30}; do
      kill -0 "${pids[$name]}" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -KILL "${pids[$name]}" 2>/dev/null || true
  done
  if [[ $ok == yes && -z ${KEEP:-} ]]; then rm -rf "$work"; else echo "logs: $work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# start NAME COMMAND…: in the background, with its output in NAME.log.
start() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 </dev/null &
  pids[$name]=$!
}

wrong() {
  echo "  × $*"
  for log in "$work"/*.log; do
    echo "---- the end of ${log##*/}"
    tail -n 15 "$log"
  done
  exit 1
}

nobody_died() {
  local name
  for name in "${!pids[@]}"; do
    [[ -n ${may_end[$name]:-} ]] || kill -0 "${pids[$name]}" 2>/dev/null || wrong "$name has ended"
  done
}

# Waits until a command succeeds: within SECONDS seconds, WHAT.
await() {
  local limit=$1 what=$2 began=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    nobody_died
    ((SECONDS - began < limit)) || wrong "not within $limit s: $what"
    sleep 0.1
  done
}

# Sets each of these variables to a free address.
declare -A taken=()
free_addresses() {
  local name port
  for name in "$@"; do
    while :; do
      port=$((10000 + RANDOM % 20000))
      [[ -z ${taken[$port]:-} ]] || continue
      (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    taken[$port]=1
    printf -v "$name" %s "127.0.0.1:$port"
  done
}

# The programs that it needs, in PATH: else it ends here. Sets `binary`.
need() {
  local tool newest
  # shellcheck disable=SC1091 # written by tools/fetch
  [[ ! -f $top/.tools/env ]] || . "$top/.tools/env"
  # Debian keeps PostgreSQL's own programs out of PATH.
  newest=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  PATH=${newest:+$newest:}$PATH:/usr/sbin
  binary=${BINARY:-$top/target/debug/epochgate}
  for tool in etcd curl "$@" "$binary"; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: \`make tools\` and \`cargo build\` in $top first"; exit 69; }
  done
}

answers() { curl -sSf -o /dev/null "$1"; }
leads() { answers "http://$1/leader?resource=orders"; }

# An etcd at $etcd, with $peer for its other members.
start_etcd() {
  start etcd etcd --data-dir "$work/etcd" --listen-client-urls "http://$etcd" --advertise-client-urls "http://$etcd" \
    --listen-peer-urls "http://$peer" --initial-advertise-peer-urls "http://$peer" --initial-cluster "default=http://$peer"
  await 30 "etcd is healthy" answers "http://$etcd/health"
}

# The example's guard.yaml, orders-a.yaml and orders-b.yaml with the addresses of this run, written to $work:
# write_configs PORT-OF-THE-TARGET PORT-OF-THE-GUARD PORT-OF-A PORT-OF-B.
write_configs() {
  local name
  for name in guard orders-a orders-b; do
    sed -e "s/127.0.0.1:2379/$etcd/; s/127.0.0.1:$1/$target/; s/127.0.0.1:$2/$guard/; s/127.0.0.1:$3/$a/" \
      -e "s/127.0.0.1:$4/$b/; s/127.0.0.1:9464/$guard_admin/; s/127.0.0.1:9465/$a_admin/" \
      -e "s/127.0.0.1:9466/$b_admin/; s|\./state|$work/state|" "$here/$name.yaml" >"$work/$name.yaml"
  done
}

# A fresh PostgreSQL at $target that lets everybody in, with a row to write to, the role `app` for the service, and the
# role `epochgate` for the guard's own connection. Arguments go to the server.
start_postgres() {
  local as_user=()
  # PostgreSQL is not run by root. Where nobody may not look into the checkout, the right to look goes along.
  if ((EUID == 0)); then
    as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    "${as_user[@]}" test -x "$(command -v postgres)" ||
      as_user+=(--inh-caps=+dac_override --ambient-caps=+dac_override --securebits=+no_setuid_fixup)
  fi
  chmod 755 "$work"
  mkdir "$work/postgres"
  ((EUID != 0)) || chown 65534:65534 "$work/postgres"
  "${as_user[@]}" initdb --no-sync --locale=C --auth=trust -U postgres -D "$work/postgres/data" >"$work/initdb.log" 2>&1
  start postgres "${as_user[@]}" postgres -D "$work/postgres/data" -p "${target#*:}" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c jit=off "$@"
  await 30 "PostgreSQL serves" says "$target" postgres "SELECT 1"
  says "$target" postgres "
    CREATE ROLE app LOGIN;
    CREATE ROLE epochgate LOGIN IN ROLE pg_signal_backend, pg_monitor;
    CREATE TABLE orders (id int PRIMARY KEY, by_whom text);
    INSERT INTO orders VALUES (1, 'nobody');
    GRANT ALL ON orders TO app;" >/dev/null
}

# psql at an address, as a user; what goes wrong is told with its SQLSTATE.
sql() {
  local address=$1 user=$2
  shift 2
  PGCONNECT_TIMEOUT=60 psql -X -q -w -At -v VERBOSITY=verbose -h "${address%:*}" -p "${address#*:}" -U "$user" \
    -d postgres "$@"
}
says() { sql "$1" "$2" -v ON_ERROR_STOP=1 -c "$3"; }
