"""Other programs: bench_calls, pgbench, redis-benchmark, and a private Redis server."""

import contextlib
import ctypes
import json
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import machine

TTL = 24 * 3600  # seconds, as in calls/job.hpp


class Unavailable(Exception):
    """A contender that cannot run here."""


def run(command, **settings):
    """Runs a program to its end. Returns its standard output and the CPU seconds it took."""
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, **settings) as child:
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{command[0]} failed: {errors.read()[-400:]}")
    return output, usage.ru_utime + usage.ru_stime


def found(name, package, folder=None):
    path = shutil.which(name, path=folder) if folder else None
    path = path or shutil.which(name)
    if not path:
        raise Unavailable(f"there is no {name} (Debian: {package})")
    return path


class ServerCpu:
    """CPU of the server for each call, where its processes can be seen."""

    def __init__(self, process, with_children):
        self.process, self.with_children = process, with_children
        self.before = machine.cpu_seconds(process, with_children)

    def used(self):
        now = machine.cpu_seconds(self.process, self.with_children)
        return None if now is None or self.before is None else max(now - self.before, 0)


def add_cpu(figures, client, server):
    if client is not None:
        figures["client_cpu_us"] = client * 1e6 / figures["calls"]
    if server is not None:
        figures["server_cpu_us"] = server * 1e6 / figures["calls"]
    return figures


def key_of(digit, number):
    return f"{digit}{number:012}"


class Postgres:
    """The server of the environment, with a schema of this run for every value size."""

    def __init__(self, calls):
        self.calls = calls
        self.dsn = os.environ.get("PSYCACHE_TEST_DSN") or os.environ.get("PSYCACHE_DSN", "")
        self.bin = os.environ.get("PSYCACHE_TEST_PG_BIN")
        self.schemas = set()
        self.postmaster = self.find_postmaster()

    def sql(self, text):
        return run([self.calls, "sql", text])[0].strip()

    def find_postmaster(self):
        """The process that starts all others of the server; 0 when it runs elsewhere."""
        self.connection = self.sql("SELECT coalesce(host(inet_server_addr()), 'Unix socket')")
        if self.connection not in ("Unix socket", "127.0.0.1", "::1"):
            return 0
        process = self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        # A container's server has process numbers of its own.
        try:
            title = Path(f"/proc/{process}/cmdline").read_text(errors="replace")
        except OSError:
            return 0
        return machine.stat(process)[0] if process and "postgres" in title else 0

    def fill(self, job):
        job["schema"] = f"psycache_bench_{os.getpid()}_{job['value_size']}"
        if job["schema"] not in self.schemas:
            self.schemas.add(job["schema"])
            run([self.calls, "fill", json.dumps(job)])

    def tidy(self):
        """What autovacuum would do some time, done now."""
        for schema in self.schemas:
            self.sql(f"VACUUM {schema}.psycache")

    def close(self):
        for schema in self.schemas:
            self.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")

    def server_cpu(self):
        return ServerCpu(self.postmaster, True)


class Redis:
    """Runs on a Unix socket in a folder of its own, stores nothing on disk, ends with this program."""

    def __init__(self, calls):
        self.calls = calls
        self.databases = {}
        # Debian's redis-server package would install a service. Its program is in redis-tools as well,
        # by the name of the tool that it also is; the name it is called by decides which it is.
        program = shutil.which("redis-server") or found("redis-check-rdb", "redis-tools")
        self.client = found("redis-cli", "redis-tools")
        # Not $TMPDIR: the path of a Unix socket must be short.
        self.folder = tempfile.TemporaryDirectory(prefix="psycache-bench.", dir="/tmp")
        self.socket = f"{self.folder.name}/socket"
        self.server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "",
             "--appendonly", "no", "--dir", self.folder.name],
            executable=program, stdout=subprocess.DEVNULL, start_new_session=True,
            # PR_SET_PDEATHSIG, should this program be killed.
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))
        self.process = self.server.pid
        for _ in range(200):
            with contextlib.suppress(RuntimeError):
                self.version = self.ask("INFO", "server").partition("redis_version:")[2].split()[0]
                return
            time.sleep(0.025)
        self.close()
        raise Unavailable("the Redis server did not start")

    def ask(self, *words, **settings):
        return run([self.client, "-s", self.socket, *words], **settings)[0]

    def fill(self, job):
        size = job["value_size"]
        job["redis_socket"] = self.socket
        job["redis_database"] = self.databases.setdefault(size, len(self.databases))
        if self.ask("-n", str(job["redis_database"]), "DBSIZE").strip() != "0":
            return
        with tempfile.TemporaryFile() as file:
            for line in run([self.calls, "entries", json.dumps(job)])[0].splitlines():
                key, _, value = line.partition(" ")
                # In Redis's protocol: words with their lengths; all of it is ASCII.
                file.write(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n"
                           f"${len(value)}\r\n{value}\r\n".encode())
            file.seek(0)
            self.ask("-n", str(job["redis_database"]), "--pipe", stdin=file)

    def close(self):
        self.server.kill()
        self.server.wait()
        self.folder.cleanup()

    def server_cpu(self):
        return ServerCpu(self.process, False)


