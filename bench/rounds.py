# SPDX-License-Identifier: BSD-3-Clause
"""Figures: contenders measured in alternating rounds, and what comes of it."""

import collections
import json
import os
import platform
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import report
from servers import ServerError, peak_rss

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLIENT_SECONDS = 900


class ClientError(Exception):
    pass


ClientRun = collections.namedtuple('ClientRun', 'text seconds cpu rss')


class Figure:
    """One thing measured on several contenders."""

    def __init__(self, name, title, unit, contenders, comparisons=(),
                 limits=(), op='read', rounds_factor=1, rounds_max=None,
                 p99_target=None):
        self.name = name
        self.title = title
        self.unit = unit  # a rate: more is better; 's', 'MiB': less is
        self.contenders = contenders    # [(name, function() -> run)]
        self.comparisons = comparisons  # [(subject, label, peers, target)]
        self.limits = limits            # [(label, contender, key, limit)]
        self.op = op  # what CPU time is counted for
        self.p99_target = p99_target  # of each comparison, if any
        self.rounds_factor = rounds_factor
        self.rounds_max = rounds_max


def run_client(argv):
    """Runs a client to its end.

    Its memory is sampled: the kernel's own maximum of a child begins
    with that of the process that started it.
    """
    with tempfile.TemporaryFile('w+') as out, \
            tempfile.TemporaryFile('w+', errors='replace') as err:
        start = time.monotonic()
        try:
            proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=err)
        except FileNotFoundError:
            raise ClientError('%s is not installed' % argv[0]) from None
        fd = os.pidfd_open(proc.pid)
        rss = 0
        try:
            while not select.select([fd], [], [], 0.02)[0]:
                rss = max(rss, peak_rss(proc.pid))
                if time.monotonic() - start > CLIENT_SECONDS:
                    raise ClientError('%s did not end in %d s' %
                                      (argv[0], CLIENT_SECONDS))
            seconds = time.monotonic() - start
            _, status, used = os.wait4(proc.pid, 0)
            proc.returncode = os.waitstatus_to_exitcode(status)
        finally:
            os.close(fd)
            if proc.returncode is None:
                proc.kill()
                proc.wait()
        if proc.returncode != 0:
            err.seek(0)
            lines = err.read().strip().splitlines() or ['no message']
            raise ClientError('%s: status %d: %s' %
                              (argv[0], proc.returncode, lines[-1]))
        out.seek(0)
        return ClientRun(out.read(), seconds,
                         used.ru_utime + used.ru_stime, rss)


def run_figure(figure, rounds):
    rounds *= figure.rounds_factor
    if figure.rounds_max:
        rounds = min(rounds, figure.rounds_max)
    print('%s: %s, %d round%s' % (figure.name, figure.title, rounds,
                                  's' if rounds > 1 else ''),
          flush=True)
    runs = {name: [None] * rounds for name, _ in figure.contenders}
    errors = {}
    for i in range(rounds):
        for name, measure in figure.contenders:
            if name in errors:
                continue
            if sys.stderr.isatty():
                sys.stderr.write('\r\033[K  round %d of %d: %s' %
                                 (i + 1, rounds, name))
                sys.stderr.flush()
            try:
                r = measure()
                r['load'] = os.getloadavg()[0]
                runs[name][i] = r
            except (ServerError, ClientError) as e:
                errors[name] = str(e)
    if sys.stderr.isatty():
        sys.stderr.write('\r\033[K')
    ret = conclude(figure, runs, errors)
    report.print_figure(ret)
    return ret


def compare(runs, errors, subject, label, peers, target, key, less):
    """Ratios of each round. @less: the smaller of two values is the better.
    """
    known = [p for p in peers if p in runs and p not in errors]
    ratios = []
    if subject not in errors and known:
        for i, r in enumerate(runs[subject]):
            theirs = [runs[p][i][key] for p in known]
            ratios.append(min(theirs) / r[key] if less
                          else r[key] / max(theirs))
    c = {'subject': subject, 'label': label, 'peers': known,
         'target': target, 'ratios': ratios, 'met': None}
    if ratios:
        c['summary'] = report.summary(ratios)
        if target is not None:
            c['met'] = c['summary']['median'] >= target
    return c


