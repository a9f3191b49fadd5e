"""Runs a benchmark: every round runs every contender for a short time, and writes all samples as JSON.

See --help, and bench/run, which builds, installs what is compared with and starts a server."""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time

import machine
import programs
from benchmarks import BENCHMARKS, CONTENDERS
from programs import Unavailable

# All that calls/job.hpp names.
JOB = {"contender": "", "callers": 1, "operation": "get", "schema": "", "value_size": 200,
       "key_count": 10000, "own_work_us": 0, "rate": 0, "calls": 0, "warm_up": 0.15, "seconds": 1,
       "verify": False, "contexts": 1, "threads": 1, "connections": 0, "provider": "",
       "redis_socket": "", "redis_database": 0}

OTHER_PROGRAMS = ["pgbench", "redis_benchmark", "hiredis"]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Case:
    """One contender with one number of callers: in this build of the library, or in one beside it."""

    def __init__(self, scenario, contender, callers, label, program):
        self.ref = (scenario.name, contender, callers)
        self.settings = dict(CONTENDERS[contender])
        self.label, self.program = label, program
        self.rounds, self.skipped, self.tried = [], "", False

    def rates(self):
        return [figures["calls_per_second"] for figures in self.rounds if figures]

    def as_json(self, value_size):
        scenario, contender, callers = self.ref
        rounds = [figures and {name: float(f"{number:.4g}") if number < 1000 else round(number)
                               for name, number in figures.items() if name != "calls"}
                  for figures in self.rounds]
        return {"scenario": scenario, "value_bytes": value_size, "contender": contender,
                "callers": callers, "beside": self.label, "skipped": self.skipped, "rounds": rounds}


class Runner:
    def __init__(self, name, options):
        self.name, self.options, self.benchmark = name, options, BENCHMARKS[name]
        self.start = time.monotonic()
        self.failures = 0
        self.others = []  # their part of the machine's CPU time in each round, in per cent
        self.postgres = programs.Postgres(options.calls)
        self.redis = None
        self.groups = [group for group in map(self.group_of, self.benchmark.scenarios) if group[2]]
        self.servers = []  # that can be moved to another core

    def group_of(self, scenario):
        """The scenario, its job, and its cases."""
        cases = []
        for contender, callers in scenario.callers.items():
            whole, quick = callers if isinstance(callers, tuple) else (callers, callers)
            if self.options.smoke and CONTENDERS[contender]["contender"] in OTHER_PROGRAMS:
                continue
            for count in quick if self.options.quick else whole:
                cases.append(Case(scenario, contender, count, "", self.options.calls))
                if scenario.beside and "cache" in CONTENDERS[contender]["contender"]:
                    cases += [Case(scenario, contender, count, *other[:2])
                              for other in self.options.beside]
        job = {**JOB, "operation": scenario.operation, "value_size": scenario.value_size,
               "own_work_us": scenario.own_work_us, "calls": scenario.calls,
               # All in memory, also where there is little.
               "key_count": 2000 if scenario.value_size > 4096 else 10000}
        if self.options.smoke:
            job.update(key_count=100, calls=min(job["calls"], 1000))
        elif self.options.quick:
            job["calls"] //= 10
        return scenario, job, cases

    def start_servers(self):
        if any("redis" in contender for _, _, cases in self.groups
               for contender in (case.settings["contender"] for case in cases)):
            try:
                self.redis = programs.Redis(self.options.calls)
            except Unavailable as why:
                say(f"skipped: Redis: {why}")
        for _, job, _ in self.groups:
            self.postgres.fill(job)
            if self.redis:
                self.redis.fill(job)
        # Only of a server that was started for this run, which is when this is set: a server that others
        # use stays where it is.
        if self.postgres.bin and self.postgres.postmaster:
            self.servers = machine.placeable(
                [self.postgres.postmaster] + ([self.redis.process] if self.redis else []))

    def close(self):
        self.postgres.close()
        if self.redis:
            self.redis.close()

    def elapsed(self):
        return time.monotonic() - self.start

    def run(self):
        last = 0
        for number in range(self.options.rounds):
            before, cpu_before = self.elapsed(), self.cpu_of_others()
            if number > 0 and before + last > self.options.limit:
                say(f"stopped after {number} rounds: the time is over")
                break
            for scenario, job, cases in self.groups:
                if number < scenario.most_rounds:
                    say(f"round {number + 1}/{self.options.rounds}: {scenario.name}")
                    self.run_group(scenario, job, cases, number)
            last = self.elapsed() - before
            if self.postgres.postmaster:
                others = max(self.cpu_of_others() - cpu_before, 0) / last / os.cpu_count()
                self.others.append(round(100 * others))
        say(f"measured for {self.elapsed():.0f} seconds")

    def run_group(self, scenario, job, cases, number):
        if scenario.half_of:
            measured = [case.rates() for ref in scenario.half_of for _, _, others in self.groups
                        for case in others if case.ref == ref and not case.label and case.rates()]
            if not measured:
                return
            job["rate"] = statistics.median(measured[0]) / 2
        self.postgres.tidy()
        # Another order in every round, and the same orders in every run.
        for case in random.Random(number).sample(cases, len(cases)):
            if not case.skipped:
                case.rounds += [None] * (number - len(case.rounds))
                try:
                    case.rounds.append(self.run_case(scenario, job, case))
                except Unavailable as why:
                    case.skipped = str(why)
                    say(f"skipped: {case.ref[1]}: {why}")
                except RuntimeError as why:
                    # The others' figures are worth keeping; the exit code tells of it.
                    case.rounds.append(None)
                    self.failures += 1
                    say(f"failed: {case.ref[1]} with {case.ref[2]} callers: {why}")

    def run_case(self, scenario, job, case):
        seconds = self.options.seconds
        job = {**job, **case.settings, "callers": case.ref[2], "seconds": seconds,
               "warm_up": min(max(seconds / 4, 0.05), 0.15, seconds), "verify": not case.tried}
        case.tried = True
        pipeline = job.pop("pipeline", 1)
        placement = scenario.placement
        if placement.startswith("lone"):
            placement = "on one core" if job["callers"] == 1 else "as scheduled"
        with machine.placed(placement, self.servers):
            if job["contender"] == "pgbench":
                return programs.pgbench(self.postgres, job)
            if job["contender"] == "stampede":
                return programs.stampede(self.postgres, job)
            if job["contender"] == "redis_benchmark":
                return programs.redis_benchmark(self.redis, job, pipeline)
            server = self.redis if job["contender"] == "hiredis" and self.redis else self.postgres
            return programs.bench_calls(case.program, job, server)

    def cpu_of_others(self):
        if not self.postgres.postmaster:
            return 0
        servers = machine.cpu_seconds(self.postgres.postmaster, True)
        servers += machine.cpu_seconds(self.redis.process, False) if self.redis else 0
        return machine.machine_cpu_seconds() - servers - machine.own_cpu_seconds()

    def report(self):
        options = self.options
        kind = "smoke" if options.smoke else "quick" if options.quick else "full"
        versions = json.loads(programs.run([options.calls, "versions"])[0])
        conditions = {
            "run": kind, "date": time.strftime("%Y-%m-%d"), **machine.conditions(), **versions,
            "postgresql": self.postgres.sql("SHOW server_version"),
            "connection": self.postgres.connection,
            "fsync": self.postgres.sql("SHOW fsync"),
            "synchronous_commit": self.postgres.sql("SHOW synchronous_commit"),
            "redis": self.redis.version if self.redis else "none",
            "placed": bool(self.servers), "beside": {other[0]: other[2] for other in options.beside},
            "rounds": options.rounds, "seconds": options.seconds, "cpu_percent_of_others": self.others,
            "failed_samples": self.failures}
        cases = [case.as_json(scenario.value_size)
                 for scenario, _, group in self.groups for case in group]
        # A line for each case, so that two files can be compared by lines.
        lines = ",\n".join(json.dumps(case) for case in cases)
        ratios = ",\n".join(json.dumps(ratio) for ratio in self.benchmark.ratios)
        return (f'{{\n"benchmark": "{self.name}",\n"conditions": {json.dumps(conditions, indent=1)},\n'
                f'"cases": [\n{lines}\n],\n"ratios": [\n{ratios}\n]\n}}\n')


