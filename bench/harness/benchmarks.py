"""The benchmarks as data: which contenders make which calls, and what is compared with what."""

from dataclasses import dataclass, field

POOL = 4  # PoolOptions::max_size, by default

# How contenders are called, and what bench_calls or programs.py makes of them.
ASYNC = "psycache async"
THREADS = "psycache async, 2 threads"
CONTEXTS = "psycache async, 2 contexts"
BLOCKING = "psycache blocking"
MEMORY = "psycache async, one caller"
LIBPQ = "libpq + JSON"
SHARED_LIBPQ = f"libpq + JSON, {POOL} shared connections"
PQXX = "libpqxx + JSON"
PGBENCH = "pgbench prepared"
REDIS = "redis-benchmark"
REDIS_PIPELINED = "redis-benchmark -P 16"
HIREDIS = "hiredis + JSON, 1 connection"
NO_PROVIDER = "no provider"
AGAIN = "no provider, again"
BY_HAND = "get, compute, put"
CREATE = "get_or_create"
CREATE_STALE = "get_or_create, stale_for 1 s"
PROVIDERS = ["does nothing", "empty spans", "Prometheus"]

CONTENDERS = {
    ASYNC: {"contender": "cache_async"},
    THREADS: {"contender": "cache_async", "threads": 2},
    CONTEXTS: {"contender": "cache_async", "contexts": 2},
    BLOCKING: {"contender": "cache_blocking"},
    MEMORY: {"contender": "cache_memory"},
    LIBPQ: {"contender": "libpq"},
    SHARED_LIBPQ: {"contender": "libpq", "connections": POOL},
    PQXX: {"contender": "libpqxx"},
    PGBENCH: {"contender": "pgbench"},
    REDIS: {"contender": "redis_benchmark", "pipeline": 1},
    REDIS_PIPELINED: {"contender": "redis_benchmark", "pipeline": 16},
    HIREDIS: {"contender": "hiredis"},
    NO_PROVIDER: {"contender": "cache_async"},
    AGAIN: {"contender": "cache_async"},
    BY_HAND: {"contender": "stampede", "words": ["by_hand"]},
    CREATE: {"contender": "stampede", "words": ["get_or_create"]},
    CREATE_STALE: {"contender": "stampede", "words": ["get_or_create", "--stale", "1000"]},
    **{name: {"contender": "cache_async", "provider": name} for name in PROVIDERS},
}


@dataclass
class Scenario:
    """Contenders that are compared with each other, and therefore run shortly after one another."""

    name: str
    operation: str
    callers: dict  # of each contender; where it is a pair, the second is for --quick
    value_size: int = 200
    own_work_us: int = 0
    calls: int = 0
    # A lone caller shares a core with its server, since the scheduler's choice would decide otherwise;
    # all else runs where the scheduler puts it.
    placement: str = "lone callers on their server's core"
    most_rounds: int = 1000
    beside: bool = True  # whether --beside takes part
    half_of: list = field(default_factory=list)  # the rate: half of the first that was measured


@dataclass
class Benchmark:
    help: str
    rounds: int
    seconds: float
    scenarios: list
    # Text, figure, two references (scenario, contender, callers), and the bar if there is one. Of the
    # first as a multiple of the second; of the first alone without a second.
    ratios: list


ON_ONE_CORE = "on one core"
ON_TWO_CORES = "on two cores"
AS_SCHEDULED = "as scheduled"


def aside(*arguments, **settings):
    """What no bar is taken from."""
    return Scenario(*arguments, **settings, most_rounds=3, beside=False)


