#!/usr/bin/env python3
"""Writes the manual page out of what the program says of itself, so that it cannot be out of date.

usage: man.py TILEWRIGHT OUTPUT     TILEWRIGHT: the program; OUTPUT: tilewright.1
"""

import json
import re
import subprocess
import sys

INTRODUCTION = """Tilewright makes quantized linear layers fast on the machine it runs on: it
generates a kernel for each shape, scheme and instruction set, compiles it, finds its tile sizes by
measuring and remembers them.  This program does that ahead of time, shows what was generated and
why, and quantizes models.  Programs use the library instead; its interface is documented in
tilewright/tilewright.h."""


def ask(program, *words):
    """What the program prints; its environment is empty, so that nobody's settings get in."""
    return subprocess.run([program, *words], env={}, check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def roff(text):
    """Text as troff shows it literally."""
    text = text.replace('\\', '\\e').replace('-', '\\-').replace("'", '\\(aq').replace('^', '\\(ha')
    text = text.replace('~', '\\(ti').replace('`', '\\(ga')
    return re.sub(r'(?m)^\.', r'\\&.', text)


def literal(text):
    """Lines that stay as they are."""
    return f'.nf\n.ft CW\n{roff(text.rstrip())}\n.ft R\n.fi\n'


def tagged(rows):
    """Pairs of a term and what it means."""
    return ''.join(f'.TP\n\\fB{roff(term)}\\fR\n{roff(text)}\n' for term, text in rows)


def pairs(block):
    """The rows of a table that --help prints: a term, two spaces or more, its meaning."""
    return [re.split(r'  +', line.strip(), maxsplit=1) for line in block.strip().split('\n')]


def command_section(program, name):
    """Usage, what it does, options and examples of a command."""
    head, rest = ask(program, name, '--help').split('\noptions:\n')
    options, examples = rest.split('\nexamples:\n')
    usage, about = head.split('\n', 1)
    return (f'.SS {roff(name)}\n.B {roff(usage.removeprefix("usage: "))}\n.PP\n'
            f'{literal(about.strip())}{tagged(pairs(options))}.PP\nExamples:\n.PP\n'
            f'{literal(examples)}')


def page(program):
    """The whole page."""
    version = ask(program, '--version').split()[1]
    usage, commands, words, _ = ask(program, '--help').split('\n\n')
    variables = map(json.loads, ask(program, 'list', 'options', '--json').splitlines())
    rows = pairs(commands)
    meanings = [(v['option'], v['help'] + (f' ({v["default"]})' if v['default'] else ''))
                for v in variables]
    parts = [
        f'.\\" Written by tools/man.py from the program\'s own --help.\n'
        f'.TH TILEWRIGHT 1 "" "tilewright {version}" "User Commands"\n'
        '.\\" Left alone: neither spread to the margin nor hyphenated.\n.ad l\n.nh\n',
        f'.SH NAME\ntilewright \\- {roff(re.split("  +", usage)[1])}\n',
        '.SH SYNOPSIS\n.B tilewright\n\\fICOMMAND\\fR [\\fIARGUMENT\\fR...] [\\fIOPTION\\fR...]\n'
        '.br\n.B tilewright \\-\\-help\n.br\n.B tilewright \\-\\-version\n',
        f'.SH DESCRIPTION\n{roff(INTRODUCTION)}\n{tagged(rows)}',
        f'.SH ARGUMENTS\n{tagged(pairs(words))}',
        '.SH COMMANDS\n', *(command_section(program, name) for name, _ in rows),
        f'.SH ENVIRONMENT\n{tagged(meanings)}',
        '.SH EXIT STATUS\n' + tagged([('0', 'success'), ('1', 'it failed, as one sentence on '
                                      'standard error says'), ('2', 'wrong usage')]),
    ]
    return ''.join(parts)


def main():
    program, output = sys.argv[1:]
    with open(output, 'w', encoding='utf-8') as file:
        file.write(page(program))


if __name__ == '__main__':
    main()
