#!/usr/bin/env bash
# Two writers, one guard, one nginx: a failover, and three ways in which the old leader fails to write after the new one.
#
#   ./run.sh            the guard and the sidecars from flags
#   ./run.sh --config   the same from guard.yaml, orders-a.yaml and orders-b.yaml (and sooner done: see guard.yaml)
#   ./run.sh --mtls     from these files with TLS on the way to the guard, each writer with a certificate of its own
#
# Everything listens on free ports of 127.0.0.1 and is ended at the end. Exits 1 where something is not as told.
# BINARY=path takes another epochgate; KEEP=1 keeps the logs of a good run too.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ttl=2
path=orders/latest
from_files=no
mtls=no
case ${1:-} in
  "") ;;
  --config) from_files=yes ;;
  --mtls) from_files=yes mtls=yes ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac

# shellcheck source=examples/common.sh
. "$here/../common.sh"

# ---- what is asked and checked --------------------------------------------------------------------------------------

# request NAME curl-arguments…: leaves NAME.status, NAME.head and NAME.body.
request() {
  local name=$1
  shift
  curl -sS -D "$work/$name.head" -o "$work/$name.body" -w '%{http_code}' "$@" \
    >"$work/$name.status" 2>"$work/$name.log" || true
}

status_of() { cat "$work/$1.status"; }
reason_of() { tr -d '\r' <"$work/$1.head" | sed -n 's/^fencing-refused: *//Ip' | tail -n 1; }

# json NAME KEY: the text of a key in a JSON body, without its escapes.
json() { sed -n 's/.*"'"$2"'": *"\(\(\\.\|[^"\\]\)*\)".*/\1/p' "$work/$1.body" | head -n 1 | sed 's/\\\(.\)/\1/g'; }

expect_refusal() {
  local name=$1 status=$2 reason=$3 outcome=$4
  [[ $(status_of "$name") == "$status" ]] || wrong "expected $status, got $(status_of "$name"): $(cat "$work/$name.body")"
  [[ " $reason " == *" $(reason_of "$name") "* ]] || wrong "expected $reason, got '$(reason_of "$name")'"
  [[ $(json "$name" outcome) == "$outcome" ]] || wrong "expected outcome $outcome: $(cat "$work/$name.body")"
  echo "  $status $(reason_of "$name") ($outcome): $(json "$name" detail)"
}

expect_bytes_of_b() {
  curl -sS -o "$work/stored" "http://$target/$path"
  cmp -s "$work/stored" "$work/from-b" || wrong "the file does not hold B's bytes"
  echo "  ✓ the file holds B's bytes"
}

# ---- the world ------------------------------------------------------------------------------------------------------

need nginx
etcd='' peer='' target='' guard='' a='' b='' guard_admin='' a_admin='' b_admin=''
free_addresses etcd peer target guard a b guard_admin a_admin b_admin
url=http://$etcd

echo "1. etcd, nginx, a guard in front of nginx, and writer A with its sidecar"
start_etcd
mkdir -p "$work/nginx/files"
sed "s/@LISTEN@/$target/" "$here/nginx.conf" >"$work/nginx/nginx.conf"
start nginx nginx -e stderr -p "$work/nginx/" -c "$work/nginx/nginx.conf"
await 30 "nginx listens" curl -sS "http://$target/"

if [[ $from_files == yes ]]; then
  write_configs 9000 8080 8081 8082
  if [[ $mtls == yes ]]; then
    "$binary" cert --dir "$work/pki" guard --san 127.0.0.1 >"$work/cert.log"
    "$binary" cert --dir "$work/pki" orders-a orders-b >>"$work/cert.log"
    own() { echo "cert: $work/pki/$1.crt, key: $work/pki/$1.key"; }
    # The one listener of each file, with what docs/tls.md says.
    sed -i "s|^    protocol: http|&\n    tls: { $(own guard), client_ca: $work/pki/ca.crt }|" "$work/guard.yaml"
    for name in orders-a orders-b; do
      sed -i "s|upstream: { url: \"http://\([^\"]*\)\" }|upstream: { url: \"https://\1\", tls: { ca: $work/pki/ca.crt, $(own $name) } }|" \
        "$work/$name.yaml"
    done
  fi
  run_guard() { start guard "$binary" run -c "$work/guard.yaml"; }
  run_stamp() { start "orders-$1" "$binary" run -c "$work/orders-$1.yaml"; }
else
  common=(--resource orders --etcd "$url" --lease-ttl "${ttl}s")
  run_guard() {
    start guard "$binary" guard --id guard --listen "$guard" --upstream "http://$target" "${common[@]}" \
      --state-dir "$work/state/guard" --admin "$guard_admin"
  }
  run_stamp() {
    start "orders-$1" "$binary" stamp --id "orders-$1" --listen "$2" --upstream "http://$guard" "${common[@]}" \
      --state-dir "$work/state/orders-$1" --admin "$3"
  }