def throughput():
    busy = "get, callers that work 20 us"
    two_cores = "get, on two cores"
    paced = "get at a given rate"
    large = 16384
    scenarios = [
        Scenario("memory", "get", {MEMORY: ([1], [1])}, calls=1000000, most_rounds=1, beside=False),
        Scenario("get", "get", {
            ASYNC: ([1, 8, 64, 256], [1, 64]), THREADS: ([64], []), CONTEXTS: ([64], []),
            BLOCKING: ([1, 8], [1]), LIBPQ: ([1, 8], [1, 8]), PQXX: ([1, 8], []),
            PGBENCH: ([POOL, 8, 64], [POOL, 8]), REDIS: ([16, 64], [16]),
            REDIS_PIPELINED: ([16], []), HIREDIS: ([64], [64])}),
        Scenario(two_cores, "get", {ASYNC: ([1], []), BLOCKING: ([1], []), LIBPQ: ([1], [])},
                 placement=ON_TWO_CORES),
        Scenario(busy, "get", {ASYNC: ([64], []), THREADS: ([64], []), CONTEXTS: ([64], [])},
                 own_work_us=20),
        Scenario("put", "put", {
            ASYNC: ([1, 8, 64, 256], [64]), BLOCKING: ([1, 8], []), LIBPQ: ([1, 8], []),
            PQXX: ([1, 8], []), PGBENCH: ([POOL, 8, 64], [POOL]), REDIS: ([16], [16]),
            REDIS_PIPELINED: ([16], []), HIREDIS: ([64], [])}),
        Scenario(paced, "get", {ASYNC: ([64], [64]), LIBPQ: ([8], [8])},
                 half_of=[("get", PGBENCH, 8), ("get", LIBPQ, 8)]),
        # With more than one thing to do at a time, both sides have work all the time.
        aside("get of 64 keys", "get_many", {
            ASYNC: ([1, 8], []), BLOCKING: ([1], []), PGBENCH: ([POOL], []), REDIS: ([1], [])},
              placement=AS_SCHEDULED),
        aside("get as text", "get_text", {ASYNC: ([64], [])}),
        # What reading and writing the JSON costs grows with it.
        aside("get, 16 KiB", "get", {
            ASYNC: ([1, 64], []), LIBPQ: ([1, 8], []), PGBENCH: ([POOL], []), REDIS: ([16], [])},
              value_size=large),
        aside("get as text, 16 KiB", "get_text", {ASYNC: ([64], [])}, value_size=large),
        aside("put, 16 KiB", "put", {ASYNC: ([64], []), PGBENCH: ([POOL], []), REDIS: ([16], [])},
              value_size=large),
    ]
    rate = "calls_per_second"
    gets, puts = ("get", ASYNC, 64), ("put", ASYNC, 64)
    ratios = []
    for contender, word, bar in [(ASYNC, "an async", "<= 1.15"), (BLOCKING, "a blocking", "<= 1.10")]:
        for name, where in [("get", "server on its core"), (two_cores, "server on another core")]:
            ratios.append((f"1 caller, {where}: p50 of {word} get / libpq + JSON", "p50_us",
                           (name, contender, 1), (name, LIBPQ, 1), bar))
    for call, of, bar in [("get", gets, ">= 3.50"), ("put", puts, ">= 2.50")]:
        for count in [POOL, 8, 64]:
            ratios.append((f"64 callers: {call}s / pgbench prepared, {count} connections", rate, of,
                           (call, PGBENCH, count), bar if count == POOL else ""))
    ratios += [
        ("64 callers: gets / Redis GET, 16 connections, no pipelining", rate, gets,
         ("get", REDIS, 16), "> 1.00"),
        ("64 callers: gets / hiredis, 64 in one pipeline", rate, gets, ("get", HIREDIS, 64), ""),
        ("64 callers that work 20 us: gets of 2 threads / of 1", rate, (busy, THREADS, 64),
         (busy, ASYNC, 64), ""),
        ("64 callers that work 20 us: gets of 2 contexts / of 1", rate, (busy, CONTEXTS, 64),
         (busy, ASYNC, 64), ""),
        ("64 callers: client CPU of a get / that of libpq + JSON", "client_cpu_us", gets,
         ("get", LIBPQ, 1), "<= 0.30"),
        ("64 callers: client CPU of a get / that of 8 libpq threads", "client_cpu_us", gets,
         ("get", LIBPQ, 8), ""),
        ("64 callers at half of pgbench's rate: p99 / that of 8 libpq threads", "p99_us",
         (paced, ASYNC, 64), (paced, LIBPQ, 8), "<= 1.00"),
        ("growth of memory in MiB, after the first hundredth of a million calls (--quick: 100,000)",
         "memory_growth_mib", ("memory", MEMORY, 1), None, "< 1.00"),
    ]
    return Benchmark("The library beside libpq, libpqxx, pgbench and Redis: gets and puts of 200 bytes "
                     "and of 16 KiB, batches, texts, a given rate, memory.", 7, 1.0, scenarios, ratios)


def latency():
    scenarios, ratios = [], []
    for operation in ["get", "put"]:
        for placement in [ON_ONE_CORE, ON_TWO_CORES]:
            name = f"{operation}, {placement}"
            scenarios.append(Scenario(name, operation, {LIBPQ: [1], ASYNC: [1], BLOCKING: [1]},
                                      placement=placement))
            for contender, word, bar in [(ASYNC, "an async", "<= 1.15"),
                                         (BLOCKING, "a blocking", "<= 1.10")]:
                wanted = bar if name == "get, on one core" else ""
                ratios.append((f"{placement}: p50 of {word} {operation} / libpq + JSON", "p50_us",
                               (name, contender, 1), (name, LIBPQ, 1), wanted))
    return Benchmark("One caller, one call at a time: nothing is shared or pipelined. Client and server "
                     "share a core, or have one each.", 25, 0.2, scenarios, ratios)


