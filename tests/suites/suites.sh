# How each suite is run. Sourced by one.sh, which sets: $host and $port to connect to, the server itself at $target, the
# folders of $sources, and what is kept under $kept.*. A suite writes $kept.results.
#
# shellcheck shell=bash
# shellcheck disable=SC2154 # set by one.sh

# What there is; each wants a folder of $sources, which sources_of names.
# shellcheck disable=SC2034 # read by run.sh
all_suites=(pg-regress pg-isolation pgbench asyncpg psycopg node-postgres redis redis-writers redis-py ioredis)

sources_of() {
  case $1 in
    pg-*) echo postgres ;;
    pgbench | redis-writers) ;;
    *) echo "$1" ;;
  esac
}

protocol_of() {
  case $1 in
    pg-* | pgbench | asyncpg | psycopg | node-postgres) echo postgres ;;
    redis | redis-writers | redis-py | ioredis) echo redis ;;
    *) echo "no such suite: $1" >&2; return 2 ;;
  esac
}

# Where its server has to be, where its tests know one address only.
address_of() { case $1 in ioredis) echo 127.0.0.1:6379 ;; esac; }

results() { python3 "$own/results.py" "$@" >>"$kept.results"; }

# ---- PostgreSQL's own -----------------------------------------------------------------------------------------------

# pg_suite FOLDER PROGRAM ARGUMENTS…: both of PostgreSQL's suites are of this kind. Over failovers, several rounds.
pg_suite() {
  local folder=$1 program=$2 round said rc=0
  shift 2
  [[ -x $program ]] || wrong "there is no $program"
  export PGHOST=$host PGPORT=$port PGUSER=postgres
  for round in $(seq "$([[ $way == failovers ]] && echo "${ROUNDS:-4}" || echo 1)"); do
    said=$kept.said/$round
    mkdir -p "$said/results"
    # The server, which is another user, writes there too.
    chmod 777 "$said" "$said/results"
    "$program" --inputdir="$folder" --outputdir="$said" --bindir="$(dirname "$(command -v psql)")" "$@" >"$said/told" 2>&1 || rc=$?
    cat "$said/told"
    results regress "$said/told" "$said"
  done
  return $rc
}

suite_pg_regress() {
  local folder=$sources/postgres/src/test/regress libraries=$work/libraries
  # Its own C library, and two that the server's package has.
  mkdir "$libraries"
  ln -s "$folder/regress.so" "$(pg_config --pkglibdir)"/{refint,autoinc}.so "$libraries/"
  pg_suite "$folder" "$(pgxs)/src/test/regress/pg_regress" --dlpath="$libraries" --encoding=UTF8 --no-locale \
    --max-concurrent-tests=20 --schedule="$folder/parallel_schedule"
}

suite_pg_isolation() {
  local folder=$sources/postgres/src/test/isolation
  pg_suite "$folder" "$(pgxs)/src/test/isolation/pg_isolation_regress" --dlpath="$folder" --encoding=UTF8 --no-locale \
    --schedule="$folder/isolation_schedule"
}

# The server's own: Debian has a pg_config in PATH that asks for another.
pg_config() { "$(dirname "$(readlink -f "$(command -v postgres)")")/pg_config" "$@"; }
pgxs() { local makefile; makefile=$(pg_config --pgxs); echo "${makefile%/src/makefiles/pgxs.mk}"; }