fi

run_guard
run_stamp a "$a" "$a_admin"
await 60 "A leads" leads "$a_admin"
run_stamp b "$b" "$b_admin"
await 30 "B's sidecar is there" answers "http://$b_admin/livez"
if leads "$b_admin" 2>/dev/null; then wrong "B leads beside A"; fi

echo "bytes of A" >"$work/from-a"
echo "bytes of B" >"$work/from-b"
request first -T "$work/from-a" "http://$a/$path"
[[ $(status_of first) == 20[014] ]] || wrong "A leads, and its write got $(status_of first): $(cat "$work/first.body")"
request leader "http://$a_admin/leader?resource=orders"
stamp=$(json leader stamp)
[[ -n $stamp ]] || wrong "A's admin side names no stamp: $(cat "$work/leader.body")"
echo "  A leads and wrote the file. Its stamp: $stamp"

echo "2. A begins a slow upload to the same file; then A's sidecar is stopped (SIGSTOP)"
head -c 16777216 /dev/zero | tr '\0' A >"$work/slow-upload"
request slow -T "$work/slow-upload" -H 'Expect:' --limit-rate 20k "http://$a/$path" &
slow=$!
pids[upload]=$slow may_end[upload]=yes
upload_is_at_nginx() { [[ -n $(find "$work/nginx/body_temp" -type f -size +0) ]]; }
await 30 "the upload reaches nginx" upload_is_at_nginx
kill -STOP "${pids[orders-a]}"
stopped=$SECONDS

echo "3. its lease lapses, B is elected; the guard fences A's epoch, ends what A had under way, and lets B in"
await 120 "B leads" leads "$b_admin"
request takeover -T "$work/from-b" "http://$b/$path"
[[ $(status_of takeover) == 20[014] ]] || wrong "B's write got $(status_of takeover): $(cat "$work/takeover.body")"
echo "  B leads and wrote the file, $((SECONDS - stopped)) s after A stopped"
expect_bytes_of_b
while ((SECONDS - stopped < 3 * ttl)); do sleep 0.2; done

echo "4. A's sidecar wakes (SIGCONT), and does not know yet what it missed"
kill -CONT "${pids[orders-a]}"

echo "  (i) A writes:"
request late -T "$work/from-a" "http://$a/$path"
expect_refusal late 421 "not_leader term_changed" not_applied
expect_bytes_of_b

# What curl needs to reach the guard as a writer.
at_the_guard=("http://$guard/$path")
as() {
  [[ $mtls == no ]] || at_the_guard=(--cacert "$work/pki/ca.crt" --cert "$work/pki/$1.crt" --key "$work/pki/$1.key" "https://$guard/$path")
}

echo "  (ii) A's last stamp, replayed at the guard by someone who kept it:"
as orders-a
request replay -T "$work/from-a" -H "Fencing-Epoch: $stamp" "${at_the_guard[@]}"
expect_refusal replay 412 stale_epoch not_applied
expect_bytes_of_b

if [[ $mtls == yes ]]; then
  echo "  and B's own stamp, which is of the present epoch, by someone who has A's certificate only:"
  request leader "http://$b_admin/leader?resource=orders"
  request borrowed -T "$work/from-a" -H "Fencing-Epoch: $(json leader stamp)" "${at_the_guard[@]}"
  expect_refusal borrowed 403 identity_refused not_applied
  expect_bytes_of_b
  echo "  and by someone without a certificate:"
  if curl -sS --cacert "$work/pki/ca.crt" -T "$work/from-a" "https://$guard/$path" >"$work/nobody.log" 2>&1; then
    wrong "a client without a certificate got an answer"
  fi
  echo "  $(head -n 1 "$work/nobody.log")"
  expect_bytes_of_b

  echo "  Certificates are replaced while B writes on; nothing restarts, and no write fails."
  for round in {1..40}; do
    ((round != 10)) || "$binary" cert --dir "$work/pki" --renew guard --san 127.0.0.1 >>"$work/cert.log"
    ((round != 20)) || "$binary" cert --dir "$work/pki" --renew orders-b >>"$work/cert.log"
    ((round % 10)) || { kill -HUP "${pids[guard]}" "${pids[orders-b]}"; sleep 0.2; }
    request on -T "$work/from-b" "http://$b/$path"
    [[ $(status_of on) == 20[014] ]] || wrong "write $round of B got $(status_of on): $(cat "$work/on.body")"
  done
  echo "  ✓ 40 writes over two new certificates"
fi

echo "  (iii) the upload that was under way all the time:"
upload_is_over() { ! kill -0 "$slow"; }
await 60 "the upload ends" upload_is_over
expect_refusal slow 502 fenced_in_flight unknown
expect_bytes_of_b

ok=yes
echo "No write of A was applied after B's."
