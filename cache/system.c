/* The system file: what an administrator or a package installed, read by everybody, written by
 * nobody. */
#include <string.h>
#include <unistd.h>

#include "cache/db.h"
#include "src/base/options.h"

/* Nobody asked for the default by name, so it may be missing. */
static bool missing_default(const char *path) {
    return strcmp(path, tw_option_rows[TW_OPT_TW_CACHE_SYSTEM].def) == 0 && access(path, F_OK) != 0;
}

/* The tuning that makes a system file has it as the user's: as `user` it is read and written, and
 * a second, unlocked reader of it would see it change. */
static bool is_user_file(const tw_cache *cache, const tw_cache *user) {
    return user && strcmp(tw_cache_path(cache), tw_cache_path(user)) == 0;
}

tw_status tw_cache_open_system(const char *path, const tw_cache *user, const tw_logger *log,
                               tw_cache **out) {
    if (!path) path = tw_option_text(TW_OPT_TW_CACHE_SYSTEM);
    tw_cache *cache = tw_cache_create(TW_CACHE_READ, log);
    if (!cache) return TW_MEMORY;

    bool exists;
    tw_status status = TW_OK;
    if (*path && !missing_default(path)) {
        status = tw_cache_resolve(path, false, &cache->path, &exists);
        bool same = is_user_file(cache, user);
        if (same) tw_str_free(&cache->path);
        if (status == TW_OK && !same) status = tw_db_open_fixed(cache);
        if (same)
            status = TW_OK; /* whatever there is to say of it was said of the user's */
        else if (status != TW_OK && status != TW_MEMORY)
            status = tw_cache_bypass(cache);
    }
    if (status == TW_OK)
        *out = cache;
    else
        tw_cache_close(cache);
    return status;
}
