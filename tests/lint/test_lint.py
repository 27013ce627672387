#!/usr/bin/env python3
"""The lint tools against small trees: each rule finds its violation and nothing else."""

import json
import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, 'tools'))
sys.dont_write_bytecode = True

import check_layers  # noqa: E402
import check_style  # noqa: E402
import source_tree  # noqa: E402
import test_summary  # noqa: E402

OPENING = '/* What it is for. */\n'


class Tree(unittest.TestCase):
    """A temporary tree; write() adds a file to it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)

    def expect(self, wrong, *findings):
        """Exactly these findings, each given as the beginning of its line and a word in it."""
        self.assertEqual(len(wrong), len(findings), wrong)
        for line, (start, word) in zip(wrong, findings):
            self.assertTrue(line.startswith(start), wrong)
            self.assertIn(word, line)


class Layers(Tree):
    def setUp(self):
        super().setUp()
        for header in ('include/tilewright/tilewright.h', 'src/base/status.h', 'src/core/key.h',
                       'cache/cache.h', 'codegen/cpu/ir.h', 'src/format/model.h',
                       'src/backend/backend.h', 'templates/template.h', 'autotune/tune.h',
                       'src/plan.h', 'src/quant/quantize.h'):
            self.write(header, OPENING)

    def including(self, path, *names):
        """What is wrong with a file at `path` that has these includes."""
        self.write(path, OPENING + ''.join(f'#include {name}\n' for name in names))
        return check_layers.check(self.root)

    def test_pointing_up_is_fine(self):
        self.assertEqual(self.including('cache/a.c', '"cache/cache.h"', '"src/core/key.h"',
                                        '"tilewright/tilewright.h"', '<sqlite3.h>'), [])
        self.assertEqual(self.including('src/a.c', '"cache/cache.h"', '"autotune/tune.h"',
                                        '"src/quant/quantize.h"', '"templates/template.h"'), [])
        self.assertEqual(self.including('tests/x/a.c', '"src/plan.h"', '<cmocka.h>'), [])

    def test_pointing_down(self):
        for path, header in (('src/base/a.c', 'src/core/key.h'),
                             ('src/core/a.c', 'templates/template.h'),
                             ('codegen/a.c', 'templates/template.h'),
                             ('autotune/a.c', 'src/plan.h'),
                             ('src/quant/a.c', 'src/format/model.h'),
                             ('include/tilewright/a.h', 'src/base/status.h')):
            with self.subTest(path):
                wrong = self.including(path, f'"{header}"')
                self.expect(wrong, (f'{path}:2:', header))
                os.remove(os.path.join(self.root, path))

    def test_siblings(self):
        for path, header in (('cache/a.c', 'codegen/cpu/ir.h'), ('codegen/a.c', 'cache/cache.h'),
                             ('src/backend/a.c', 'src/format/model.h'),
                             ('src/format/a.c', 'src/backend/backend.h')):
            with self.subTest(path):
                self.expect(self.including(path, f'"{header}"'), (f'{path}:2:', header))
                os.remove(os.path.join(self.root, path))

    def test_the_tuner_does_not_know_the_cache(self):
        self.expect(self.including('autotune/a.c', '"cache/cache.h"'),
                    ('autotune/a.c:2:', 'cache/cache.h'))

    def test_users_see_the_public_header_only(self):
        self.assertEqual(self.including('examples/a.c', '<tilewright/tilewright.h>'), [])
        self.expect(self.including('benchmarks/a.c', '"tilewright/tilewright.h"',
                                   '"src/base/status.h"'), ('benchmarks/a.c:3:', 'status.h'))

    def test_angle_brackets_hide_nothing(self):
        self.expect(self.including('src/base/a.c', '<src/core/key.h>'),
                    ('src/base/a.c:2:', 'key.h'))

    def test_foreign_headers_are_pinned(self):
        for path, header in (('src/a.c', 'sqlite3.h'), ('templates/a.c', 'llvm-c/Core.h'),
                             ('src/backend/cpu/a.c', 'cuda.h'), ('codegen/cpu/a.c', 'nvrtc.h'),
                             ('src/core/a.c', 'cmocka.h')):
            with self.subTest(path):
                self.expect(self.including(path, f'<{header}>'), (f'{path}:2:', header))
                os.remove(os.path.join(self.root, path))

    def test_includes_are_written_from_the_root(self):
        self.expect(self.including('src/core/a.c', '"key.h"'), ('src/core/a.c:2:', 'from the root'))

    def test_every_file_lies_in_a_layer(self):
        self.write('docs/a.c', OPENING)
        self.expect(check_layers.check(self.root), ('docs/a.c:1:', 'no layer'))


class Style(Tree):
    def styled(self, path, text):
        """What is wrong with a tree of this one file."""
        self.write(path, text)
        wrong = check_style.check(self.root)
        os.remove(os.path.join(self.root, path))
        return wrong

    def test_clean(self):
        self.assertEqual(self.styled('src/a.c', OPENING + 'int f(void) {\n    return 0;\n}\n'), [])
        self.assertEqual(self.styled('tools/a.py', '"""What it is for."""\n'), [])
        self.assertEqual(self.styled('tools/a.sh', '#!/bin/sh\n# What it is for.\n'), [])

    def test_sizes(self):
        self.assertEqual(self.styled('src/a.c', OPENING + 'int x;\n' * 599), [])
        self.expect(self.styled('src/a.c', OPENING + 'int x;\n' * 600),
                    ('src/a.c:601:', '601 lines'))
        self.expect(self.styled('src/a.c', OPENING + '//' + 'x' * 99 + '\n'),
                    ('src/a.c:2:', '101 columns'))

    def test_functions(self):
        head = 'static int f(int a,\n             int b) {\n'
        self.assertEqual(self.styled('src/a.c', OPENING + head + '    a++;\n' * 77 + '}\n'), [])
        self.expect(self.styled('src/a.c', OPENING + head + '    a++;\n' * 78 + '}\n'),
                    ('src/a.c:2:', '81 lines'))
        self.expect(self.styled('tools/a.py', '"""x"""\ndef f():\n' + '    x = 1\n' * 80),
                    ('tools/a.py:2:', '81 lines'))
        self.expect(self.styled('dev', '#!/bin/sh\n# x\nf() {\n' + '    :\n' * 79 + '}\n'),
                    ('dev:3:', '81 lines'))

    def test_a_long_table_is_no_function(self):
        self.assertEqual(self.styled('src/a.c', OPENING + 'const int t[] = {\n' + '    F(1),\n' * 90
                                     + '};\n'), [])

    def test_opening_comment(self):
        for path in ('src/a.c', 'src/a.def', 'tools/a.py', 'tools/a.sh'):
            with self.subTest(path):
                self.expect(self.styled(path, 'x = 1\n'), (f'{path}:1:', 'what it is for'))

    def test_calls(self):
        for call in ('getenv("A")', 'printf("a")', 'fprintf(stderr, "a")', 'puts("a")', 'exit(1)',
                     'abort()'):
            with self.subTest(call):
                text = OPENING + f'void f(void) {{ {call}; }}\n'
                self.expect(self.styled('src/core/a.c', text), ('src/core/a.c:2:', call[:4]))
                self.assertEqual(self.styled('tests/a.c', text), [])
        self.assertEqual(self.styled('src/base/options.c', OPENING + 'x = getenv(name);\n'), [])
        self.assertEqual(self.styled('src/base/log.c', OPENING + 'fprintf(stderr, "a");\n'), [])
        self.expect(self.styled('tools/a.c', OPENING + 'getenv("A");\n'),
                    ('tools/a.c:2:', 'getenv'))

    def test_what_only_looks_like_a_call(self):
        for line in ('/* printf(a) */', 'x = "printf(a)";', 'snprintf(a, b, c);', 'log->printf(a);',
                     'at_exit(a);', '_Static_assert(1, "a");'):
            with self.subTest(line):
                self.assertEqual(self.styled('src/a.c', OPENING + line + '\n'), [])

    def test_asserts_check_emitters_only(self):
        self.assertEqual(self.styled('codegen/cpu/a.c', OPENING + 'assert(x);\n'), [])
        self.expect(self.styled('cache/a.c', OPENING + 'assert(x);\n'), ('cache/a.c:2:', 'assert'))

    def test_words(self):
        for word in ('TO' + 'DO', 'FIX' + 'ME', 'sess' + 'ion', '/tm' + 'p/a', '/ho' + 'me/me/a',
                     'https://pypi.o' + 'rg/simple'):
            with self.subTest(word):
                self.expect(self.styled('src/a.c', OPENING + f'/* {word} */\n'),
                            ('src/a.c:2:', '"'))
        for word in ('obsession', 'PHOTODONE', 'build/tmp/a', 'https://example.com/home/a'):
            with self.subTest(word):
                self.assertEqual(self.styled('src/a.c', OPENING + f'/* {word} */\n'), [])

    def test_code_that_is_switched_off(self):
        self.expect(self.styled('src/a.c', OPENING + '#if ' + '0\n#endif\n'),
                    ('src/a.c:2:', 'switched off'))

    def test_white_space(self):
        self.expect(self.styled('src/a.c', OPENING + 'int x; \n'), ('src/a.c:2:', 'white space'))
        self.expect(self.styled('src/a.c', OPENING + '\tint x;\n'), ('src/a.c:2:', 'tab'))
        self.expect(self.styled('src/a.c', OPENING + 'int x;'), ('src/a.c:2:', 'newline'))

    def test_binary_files_are_left_alone(self):
        self.assertEqual(self.styled('tests/data/a.gguf', 'GGUF\0 \n'), [])


class Includes(Tree):
    def test_closure(self):
        self.write('src/a.c', '#include "src/b.h"\n')
        self.write('src/b.h', '# include <src/c.h>\n#include <stdio.h>\n')
        self.write('src/c.h', '#include "src/b.h"\n')
        self.assertEqual(source_tree.closure(self.root, 'src/a.c', {}),
                         ['src/a.c', 'src/b.h', 'src/c.h'])


class Summary(Tree):
    CMOCKA = ('[==========] Running 3 test(s).\n[  PASSED  ] 1 test(s).\n'
              '[  SKIPPED ] 1 test(s), listed below:\n[  SKIPPED ] a\n'
              '[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] b\n')

    def counted(self, result, stdout='', stderr=''):
        return test_summary.count_test({'result': result, 'stdout': stdout, 'stderr': stderr})

    def test_counts(self):
        self.assertEqual(self.counted('OK'), (1, 0, 0))
        self.assertEqual(self.counted('SKIP'), (0, 0, 1))
        self.assertEqual(self.counted('FAIL'), (0, 1, 0))
        self.assertEqual(self.counted('TIMEOUT'), (0, 1, 0))
        self.assertEqual(self.counted('FAIL', stderr=self.CMOCKA), (1, 1, 1))
        self.assertEqual(self.counted('OK', stderr='Ran 4 tests in 0.1s\n\nOK (skipped=1)\n'),
                         (3, 0, 1))

    def test_both_forms_of_cmocka(self):
        named = self.CMOCKA.replace('] 1 test(s), listed', '] tests: 1 test(s), listed')
        self.assertNotEqual(named, self.CMOCKA)
        self.assertEqual(self.counted('FAIL', stderr=named), (1, 1, 1))

    def test_a_crash_after_passing_cases_is_a_failure(self):
        self.assertEqual(self.counted('FAIL', '[  PASSED  ] 4 test(s).\n'), (4, 1, 0))

    def test_failures_with_exit_code_zero_count(self):
        self.assertEqual(self.counted('OK', self.CMOCKA), (1, 1, 1))

    def test_builds(self):
        log = 'build/meson-logs/testlog.json'
        self.write(log, json.dumps({'name': 'a', 'result': 'OK', 'duration': 1.0}) + '\n')
        with open(os.devnull, 'w', encoding='utf-8') as nowhere:
            kept, sys.stdout = sys.stdout, nowhere
            try:
                self.assertEqual(test_summary.count_build(os.path.join(self.root, 'build')),
                                 [1, 0, 0])
                self.assertEqual(test_summary.count_build(os.path.join(self.root, 'none')),
                                 [0, 1, 0])
            finally:
                sys.stdout = kept


if __name__ == '__main__':
    unittest.main()