def beside(text):
    label, equals, program = text.partition("=")
    label, program = (label, program) if equals and "/" not in label else ("beside", text)
    return label, program, json.loads(programs.run([program, "versions"])[0])


def options_of(arguments):
    parser = argparse.ArgumentParser(
        prog="bench/run", formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name}: {benchmark.help}" for name, benchmark in BENCHMARKS.items()))
    add = parser.add_argument
    add("name", choices=BENCHMARKS, help="the benchmark")
    add("calls", help="the program bench_calls")
    add("--rounds", type=int, help="how often everything is measured")
    add("--seconds", type=float, help="how long each contender runs in a round; pgbench: whole seconds")
    add("--limit", type=float, default=690,
        help="no further round is begun that would not end after so many seconds (%(default)s)")
    add("--quick", action="store_true", help="few contenders and rounds: about a minute")
    add("--smoke", action="store_true", help="only to see that it works: tiny counts")
    add("--beside", type=beside, action="append", default=[], metavar="[LABEL=]PROGRAM",
        help="bench_calls built with another version of the library: takes part in every round")
    add("--json", help="where every sample of every round goes (standard output)")
    options = parser.parse_args(arguments)
    benchmark = BENCHMARKS[options.name]
    usual = (1, 0.02) if options.smoke else (2 if options.quick else benchmark.rounds, benchmark.seconds)
    options.rounds = options.rounds or usual[0]
    options.seconds = options.seconds or usual[1]
    return options


def main():
    options = options_of(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    runner = Runner(options.name, options)
    try:
        runner.start_servers()
        runner.run()
        report = runner.report()
    finally:
        runner.close()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write(report)
    else:
        print(report, end="")
    return 1 if runner.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
