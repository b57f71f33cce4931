#!/usr/bin/env bash
# One suite, one way: a world of its own, the suite, and its results as lines. tests/suites/run.sh calls it.
#
#   tests/suites/one.sh SUITE WAY SOURCES OUT
#
# WAY is `direct` (at the server), `through` (a stamp and a guard), or `failovers` (two stamps and a guard, and every
# EVERY seconds, 30 where nothing is said, the other one leads). OUT gets of each SUITE.WAY: .results (lines: result, tab,
# test, and for a failed one, tab, why), .log, .said/ (what each test said, where the suite keeps that), and of the sidecars
# their audit logs, their histories (.jsonl) and what `epochgate verify` says of these.
set -euo pipefail

own=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
here=$own
# shellcheck source=examples/common.sh
. "$own/../../examples/common.sh"
# shellcheck source=tests/suites/suites.sh
. "$own/suites.sh"

# ---- the world ------------------------------------------------------------------------------------------------------

etcd='' peer='' target='' guard='' a='' b='' either='' guard_admin='' a_admin='' b_admin=''

# process ID ADMIN ROLE LISTEN UPSTREAM [OF-THE-UPSTREAM [OF-THE-LISTENER]]: a configuration on standard output.
process() {
  cat <<YAML
id: $1
state_dir: $work/state/$1
coordinator: { etcd: { endpoints: ["http://$etcd"] }, lease_ttl: 10s }
resources: { orders: {} }
step_down: { pause: 1s }
drain: { timeout: 1s }
admin: { listen: $2 }
audit: { output: $kept.$1.audit }
history: $kept.$1.jsonl
listeners:
  - { name: $1, role: $3, protocol: $protocol, listen: $4, resource: orders, upstream: { url: "$protocol://$5"${6:-} }${7:-} }
YAML
}

start_server() {
  case $protocol in
    postgres)
      start_postgres -c max_prepared_transactions=10 -c wal_level=logical -c synchronous_commit=off -c fsync=off
      ;;
    redis)
      start redis "${SERVER:-redis-server}" --bind 127.0.0.1 --port "${target#*:}" --dir "$work" --save '' \
        --enable-debug-command yes --enable-protected-configs yes --enable-module-command yes
      await 30 "the server answers" redis-cli -p "${target#*:}" ping
      ;;
  esac
}

start_sidecars() {
  local control='{}' name
  # Suites connect as a superuser, whose sessions only a superuser may end.
  [[ $protocol != postgres ]] || control='{ user: postgres }'
  start_etcd
  process guard "$guard_admin" guard "$guard" "$target" ", control: $control" ", target: db" >"$work/guard.yaml"
  process orders-a "$a_admin" stamp "$a" "$guard" >"$work/orders-a.yaml"
  process orders-b "$b_admin" stamp "$b" "$guard" >"$work/orders-b.yaml"
  for name in guard orders-a; do start "$name" "$binary" run -c "$work/$name.yaml"; done
  await 60 "A leads" leads "$a_admin"
  [[ $way == failovers ]] || return 0
  start orders-b "$binary" run -c "$work/orders-b.yaml"
  await 30 "B's sidecar is there" answers "http://$b_admin/livez"
}

# A suite is one client, and no two writers: HAProxy leads it to whoever leads, and ends its connections to who does no more.
start_balancer() {
  cat >"$work/haproxy.cfg" <<CFG
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen leader
  bind $either
  option httpchk GET /leader?resource=orders
  default-server check inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions
  server a $a port ${a_admin#*:}
  server b $b port ${b_admin#*:}
CFG
  start haproxy haproxy -db -f "$work/haproxy.cfg"
  await 30 "the balancer has a leader" bash -c "exec 3<>/dev/tcp/${either/://}"
}

# Hands the leadership to the other stamp, every so often, until it is ended.
# shellcheck disable=SC2317 # `start` calls it
hand_over() {
  local from=$a_admin to=$b_admin other
  while sleep "$every"; do
    "$binary" step-down --resource orders --admin "$from" || true
    until leads "$to" 2>/dev/null; do sleep 0.1; done
    date -u +"%T.%3N $to leads"
    other=$from from=$to to=$other
  done
}

# Ends the sidecars in order, so that their histories are whole, and has these checked.
end_sidecars() {
  local name
  for name in handing haproxy orders-b orders-a guard; do
    [[ -n ${pids[$name]:-} ]] || continue
    kill -TERM "${pids[$name]}"
    wait "${pids[$name]}" || [[ $name == handing || $name == haproxy ]] || wrong "$name did not end in order"
    unset "pids[$name]"
  done
  [[ $way != failovers ]] || cp "$work/handing.log" "$kept.handovers"
  ! declare -F "after_${suite//-/_}" >/dev/null || "after_${suite//-/_}"
  "$binary" verify "$kept".*.jsonl >"$kept.verify" 2>&1 || wrong "the history: $(cat "$kept.verify")"
}

# ---- one suite ------------------------------------------------------------------------------------------------------

main() {
  suite=$1 way=$2 sources=$(cd "$3" && pwd) out=$(cd "$4" && pwd)
  kept=$out/$suite.$way every=${EVERY:-30}
  [[ $way =~ ^(direct|through|failovers)$ ]] || { echo "no such way: $way"; exit 2; }
  protocol=$(protocol_of "$suite")
  case $protocol in
    postgres) need postgres initdb psql ;;
    redis) need "${SERVER:-redis-server}" redis-cli ;;
  esac
  [[ -z ${POSTGRES_BIN:-} ]] || PATH=$POSTGRES_BIN:$PATH
  rm -rf "$kept".*
  free_addresses etcd peer target guard a b either guard_admin a_admin b_admin
  local began fixed rc=0
  fixed=$(address_of "$suite")
  if [[ -n $fixed ]]; then
    ! (exec 3<>"/dev/tcp/${fixed/://}") 2>/dev/null || { echo "$suite needs $fixed, and something listens there"; exit 69; }
    case $way in direct) target=$fixed ;; through) a=$fixed ;; failovers) either=$fixed ;; esac
  fi

  start_server
  # What the suite connects to.
  local at=$target
  if [[ $way != direct ]]; then
    start_sidecars
    at=$a
  fi
  if [[ $way == failovers ]]; then
    start_balancer
    at=$either
    start handing hand_over
  fi
  host=${at%:*} port=${at#*:}
  began=$SECONDS
  "suite_${suite//-/_}" >"$kept.log" 2>&1 || rc=$?
  nobody_died
  echo "$suite $way: $((SECONDS - began)) s, exit code $rc, $(wc -l <"$kept.results") tests"
  [[ $way == direct ]] || end_sidecars
  ok=yes
}

# On one line: it may be edited while it runs.
main "$@"; exit