def blocking():
    threads = [1, 2, 4, 8, 16, 64]
    scenarios, ratios = [], []
    for name in ["get", "put"]:
        scenarios.append(Scenario(name, name, {
            BLOCKING: threads, SHARED_LIBPQ: (threads, [1, 4, 64]), PGBENCH: [POOL]},
                                  placement=AS_SCHEDULED))
        for count in threads:
            ratios.append((f"{count} thread{'s' if count > 1 else ''}: {name}s / libpq + JSON, "
                           f"{POOL} shared connections", "calls_per_second",
                           (name, BLOCKING, count), (name, SHARED_LIBPQ, count), ""))
        ratios.append((f"64 threads: {name}s / pgbench prepared, {POOL} connections",
                       "calls_per_second", (name, BLOCKING, 64), (name, PGBENCH, POOL), ""))
    return Benchmark("Threads that share one PostgresCache with its default pool, beside threads that "
                     "share as many libpq connections, and pgbench.", 9, 0.5, scenarios, ratios)


def instrumentation():
    names = [NO_PROVIDER, AGAIN, *PROVIDERS]
    ratios = []
    for text, count, figure in [("1 caller, p50", 1, "p50_us"),
                                ("1 caller, client CPU", 1, "client_cpu_us"),
                                ("64 callers, client CPU", 64, "client_cpu_us")]:
        for name in names[1:]:
            ratios.append((f"{text}: {name} / {NO_PROVIDER}", figure, ("get", name, count),
                           ("get", NO_PROVIDER, count), ""))
    return Benchmark("Gets of caches that are watched in different ways. The cache without a provider "
                     "runs twice: the ratio of the two tells how much of all ratios is the machine's.",
                     25, 0.3,
                     [Scenario("get", "get", {name: [1, 64] for name in names},
                               placement=ON_TWO_CORES)], ratios)


def operations():
    scenarios, ratios = [], []
    rate = "calls_per_second"
    for name in ["touch", "put_if_absent", "increment"]:
        scenarios.append(Scenario(name, name, {ASYNC: [64], PGBENCH: [POOL]}, placement=AS_SCHEDULED))
        ratios.append((f"64 callers of {name} / the same statement, pgbench prepared, {POOL} connections",
                       rate, (name, ASYNC, 64), (name, PGBENCH, POOL), ">= 2.00"))
    many = "get of 64 keys"
    scenarios.append(Scenario(many, "get_many", {ASYNC: [1], BLOCKING: [1], PGBENCH: [1]},
                              placement=AS_SCHEDULED))
    for contender, word, bar in [(ASYNC, "an async", ">= 0.70"), (BLOCKING, "a blocking", "")]:
        ratios.append((f"keys a second of {word} get_raw_many of 64 / = ANY, pgbench prepared, 1 connection",
                       rate, (many, contender, 1), (many, PGBENCH, 1), bar))
    large = "16 KiB"
    scenarios.append(Scenario(f"get, {large}", "get", {ASYNC: [64]}, value_size=16384,
                              placement=AS_SCHEDULED))
    scenarios.append(Scenario(f"get as text, {large}", "get_text", {ASYNC: [64]}, value_size=16384,
                              placement=AS_SCHEDULED))
    ratios.append((f"64 callers, values of {large}: gets that are parsed / as text", rate,
                   (f"get, {large}", ASYNC, 64), (f"get as text, {large}", ASYNC, 64), ""))
    return Benchmark("Operations on one key, beside pgbench with the same statements; calls of many keys; "
                     "large values.", 7, 1.0, scenarios, ratios)


def stampede():
    name = "8 processes"
    ratios = []
    for text, figure in [("loads a second", "loads_per_second"),
                         ("loads of the ten hottest keys", "hot_loads_per_second"),
                         ("most loads in 100 ms", "most_loads_in_100_ms"),
                         ("p50 of a request", "p50_us"),
                         ("p99 of a request", "p99_us"),
                         ("statements a second", "statements_per_second"),
                         ("client CPU of a request", "client_cpu_us"),
                         ("server CPU of a request", "server_cpu_us")]:
        for contender in [CREATE, CREATE_STALE]:
            ratios.append((f"{text}: {BY_HAND} / {contender}", figure, (name, BY_HAND, 8000),
                           (name, contender, 8000), ""))
    return Benchmark("How often values are computed that 8,000 callers in 8 processes want: 1,000 keys, the "
                     "n-th 1/n times as often as the first; fresh for 1 s, computed in 50 ms.", 5, 5.0,
                     [Scenario(name, "get", {
                         contender: [8000] for contender in [BY_HAND, CREATE, CREATE_STALE]},
                               placement=AS_SCHEDULED, beside=False)], ratios)


BENCHMARKS = {
    "throughput": throughput(),
    "latency": latency(),
    "blocking": blocking(),
    "instrumentation": instrumentation(),
    "operations": operations(),
    "stampede": stampede(),
}