# pgbench's own transactions, in runs of five seconds for SECONDS_OF_PGBENCH, and what must hold of them afterwards. Each row of its history says
# in which epoch it was written, and its place among all (each transaction holds the row of the one branch from before it
# takes its number until it commits): `epochgate verify` gets them as what the target applied.
suite_pgbench() {
  local at="host=${target%:*} port=${target#*:} dbname=postgres" until offset
  local mine=(-X -q -At -v ON_ERROR_STOP=1 "$at user=postgres")
  psql "${mine[@]}" -c "GRANT ALL ON SCHEMA public TO app"
  pgbench -i -q -I dtgvp "$at user=app" 2>&1
  psql "${mine[@]}" -c "CREATE SEQUENCE applied; GRANT USAGE ON SEQUENCE applied TO app;
    ALTER TABLE pgbench_history ADD seq bigint UNIQUE DEFAULT nextval('applied'), ADD at timestamptz DEFAULT clock_timestamp(),
      ADD epoch text DEFAULT current_setting('epochgate.epoch', true)"
  for ((until = SECONDS + ${SECONDS_OF_PGBENCH:-150}; SECONDS < until; )); do
    # While nobody leads nobody is let in.
    pgbench -n -c 4 -j 2 -T 5 "host=$host port=$port dbname=postgres user=app" || sleep 0.2
  done
  offset=$(python3 -c 'import time; print(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.time_ns())')
  psql "${mine[@]}" -c "SELECT format('{\"at\":%s,\"from\":\"db\",\"event\":\"applied\",\"target\":\"db\",\"resource\":\"orders\",\"epoch\":\"%s\",\"seq\":%s}',
    (extract(epoch FROM at) * 1000000000)::bigint + $offset, epoch, seq) FROM pgbench_history WHERE epoch <> '' ORDER BY seq" >"$kept.db.jsonl"
  check_pgbench "${mine[@]}"
}

# Commits that nobody answered are in the rows and not in what pgbench counts: at most one for each of its clients that a
# failover ended.
check_pgbench() {
  local acknowledged rows unanswered
  acknowledged=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$kept.log" |
    awk '{ sum += $1 } END { print sum + 0 }')
  rows=$(psql "$@" -c "SELECT count(*) FROM pgbench_history")
  unanswered=$(grep -cE 'client [0-9]+ (script [0-9]+ )?aborted' "$kept.log" || true)
  echo "$acknowledged acknowledged, $rows rows, $unanswered clients ended; by epoch:"
  psql "$@" -c "SELECT epoch, count(*), min(seq), max(seq) FROM pgbench_history GROUP BY 1 ORDER BY 3"
  held() { if "${@:2}"; then echo "passed"$'\t'"$1"; else echo "failed"$'\t'"$1"$'\t'other; fi >>"$kept.results"; }
  held "what was acknowledged is there" test "$acknowledged" -le "$rows"
  held "nothing is there that nobody sent" test "$rows" -le "$((acknowledged + unanswered))"
  held "the balances agree" test t = "$(psql "$@" -c "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = sum(delta)
    AND (SELECT sum(tbalance) FROM pgbench_tellers) = sum(delta) AND (SELECT sum(bbalance) FROM pgbench_branches) = sum(delta)
    FROM pgbench_history")"
  held "nothing was told but ended connections" test other != "$(grep -iE 'error|fatal|aborted' "$kept.log" |
    grep -v 'Run was aborted' >"$work/errors" && python3 "$own/results.py" why "$work/errors" || echo none)"
}

# ---- Redis' own -----------------------------------------------------------------------------------------------------

suite_redis() {
  local folder=$work/redis-suite rc=0 program kind
  cp -r "$sources/redis" "$folder"
  # It looks for the programs among its sources.
  for program in redis-cli redis-server redis-benchmark redis-check-rdb redis-check-aof; do
    ! command -v "$program" >/dev/null || ln -sf "$(command -v "$program")" "$folder/src/$program"
  done
  cd "$folder" || return
  local run=(./runtest --host "$host" --port "$port" --durable --timeout 300 --tags "${REDIS_TAGS:--slow}")
  if [[ $way == failovers ]]; then
    # A connection that cannot be made ends a run: so one for each file. Behind each, a script that its test lost is ended.
    ./runtest --list-tests | while read -r program; do
      "${run[@]}" --single "$program" </dev/null || true
      for kind in SCRIPT FUNCTION; do redis-cli -p "${target#*:}" "$kind" KILL </dev/null >/dev/null || true; done
    done
  else
    "${run[@]}" || rc=$?
  fi
  results redis "$kept.log"
  return $rc
}

