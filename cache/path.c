/* Where the cache lies, and whether anybody else could have written it. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/db.h"
#include "src/base/options.h"
#include "src/base/status.h"

enum { FOLDER_MODE = 0700, WRITABLE_BY_OTHERS = S_IWGRP | S_IWOTH };

static tw_status default_path(tw_str *out) {
    const char *own = tw_option_text(TW_OPT_TW_CACHE);
    const char *xdg = tw_option_text(TW_OPT_XDG_CACHE_HOME), *home = tw_option_text(TW_OPT_HOME);
    if (*own)
        tw_str_add(out, "%s", own);
    else if (*xdg == '/') /* the XDG specification: a relative path counts as none */
        tw_str_add(out, "%s/tilewright/cache.db", xdg);
    else if (*home)
        tw_str_add(out, "%s/.cache/tilewright/cache.db", home);
    else
        return tw_fail(TW_CACHE, "cache: none of TW_CACHE, XDG_CACHE_HOME and HOME says where");
    return tw_str_ok(out);
}

/* mkdir -p.  `folder` is written to on the way and is as before on return. */
static tw_status make_folder(char *folder) {
    struct stat there;
    if (stat(folder, &there) == 0) return TW_OK;
    for (char *p = folder + 1;; p++) {
        if (*p != '/' && *p) continue;
        char end = *p;
        *p = 0;
        /* mkdir comes first: another process may be making the same folder. */
        int error = mkdir(folder, FOLDER_MODE) == 0 ? 0 : errno;
        if (error && stat(folder, &there) == 0) error = 0;
        if (error)
            return tw_fail(TW_CACHE, "cache: folder %s: cannot be made: %s", folder,
                           strerror(error));
        *p = end;
        if (!end) return TW_OK;
    }
}

/* folder/name with every symbolic link of the folder, and of the file where there is one,
 * resolved. */
static tw_status resolve(const char *path, bool create, tw_str *out) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char real[PATH_MAX];
    if (!*name) return tw_fail(TW_CACHE, "cache: %s: names a folder, expected a file", path);
    if (realpath(path, real)) {
        tw_str_add(out, "%s", real);
        return tw_str_ok(out);
    }
    if (errno != ENOENT) return tw_fail(TW_CACHE, "cache: %s: %s", path, strerror(errno));
    if (!create) return tw_fail(TW_CACHE, "cache: %s: no such file", path);

    tw_str folder = {0};
    tw_str_add_bytes(&folder, slash ? path : ".", slash ? (size_t)(slash - path) : 1);
    if (slash == path) tw_str_add(&folder, "/");
    tw_status status = tw_str_ok(&folder);
    if (status == TW_OK) status = make_folder(folder.text);
    if (status == TW_OK && !realpath(folder.text, real))
        status = tw_fail(TW_CACHE, "cache: folder %s: %s", folder.text, strerror(errno));
    tw_str_free(&folder);
    if (status != TW_OK) return status;
    tw_str_add(out, "%s/%s", strcmp(real, "/") == 0 ? "" : real, name);
    return tw_str_ok(out);
}

/* The rule for the file, for its folder and for what SQLite keeps beside the file. */
static tw_status check_owner(const char *path, const struct stat *s) {
    if (s->st_uid != geteuid() && s->st_uid != 0)
        return tw_fail(TW_CACHE,
                       "cache: %s: belongs to user %lu, but it would be trusted with machine code: "
                       "it must be this user's (%lu) or root's",
                       path, (unsigned long)s->st_uid, (unsigned long)geteuid());
    if (s->st_mode & WRITABLE_BY_OTHERS)
        return tw_fail(TW_CACHE,
                       "cache: %s: mode %04o, but it would be trusted with machine code: only its "
                       "owner may write to it (chmod go-w)",
                       path, (unsigned)(s->st_mode & 07777));
    return TW_OK;
}

/* Whoever may rename a folder above could put another one in its place.  Group write is let pass up
 * there: with umask 002 it is the rule, and the group is usually the user's own. */
static tw_status check_above(char *folder) {
    struct stat s;
    for (char *slash; (slash = strrchr(folder, '/')) && folder[1];) {
        slash[slash == folder] = 0;
        if (stat(folder, &s))
            return tw_fail(TW_CACHE, "cache: folder %s: %s", folder, strerror(errno));
        if ((s.st_mode & S_IWOTH) && !(s.st_mode & S_ISVTX))
            return tw_fail(TW_CACHE,
                           "cache: folder %s: mode %04o, but what lies below would be trusted with "
                           "machine code: not everybody may write to it",
                           folder, (unsigned)(s.st_mode & 07777));
    }
    return TW_OK;
}

/* exists: a file at `path` itself. */
static tw_status check_trust(const char *path, bool *exists) {
    static const char *const beside[] = {"", "-wal", "-journal", "-shm"};
    char name[PATH_MAX + sizeof "-journal"];
    struct stat s;
    *exists = false;
    for (size_t i = 0; i < TW_COUNT(beside); i++) {
        snprintf(name, sizeof name, "%s%s", path, beside[i]);
        if (stat(name, &s)) {
            if (errno == ENOENT) continue;
            return tw_fail(TW_CACHE, "cache: %s: %s", name, strerror(errno));
        }
        if (S_ISDIR(s.st_mode))
            return tw_fail(TW_CACHE, "cache: %s: is a directory, expected a file", name);
        if (!S_ISREG(s.st_mode)) return tw_fail(TW_CACHE, "cache: %s: is not a regular file", name);
        TW_TRY(check_owner(name, &s));
        if (i == 0) *exists = true;
    }
    snprintf(name, sizeof name, "%s", path);
    char *slash = strrchr(name, '/');
    slash[slash == name] = 0;
    if (stat(name, &s)) return tw_fail(TW_CACHE, "cache: folder %s: %s", name, strerror(errno));
    TW_TRY(check_owner(name, &s));
    return check_above(name);
}

tw_status tw_cache_resolve(const char *path, bool create, tw_str *out, bool *exists) {
    tw_str text = {0};
    tw_status status = TW_OK;
    if (path)
        tw_str_add(&text, "%s", path);
    else
        status = default_path(&text);
    if (status == TW_OK) status = tw_str_ok(&text);
    if (status == TW_OK) status = resolve(tw_str_text(&text), create, out);
    /* A path that could not be resolved is still the one to name. */
    if (status != TW_OK && !out->size && text.size) tw_str_add(out, "%s", text.text);
    tw_str_free(&text);
    if (status == TW_OK && out->size >= PATH_MAX)
        status = tw_fail(TW_CACHE, "cache: %.64s...: %zu bytes, a path has at most %d", out->text,
                         out->size, PATH_MAX - 1);
    return status == TW_OK ? check_trust(out->text, exists) : status;
}