def bench_calls(program, job, server):
    """One run of a contender in a process of its own."""
    with subprocess.Popen([program, "run", json.dumps(job)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as child:
        line = child.stdout.readline()
        cpu = server.server_cpu()
        if line == "ready\n":
            child.stdin.write("\n")
            child.stdin.flush()
            line = child.stdout.readline()
        used = cpu.used()
        child.communicate()
    if child.returncode != 0:
        raise RuntimeError(f"{program} failed")
    answer = json.loads(line)
    if "skipped" in answer:
        raise Unavailable(answer["skipped"])
    figures = answer["figures"]
    return add_cpu(figures, None, used) if "calls" in figures else figures


def stampede(postgres, job):
    """Callers in 8 processes, which begin without a value."""
    # With statistics of a table in use: for an empty one the server plans to read all of it.
    postgres.sql(f"DELETE FROM {job['schema']}.psycache WHERE key LIKE '%stampede:%'")
    postgres.sql(f"VACUUM ANALYZE {job['schema']}.psycache")
    # The values, all of which are stored in the first second, expire at any time after some more.
    warm_up, seconds = 4, job["seconds"]
    options = {"callers": job["callers"] // 8}
    if seconds < 0.1:  # --smoke
        warm_up, seconds = 0.5, 1.0  # of which a busy machine leaves enough
        options = {"processes": 2, "callers": 4, "think": 5}
    options.update({"schema": job["schema"], "warm-up": round(warm_up * 1000),
                    "measured": round(seconds * 1000)})
    cpu = postgres.server_cpu()
    output, _ = run([str(Path(postgres.calls).with_name("bench_stampede")), *job["words"],
                     *(word for name, value in options.items() for word in [f"--{name}", str(value)])])
    used = cpu.used()
    # There are as many calls a second while it warms up.
    return add_cpu(json.loads(output), None, used and used * seconds / (warm_up + seconds))


def put_text(calls, job):
    """What all puts of that size write."""
    return run([calls, "entries", json.dumps({**job, "key_count": 1})])[0].splitlines()[1][14:]


PGBENCH_STATEMENTS = {
    "get": "SELECT value FROM {table} WHERE key = :k AND expires_at > statement_timestamp()",
    "get_many": "SELECT key, value FROM {table} WHERE key = ANY(ARRAY(SELECT (:k::bigint + i)::text"
                " FROM generate_series(0, 63) AS i)) AND expires_at > statement_timestamp()",
    "put": "INSERT INTO {table} (key, value, expires_at) SELECT :k::text, :v::jsonb,"
           " coalesce(statement_timestamp() + :ttl::bigint * interval '1 microsecond',"
           " 'infinity'::timestamptz) ON CONFLICT (key) DO UPDATE SET value = excluded.value,"
           " expires_at = excluded.expires_at",
    "touch": "UPDATE {table} SET expires_at = coalesce(statement_timestamp() + :ttl::bigint *"
             " interval '1 microsecond', 'infinity'::timestamptz) WHERE key = :k::text"
             " AND expires_at > statement_timestamp()",
    "put_if_absent": "INSERT INTO {table} AS t (key, value, expires_at) SELECT :k::text, :v::jsonb,"
                     " coalesce(statement_timestamp() + :ttl::bigint * interval '1 microsecond',"
                     " 'infinity'::timestamptz) ON CONFLICT (key) DO UPDATE SET"
                     " value = excluded.value, expires_at = excluded.expires_at"
                     " WHERE t.expires_at <= statement_timestamp() RETURNING t.key",
    # The same that the library sends, without what it adds about locks.
    "increment": "INSERT INTO {table} AS t (key, value, expires_at) SELECT :k::text,"
                 " to_jsonb(1::bigint), coalesce(statement_timestamp() + :ttl::bigint * interval"
                 " '1 microsecond', 'infinity'::timestamptz) ON CONFLICT (key) DO UPDATE SET value ="
                 " CASE WHEN t.expires_at <= statement_timestamp() THEN excluded.value ELSE"
                 " to_jsonb(t.value::bigint + excluded.value::bigint) END, expires_at = CASE WHEN"
                 " t.expires_at <= statement_timestamp() THEN excluded.expires_at ELSE t.expires_at"
                 " END WHERE t.expires_at <= statement_timestamp() OR CASE jsonb_typeof(t.value)"
                 " WHEN 'number' THEN scale(t.value::numeric) = 0 AND t.value::numeric BETWEEN"
                 " -9223372036854775808 AND 9223372036854775807 ELSE false END"
                 " RETURNING t.key, t.value::bigint",
}
# The first digit of an operation's keys, as in calls/job.hpp.
DIGITS = {"put": 3, "put_if_absent": 4, "increment": 5}


def pgbench(postgres, job):
    """As much as the server gives with one prepared statement for each call, and little client work."""
    program = found("pgbench", "postgresql-15", postgres.bin)
    # The server keeps a few for superusers, and vacuums and such need one.
    if job["callers"] + 10 > int(postgres.sql("SHOW max_connections")):
        raise Unavailable("the server's max_connections is too low")
    keys = 64 if job["operation"] == "get_many" else 1
    digit = DIGITS.get(job["operation"], 1)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        statement = PGBENCH_STATEMENTS[job["operation"]].format(table=job["schema"] + ".psycache")
        script.write(f"\\set k random({key_of(digit, 0)}, {key_of(digit, job['key_count'] - keys)})\n"
                     f"{statement};\n")
        script.flush()
        command = [program, "-n", "-M", "prepared", "-c", str(job["callers"]),
                   "-j", str(min(job["callers"], 2)), "-f", script.name,
                   "-D", "v=" + put_text(postgres.calls, job), "-D", f"ttl={TTL * 1000000}"]

        def measure(*limit):
            cpu = postgres.server_cpu()
            output, client = run([*command, *limit, postgres.dsn])
            time.sleep(0.02)  # until the server has noticed that its processes ended
            return output, client, cpu.used()

        # What connecting costs is not the calls': it is measured alone and subtracted.
        _, idle_client, idle_server = measure("-t", "1")
        # The time in which many connect is counted in -T, though not in what it tells.
        seconds = math.ceil(job["seconds"] - 0.01) + (job["callers"] > 16)
        output, client, server = measure("-T", str(seconds))
    told = re.search(r"actually processed: (\d+).*tps = ([\d.]+)", output, re.DOTALL)
    if not told:
        raise RuntimeError(f"pgbench made no call: {output}")
    figures = {"calls": int(told[1]) * keys, "calls_per_second": float(told[2]) * keys}
    return add_cpu(figures, max(client - idle_client, 0),
                   None if server is None else max(server - idle_server, 0))


def redis_benchmark(redis, job, pipeline):
    """Redis's own load generator, which throws answers away."""
    if redis is None:
        raise Unavailable("there is no Redis server")
    keys = 64 if job["operation"] == "get_many" else 1
    words = ["MGET" if keys > 1 else "GET", *["1__rand_int__"] * keys]
    if job["operation"] == "put":
        words = ["SET", "3__rand_int__", put_text(redis.calls, job), "EX", str(TTL)]
    command = [found("redis-benchmark", "redis-tools"), "-s", redis.socket, "--csv",
               "--dbnum", str(job["redis_database"]), "-r", str(job["key_count"]),
               "-c", str(job["callers"]), "-P", str(pipeline)]
    # It runs a number of commands rather than a time: as many as the run before promises.
    commands = 2000
    for seconds in [job["warm_up"], job["seconds"], 0]:
        cpu = redis.server_cpu()
        output, client = run([*command, "-n", str(commands), *words])
        used = cpu.used()
        # A line of names and a line of figures: the command, rps, then milliseconds: average, min, p50,
        # p95, p99, max. Counted from the end, since a command can hold commas.
        numbers = output.splitlines()[1].replace('"', "").split(",")
        rate = float(numbers[-7])
        figures = {"calls": commands * keys, "calls_per_second": rate * keys,
                   "p50_us": float(numbers[-4]) * 1000, "p99_us": float(numbers[-2]) * 1000}
        commands = max(1000, int(rate * seconds))
    return add_cpu(figures, client, used)