# A writer, and over failovers two, A beside one stamp and B beside the other; every write of theirs is in the history.
suite_redis_writers() {
  local addresses=("$host:$port") acknowledged there
  [[ $way != failovers ]] || addresses=("$a" "$b")
  python3 "$own/redis_writers.py" write "${SECONDS_OF_WRITERS:-150}" "$kept" "${addresses[@]}"
  acknowledged=$(grep -c '"answered"' "$kept.clients.jsonl")
  there=$(redis-cli -p "${target#*:}" LLEN applied)
  echo "$acknowledged acknowledged, $there in the list"
  echo "$( ((acknowledged <= there)) && echo passed || echo failed)"$'\t'"what was acknowledged is there" >"$kept.results"
}

# With the sidecars' histories whole: `epochgate verify` is to have what the server applied.
after_redis_writers() { python3 "$own/redis_writers.py" applied "$target" "$kept" || wrong "the order of the writers"; }

# ---- clients --------------------------------------------------------------------------------------------------------

# A copy of a client's tests without the client itself, which is the installed one.
tests_alone() {
  mkdir -p "$work/alone"
  cp -r "$sources/$1/tests" "$work/alone/"
  [[ ! -f $sources/$1/pyproject.toml || $1 == asyncpg ]] || cp "$sources/$1/pyproject.toml" "$work/alone/"
}

# pytest_suite ARGUMENTS…: in that copy, with the interpreter that has the client.
pytest_suite() {
  local rc=0
  (cd "$work/alone" && "${PYTHON:-python3}" -m pytest -p no:randomly -q -rfE \
    --junitxml="$work/junit.xml" "$@") || rc=$?
  results junit "$work/junit.xml"
  return $rc
}

suite_asyncpg() {
  tests_alone asyncpg
  # Left out: checks of its own source.
  PGHOST=$host PGPORT=$port PGUSER=postgres PGDATABASE=postgres pytest_suite tests \
    --ignore tests/test__sourcecode.py --ignore tests/test__environment.py
}

suite_psycopg() {
  tests_alone psycopg
  says "$target" postgres "CREATE DATABASE psycopg_test ENCODING 'UTF8' TEMPLATE template0" >/dev/null
  # Left out: type checks, another database, what asserts times.
  pytest_suite tests -p no:asyncio -m "not slow and not timing" --test-dsn "host=$host port=$port user=postgres dbname=psycopg_test" \
    --ignore tests/test_typing.py --ignore tests/crdb
}

suite_redis_py() {
  local other="redismod onlycluster ssl replica cp_integration multidb_integration experimental" url=redis://$host:$port
  tests_alone redis-py
  # Left out: what needs a cluster, sentinels, modules, TLS.
  pytest_suite tests --redis-url "$url/0" --redis-mod-url "$url" --timeout 60 -m "not ${other// / and not }" \
    --ignore tests/test_scenario --ignore tests/maint_notifications \
    --ignore tests/test_cluster.py --ignore tests/test_asyncio/test_cluster.py \
    --ignore tests/test_sentinel.py --ignore tests/test_asyncio/test_sentinel.py
}

# Each file is a program.
suite_node_postgres() {
  local folder=$sources/node-postgres file rc=0 said
  mkdir -p "$kept.said"
  while read -r file; do
    said=$kept.said/${file//\//_}
    if (cd "$folder" && PGHOST=$host PGPORT=$port PGUSER=postgres PGDATABASE=postgres timeout 60 node "$file") >"$said" 2>&1 </dev/null; then
      echo "passed"$'\t'"$file"
    else
      echo "failed"$'\t'"$file"$'\t'"$(python3 "$own/results.py" why "$said")"
      rc=1
    fi >>"$kept.results"
  done < <(cd "$folder" && find test/integration -name '*-tests.js' | LC_ALL=C sort)
  return $rc
}

suite_ioredis() {
  local rc=0
  (cd "$sources/ioredis" && TS_NODE_TRANSPILE_ONLY=true NODE_ENV=test node_modules/.bin/mocha --exit --reporter json \
    --reporter-options "output=$work/mocha.json" 'test/helpers/*.ts' 'test/functional/**/*.ts') || rc=$?
  results mocha "$work/mocha.json"
  return $rc
}
