#!/usr/bin/env python3
"""Counts what the test runs of `./dev test` did and closes with 'N passed, N failed, N skipped'.

usage: test_summary.py [NAME=passed|failed|skipped]... BUILD...
    NAME=...   a step that is one test by itself, such as a lint tool
    BUILD      a build folder whose meson-logs/testlog.json holds a run; none there is a failure

A program that reports its own cases (cmocka, unittest) counts by case, any other as one.
"""

import json
import os
import re
import sys

# cmocka 1.1.7 puts the group's name in front of the last two numbers, 1.1.5 does not.
CMOCKA = {kind: re.compile(rf'^\[ *{kind.upper()} *\] (?:[^:\n]*: )?(\d+) test\(s\)', re.MULTILINE)
          for kind in ('passed', 'failed', 'skipped')}
UNITTEST = re.compile(r'^Ran (\d+) tests? in', re.MULTILINE)
UNITTEST_BAD = re.compile(r'(failures|errors|skipped)=(\d+)')


def cases(output):
    """(passed, failed, skipped) as a program's own report says; zeros when it has none."""
    count = {kind: sum(map(int, pattern.findall(output))) for kind, pattern in CMOCKA.items()}
    for ran in UNITTEST.finditer(output):
        bad = {'failures': 0, 'errors': 0, 'skipped': 0}
        bad.update((kind, int(n)) for kind, n in UNITTEST_BAD.findall(output[ran.end():]))
        count['failed'] += bad['failures'] + bad['errors']
        count['skipped'] += bad['skipped']
        count['passed'] += int(ran[1]) - sum(bad.values())
    return count['passed'], count['failed'], count['skipped']


def count_test(test):
    """The same for one line of testlog.json; meson's verdict wins over the report."""
    result = test['result']
    passed, failed, skipped = cases(test.get('stdout', '') + '\n' + test.get('stderr', ''))
    if result == 'SKIP':
        return 0, 0, max(skipped, 1)
    if result in ('OK', 'EXPECTEDFAIL'):
        # A report of failures with exit code 0 is a test program that lies.
        return (passed, failed, skipped) if passed + failed + skipped else (1, 0, 0)
    return passed, max(failed, 1), skipped


def count_build(build):
    """Totals of one build folder's run; prints them, and what failed or was skipped."""
    total, seconds, bad = [0, 0, 0], 0.0, []
    log = os.path.join(build, 'meson-logs', 'testlog.json')
    if not os.path.exists(log):
        print(f'{build}: no test was run: failed')
        return [0, 1, 0]
    with open(log, encoding='utf-8') as file:
        for line in file:
            test = json.loads(line)
            counts = count_test(test)
            total = [a + b for a, b in zip(total, counts)]
            seconds += test['duration']
            if counts[1] or counts[2]:
                bad.append(f"  {test['name']}: {counts[1]} failed, {counts[2]} skipped "
                           f"({test['result']})")
    print(f'{build}: {total[0]} passed, {total[1]} failed, {total[2]} skipped in {seconds:.0f} s')
    print('\n'.join(bad), end='\n' if bad else '')
    return total


def main():
    total = [0, 0, 0]
    for argument in sys.argv[1:]:
        step = re.fullmatch(r'([\w-]+)=(passed|failed|skipped)', argument)
        if step:
            counts = [int(step[2] == kind) for kind in ('passed', 'failed', 'skipped')]
            print(f'{step[1]}: {step[2]}')
        else:
            counts = count_build(argument)
        total = [a + b for a, b in zip(total, counts)]
    print('{} passed, {} failed, {} skipped'.format(*total))
    return 1 if total[1] or not total[0] else 0


if __name__ == '__main__':
    sys.exit(main())