def conclude(figure, runs, errors):
    """The figure's medians, ratios and verdicts as plain data."""
    contenders = []
    for name, _ in figure.contenders:
        good = [r for r in runs[name] if r]
        if name in errors:
            good = []  # a contender that failed once has no figure
        c = {'name': name, 'error': errors.get(name), 'runs': good}
        if good:
            c['summary'] = report.summary([r['value'] for r in good])
            # The kernel counts in ticks of 10 ms: short runs need the sum.
            c['cpu_per_op'] = (sum(r['server_cpu'] for r in good) /
                               sum(r['ops'] for r in good))
            c['rss'] = max(r['rss'] for r in good)
        contenders.append(c)

    comparisons = []
    for subject, label, peers, target in figure.comparisons:
        comparisons.append(compare(runs, errors, subject, label, peers,
                                   target, 'value',
                                   figure.unit in ('s', 'MiB')))
        if figure.p99_target is not None:
            comparisons.append(compare(runs, errors, subject, label + ', p99',
                                       peers, figure.p99_target, 'p99_us',
                                       True))

    limits = []
    for label, name, key, limit in figure.limits:
        value = None
        if name not in errors:
            values = [r[key] for r in runs[name]]
            # Of memory the worst run counts, of time the median.
            value = max(values) if key == 'rss' else statistics.median(values)
        limits.append({'label': label, 'value': value, 'limit': limit,
                       'unit': 'B' if key == 'rss' else 's',
                       'met': None if value is None else value <= limit})
    return {'name': figure.name, 'title': figure.title, 'unit': figure.unit,
            'op': figure.op, 'contenders': contenders,
            'comparisons': comparisons, 'limits': limits}


# the machine

def first_line(*argv):
    try:
        r = subprocess.run(argv, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True,
                           stdin=subprocess.DEVNULL, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    lines = r.stdout.strip().splitlines()
    return lines[0] if r.returncode == 0 and lines else None


def cpu_model():
    with open('/proc/cpuinfo') as f:
        m = re.search(r'^(?:model name|Model)\s*: *(.+)$', f.read(), re.M)
    return m.group(1) if m else platform.machine()


def describe_machine(folder, versions):
    """What a result is worth nothing without; @folder has the data."""
    return {
        'kernel': platform.release(), 'cpu': cpu_model(),
        'cpus': len(os.sched_getaffinity(0)),
        'memory_bytes': os.sysconf('SC_PHYS_PAGES') *
        os.sysconf('SC_PAGE_SIZE'),
        'file_system': first_line('stat', '-f', '-c', '%T', folder),
        'load_at_start': os.getloadavg()[0],
        'root': os.geteuid() == 0,
        'versions': dict(versions, commit=first_line(
            'git', '-C', ROOT, 'rev-parse', '--short', 'HEAD')),
    }


def print_machine(machine):
    print('%s, %d CPUs, %d GiB, Linux %s, %s' %
          (machine['cpu'], machine['cpus'],
           machine['memory_bytes'] >> 30, machine['kernel'],
           machine['file_system']))
    print(', '.join(str(v) for k, v in machine['versions'].items()
                    if v and k != 'commit'))
    if machine['load_at_start'] > 0.5:
        print('note: the machine is busy (load %.1f): figures are rough' %
              machine['load_at_start'])
    print(flush=True)


def find_platter(given):
    if given:
        return os.path.abspath(given)
    built = os.path.join(ROOT, 'build', 'nbd', 'platter')
    return built if os.access(built, os.X_OK) else shutil.which('platter')


def write_results(args, machine, figures, stem):
    kept = {k: v for k, v in vars(args).items()
            if k not in ('list', 'dir', 'output', 'platter', 'before')}
    with open(stem + '.json.part', 'w') as f:
        json.dump({'options': kept, 'machine': machine, 'figures': figures},
                  f, indent=1)
        f.write('\n')
    os.rename(stem + '.json.part', stem + '.json')
    with open(stem + '.svg.part', 'w') as f:
        f.write(report.svg(figures))
    os.rename(stem + '.svg.part', stem + '.svg')


def print_summary(figures):
    if not any(r['target'] is not None for fig in figures
               for r in fig['comparisons']) and \
            not any(fig['limits'] for fig in figures):
        return True
    print('targets:')
    count = {True: 0, False: 0, None: 0}
    for fig in figures:
        for r in fig['comparisons']:
            if r['target'] is None:
                continue
            count[r['met']] += 1
            print('  %-22s %-64s %s' % (
                fig['name'], '%s / %s >= %.2f' % (r['subject'], r['label'],
                                                  r['target']),
                '%.2f %s' % (r['summary']['median'], report.verdict(r['met']))
                if r['ratios'] else 'not measured'))
        for x in fig['limits']:
            count[x['met']] += 1
            print('  %-22s %-64s %s' % (
                fig['name'], '%s <= %s' % (x['label'],
                                           report.amount(x['limit'],
                                                         x['unit'])),
                '%s %s' % (report.amount(x['value'], x['unit']),
                           report.verdict(x['met']))
                if x['value'] is not None else 'not measured'))
    print('%d met, %d missed, %d not measured' %
          (count[True], count[False], count[None]))
    return count[True] > 0 and not count[False] and not count[None]


def interrupted(signum, frame):
    raise KeyboardInterrupt
