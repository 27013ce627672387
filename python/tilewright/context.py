"""Contexts: what linears run on.  One per thread count and kind of pool, shared, and
destroyed at the end of the process where somebody wants a trace.

The parallel-for is the process's own OpenMP where one is loaded that exports GOMP_parallel (torch
brings one), so that the library's kernels and torch's loops share one set of threads; otherwise it
is the library's pool.
"""

import atexit
import ctypes
import os
import re
import threading
import weakref

from . import _lib

_shared = {}
_settings = {}
_traced = weakref.WeakSet()
_lock = threading.Lock()


class Context:
    """A tw_context; the arguments are tw_options', and `openmp` the address of a GOMP_parallel."""

    def __init__(self, threads=0, mode='default', device=None, cache_path=None, tune_budget_s=0.0,
                 openmp=None):
        if mode not in _lib.MODES:
            raise _lib.InvalidError(f'mode: "{mode}", expected one of {", ".join(_lib.MODES)}')
        options = _lib.describe_struct(_lib.Options)
        options.threads, options.mode = threads, _lib.MODES.index(mode)
        options.tune_budget_s = tune_budget_s
        options.device = device.encode() if device is not None else None
        options.cache_path = os.fsencode(cache_path) if cache_path is not None else None
        if openmp:
            _lib.check(_lib.lib.tw_parallel_openmp(openmp, threads,
                                                   ctypes.byref(options.parallel)))
        handle = ctypes.c_void_p()
        _lib.check(_lib.lib.tw_context_create(ctypes.byref(options), ctypes.byref(handle)))
        self.handle, self.process = handle, os.getpid()
        self.shared_as = None  # arguments of shared(), where it is one of those
        self.natives = None  # while a trace is written: the linears on it
        if os.environ.get('TW_TRACE'):
            self.natives = weakref.WeakSet()
            _traced.add(self)

    def add(self, native):
        """Tells the context of a linear that is on it."""
        if self.natives is not None:
            self.natives.add(native)

    def close(self):
        """Destroys it and its linears; those that are in a call are kept, and it with them."""
        for native in list(self.natives):
            native.close()
        handle, self.handle = self.handle, None
        _lib.lib.tw_context_destroy(handle)

    def here(self):
        """Itself; in a child that was forked since, the context that takes its place there, as
        the pool has no threads in a child and would wait for them for ever."""
        if self.process == os.getpid():
            return self
        if self.shared_as:
            return shared(*self.shared_as)
        raise _lib.InvalidError(
            f'context: made by process {self.process}, and its child {os.getpid()} has none of its '
            'threads: make a Context, and the layers on it, after the fork')

    def __del__(self, destroy=_lib.lib.tw_context_destroy, process=os.getpid):
        # Linears hold their context, so none is left; a pool does not survive a fork.
        if getattr(self, 'handle', None) and self.process == process():
            destroy(self.handle)

    def device(self):
        """The device that it generates for: a dict of name, target, threads."""
        info = _lib.describe_struct(_lib.DeviceInfo)
        _lib.check(_lib.lib.tw_context_device(self.handle, ctypes.byref(info)))
        return {'name': info.name.decode(), 'target': info.target.decode(), 'threads': info.threads}


def gomp_parallel(library=None):
    """The address of GOMP_parallel as `library` (a path) sees it, or of an OpenMP runtime that the
    process has loaded; None where there is none."""
    paths = [library]
    if not library:
        with open('/proc/self/maps', encoding='utf-8', errors='replace') as maps:
            paths = sorted(set(re.findall(r'(/\S*/lib(?:g|i)?omp\d?[-.]\S*)', maps.read())))
    for path in paths:
        try:
            function = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value
    return None


def shared(threads=0, openmp=None, settings=None):
    """The process's context of so many threads (0: the library's default); settings as
    configure() was given them, None for the latest."""
    with _lock:
        settings = _settings if settings is None else settings
        key = threads, openmp, tuple(sorted(settings.items()))
        if key not in _shared:
            _shared[key] = Context(threads, openmp=openmp, **settings)
            _shared[key].shared_as = threads, openmp, settings
        return _shared[key]


def configure(**settings):
    """Arguments of Context (mode, cache_path, tune_budget_s, device) for layers made from now on;
    without any, the defaults again.  Layers that are there stay where they are."""
    global _settings
    Context(threads=1, **settings)  # raises what is wrong with them
    with _lock:
        _settings = settings
        _shared.clear()


def _forget():
    """After a fork the child has none of the threads: contexts are made anew, the old ones kept."""
    global _lock  # it may have been held by a thread that the child does not have
    _lock = threading.Lock()
    _forgotten.extend(_shared.values())
    _shared.clear()


_forgotten = []
os.register_at_fork(after_in_child=_forget)


def _finish():
    """The library writes a trace in batches, and the rest when a context is destroyed, which
    Python does not do for what it still holds at its end."""
    for context in list(_traced):
        if context.handle and context.process == os.getpid():
            context.close()


atexit.register(_finish)
