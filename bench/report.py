# SPDX-License-Identifier: BSD-3-Clause
"""What was measured, as a table for people and a plot."""

import math
import statistics
from xml.sax.saxutils import escape


def human(value, unit):
    if unit == 's':
        if value < 1:
            return '%.1f ms' % (value * 1e3)
        return '%.2f s' % value
    if unit == 'IOPS':
        return '%.2f k' % (value / 1e3)
    return '%.0f' % value


def spread(values):
    """Half the distance between extremes, as a share of the median."""
    mid = statistics.median(values)
    return (max(values) - min(values)) / 2 / mid if mid else 0.0


def summary(values):
    return {'n': len(values), 'median': statistics.median(values),
            'min': min(values), 'max': max(values),
            'spread': spread(values)}


def verdict(met):
    return {True: 'met', False: 'MISSED', None: ''}[met]


def amount(value, unit):
    if unit == 'B':
        return '%.1f MiB' % (value / 1048576)
    return human(value, unit)


def head_line(fig):
    return '  %-38s %10s %10s %10s %6s %12s %9s' % (
        fig['unit'], 'median', 'min', 'max', '+/-', 'CPU/' + fig['op'],
        'peak RSS')


def contender_line(c, unit):
    if not c['runs']:
        return '  %-38s not measured: %s' % (c['name'], c['error'])
    s = c['summary']
    return '  %-38s %10s %10s %10s %5.1f%% %9.2f us %6.0f MiB' % (
        c['name'], human(s['median'], unit), human(s['min'], unit),
        human(s['max'], unit), s['spread'] * 100,
        c['cpu_per_op'] * 1e6, c['rss'] / 1048576)


def ratio_line(r):
    left = '  = %s / %s' % (r['subject'], r['label'])
    if not r['ratios']:
        return '%-62s not measured' % left
    s = r['summary']
    line = '%-62s %6.2f  (%.2f .. %.2f)' % (left, s['median'], s['min'],
                                           s['max'])
    if r['target'] is not None:
        line += '  target %.2f  %s' % (r['target'], verdict(r['met']))
    return line


def limit_line(x):
    left = '  = %s' % x['label']
    if x['value'] is None:
        return '%-62s not measured' % left
    return '%-62s %s  limit %s  %s' % (left, amount(x['value'], x['unit']),
                                       amount(x['limit'], x['unit']),
                                       verdict(x['met']))


def print_figure(fig):
    print(head_line(fig))
    for c in fig['contenders']:
        print(contender_line(c, fig['unit']))
    for r in fig['comparisons']:
        print(ratio_line(r))
    for x in fig['limits']:
        print(limit_line(x))
    print(flush=True)


def svg(figures):
    """Horizontal bars of the ratios on a logarithmic axis, targets marked."""
    rows = [(fig, r) for fig in figures for r in fig['comparisons']
            if r['ratios']]
    left, width, row, top = 490, 520, 26, 56
    height = top + row * max(1, len(rows)) + 48
    values = [v for _, r in rows
              for v in (r['summary']['min'], r['summary']['max'],
                        r['target'] or 1)] + [0.5, 2.0]
    lo = math.floor(math.log2(max(min(values), 1e-3)))
    hi = math.ceil(math.log2(max(values)))

    def x(value):
        at = math.log2(max(value, 2.0 ** lo))
        return left + width * (at - lo) / (hi - lo)

    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
           'font-family="sans-serif" font-size="12">' %
           (left + width + 90, height),
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="12" y="22" font-size="15">platter against its peers: '
           'median ratio, more is faster</text>',
           '<text x="12" y="40" fill="#555">thin line: lowest and highest '
           'round; red mark: target; grey: no target</text>']
    bottom = top + row * max(1, len(rows))
    for power in range(lo, hi + 1):
        at = x(2.0 ** power)
        out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>'
                   % (at, top, at, bottom,
                      '#000' if power == 0 else '#ddd'))
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%g</text>' %
                   (at, bottom + 16, 2.0 ** power))
    for i, (fig, r) in enumerate(rows):
        y = top + row * i
        s = r['summary']
        colour = {True: '#3a7d44', False: '#c0562b',
                  None: '#8a8f98'}[r['met']]
        a, b = sorted((x(1.0), x(s['median'])))
        out.append('<text x="%d" y="%d" text-anchor="end">%s</text>' %
                   (left - 8, y + 17, escape('%s: %s / %s' % (
                       fig['name'], r['subject'], r['label']))))
        out.append('<rect x="%.1f" y="%d" width="%.1f" height="14" '
                   'fill="%s"/>' % (a, y + 6, max(b - a, 1), colour))
        out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" '
                   'stroke="#222"/>' % (x(s['min']), y + 13, x(s['max']),
                                        y + 13))
        if r['target'] is not None:
            at = x(r['target'])
            out.append('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" '
                       'stroke="#d00" stroke-width="2"/>' %
                       (at, y + 2, at, y + 24))
        out.append('<text x="%d" y="%d">%.2f</text>' %
                   (left + width + 12, y + 17, s['median']))
    out.append('</svg>')
    return '\n'.join(out) + '\n'
