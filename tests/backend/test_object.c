/* The object loader: what it maps works and cannot be written; what is damaged or foreign is
 * refused.  Argument: the folder of the sample objects. */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/backend/backend.h"
#include "tests/base/cmocka_all.h"

static const char *folder;

typedef struct object {
    char *bytes; /* owned; exactly `size`, so that a sanitizer sees reads past the end */
    size_t size;
} object;

static object read_sample(const char *name) {
    static char content[1 << 16];
    char path[4096];
    snprintf(path, sizeof path, "%s/object_%s.o", folder, name);
    FILE *file = fopen(path, "rb");
    object o = {NULL, 0};
    if (file) {
        o.size = fread(content, 1, sizeof content, file);
        fclose(file);
    }
    if (o.size < sizeof(Elf64_Ehdr) || o.size == sizeof content) fail_msg("%s: not read", path);
    o.bytes = malloc(o.size);
    assert_non_null(o.bytes);
    memcpy(o.bytes, content, o.size);
    return o;
}

static tw_status load(const object *o, tw_image **image) {
    *image = NULL;
    return tw_image_load(o->bytes, o->size, image);
}

static int call(const tw_image *image, const char *name, int argument) {
    void *address = tw_image_symbol(image, name);
    assert_non_null(address);
    int (*function)(int);
    memcpy((void *)&function, (void *)&address, sizeof function);
    return function(argument);
}

/* pic: PC32 and PLT32; sections: calls across sections; pointer: a 64-bit address. */
static void test_runs(void **state) {
    (void)state;
    static const char *const samples[] = {"pic", "sections", "pointer"};
    for (size_t i = 0; i < TW_COUNT(samples); i++) {
        object o = read_sample(samples[i]);
        tw_image *image;
        if (load(&o, &image) != TW_OK) fail_msg("%s: %s", samples[i], tw_error_message());
        /* The image stands alone. */
        memset(o.bytes, 0xcc, o.size);
        free(o.bytes);
        assert_int_equal(call(image, "tw_sum", 8), 77);
        assert_int_equal(call(image, "tw_choose", 4), 'w');
        assert_int_equal(call(image, "tw_both", 3), 10 * 1000 + 'e');
        assert_null(tw_image_symbol(image, "tw_su"));
        assert_null(tw_image_symbol(image, "primes"));
        tw_image_unload(image);
    }
    tw_image_unload(NULL);
}

/* The permissions ("r-xp") of the mapping that holds an address. */
static void permissions_at(const void *address, char perms[8]) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096], *end;
    snprintf(perms, 8, "none");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long from = strtoul(line, &end, 16), to = strtoul(end + 1, &end, 16);
        char *found = end + 1;
        found[4] = 0;
        /* Nothing anywhere may be both. */
        if (found[1] == 'w' && found[2] == 'x') fail_msg("writable and executable: %s", line);
        if ((uintptr_t)address >= from && (uintptr_t)address < to) snprintf(perms, 8, "%s", found);
    }
    if (!maps)
        fail_msg("no /proc/self/maps");
    else
        fclose(maps);
}

static void test_protected(void **state) {
    (void)state;
    object o = read_sample("pic");
    tw_image *image;
    assert_int_equal(load(&o, &image), TW_OK);
    char perms[8];
    const char *code = tw_image_symbol(image, "tw_sum");
    permissions_at(code, perms);
    assert_string_equal(perms, "r-xp");
    /* Constants follow on the next page: the sample is small. */
    permissions_at((const char *)((uintptr_t)code & ~(uintptr_t)4095) + 4096, perms);
    assert_string_equal(perms, "r--p");
    tw_image_unload(image);
    permissions_at(code, perms);
    assert_string_equal(perms, "none");
    free(o.bytes);
}

static void refused(const object *o, const char *word) {
    tw_image *image;
    assert_int_equal(load(o, &image), TW_FORMAT);
    assert_null(image);
    if (!strstr(tw_error_message(), word))
        fail_msg("\"%s\" does not name %s", tw_error_message(), word);
}

static void test_foreign(void **state) {
    (void)state;
    static const struct {
        const char *sample, *word;
    } rows[] = {
        {"undefined", "elsewhere"}, {"data", ".data"},     {"bss", ".bss"},
        {"unwind", ".eh_frame"},    {"absolute", "reach"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        object o = read_sample(rows[i].sample);
        refused(&o, rows[i].word);
        free(o.bytes);
    }
}

/* ---- damage ---- */

/* A copy with `size` bytes at `offset` replaced. */
static object patched(const object *o, size_t offset, const void *bytes, size_t size) {
    object copy = {malloc(o->size), o->size};
    assert_non_null(copy.bytes);
    assert_true(offset + size <= o->size);
    memcpy(copy.bytes, o->bytes, o->size);
    memcpy(copy.bytes + offset, bytes, size);
    return copy;
}

static void patched_is_refused(const object *o, size_t offset, uint64_t value, size_t size,
                               const char *word) {
    object copy = patched(o, offset, &value, size);
    refused(&copy, word);
    free(copy.bytes);
}

static Elf64_Shdr section(const object *o, int i) {
    Elf64_Ehdr h;
    Elf64_Shdr s;
    memcpy(&h, o->bytes, sizeof h);
    memcpy(&s, o->bytes + h.e_shoff + (size_t)i * sizeof s, sizeof s);
    return s;
}

/* Index of the first section of a type whose flags include `flags`. */
static int find_section(const object *o, uint32_t type, uint64_t flags) {
    Elf64_Ehdr h;
    memcpy(&h, o->bytes, sizeof h);
    for (int i = 1; i < h.e_shnum; i++) {
        Elf64_Shdr s = section(o, i);
        if (s.sh_type == type && (s.sh_flags & flags) == flags && s.sh_size) return i;
    }
    fail_msg("no section of type %u", type);
    return 0;
}

static size_t section_field(const object *o, int i, size_t field) {
    Elf64_Ehdr h;
    memcpy(&h, o->bytes, sizeof h);
    return h.e_shoff + (size_t)i * sizeof(Elf64_Shdr) + field;
}

#define HEADER(field) offsetof(Elf64_Ehdr, field), sizeof(((Elf64_Ehdr *)0)->field)

static void test_header_fields(void **state) {
    (void)state;
    object o = read_sample("pic");
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *word;
    } rows[] = {
        {EI_MAG0, 1, 0x7e, "ELF64"},
        {EI_CLASS, 1, ELFCLASS32, "ELF64"},
        {EI_DATA, 1, ELFDATA2MSB, "ELF64"},
        {HEADER(e_type), ET_EXEC, "relocatable"},
        {HEADER(e_machine), EM_RISCV, "243"},
        {HEADER(e_shoff), UINT64_MAX, "section headers"},
        {HEADER(e_shoff), UINT64_MAX - 63, "section headers"},
        {HEADER(e_shentsize), 63, "section headers"},
        {HEADER(e_shnum), 0, "section headers"},
        {HEADER(e_shnum), 65535, "section headers"},
        {HEADER(e_shstrndx), 65535, "names"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        patched_is_refused(&o, rows[i].offset, rows[i].value, rows[i].size, rows[i].word);
    free(o.bytes);
}

static void test_section_fields(void **state) {
    (void)state;
    object o = read_sample("pic");
    int text = find_section(&o, SHT_PROGBITS, SHF_EXECINSTR), rela = find_section(&o, SHT_RELA, 0);
    int symtab = find_section(&o, SHT_SYMTAB, 0);
    const struct {
        int section;
        size_t offset, size;
        uint64_t value;
        const char *word;
    } rows[] = {
        {text, offsetof(Elf64_Shdr, sh_offset), 8, o.size, "outside the file"},
        {text, offsetof(Elf64_Shdr, sh_size), 8, UINT64_MAX, "outside the file"},
        {text, offsetof(Elf64_Shdr, sh_addralign), 8, 3, "aligned"},
        {text, offsetof(Elf64_Shdr, sh_addralign), 8, 1 << 30, "aligned"},
        {text, offsetof(Elf64_Shdr, sh_type), 4, SHT_NOBITS, ".text"},
        {text, offsetof(Elf64_Shdr, sh_flags), 8, SHF_ALLOC | SHF_EXECINSTR | SHF_WRITE, ".text"},
        {text, offsetof(Elf64_Shdr, sh_flags), 8, SHF_ALLOC, ".text"},
        {text, offsetof(Elf64_Shdr, sh_flags), 8, 0, "no code"},
        {symtab, offsetof(Elf64_Shdr, sh_link), 4, 60000, "symbols"},
        {symtab, offsetof(Elf64_Shdr, sh_entsize), 8, 0, "symbols"},
        {rela, offsetof(Elf64_Shdr, sh_info), 4, 60000, "does not exist"},
        {rela, offsetof(Elf64_Shdr, sh_link), 4, 0, "relocation table"},
        {rela, offsetof(Elf64_Shdr, sh_entsize), 8, 16, "relocation table"},
        {rela, offsetof(Elf64_Shdr, sh_type), 4, SHT_REL, "relocation table"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        patched_is_refused(&o, section_field(&o, rows[i].section, rows[i].offset), rows[i].value,
                           rows[i].size, rows[i].word);
    free(o.bytes);
}

static void test_relocations_and_symbols(void **state) {
    (void)state;
    object o = read_sample("pic");
    size_t rela = section(&o, find_section(&o, SHT_RELA, 0)).sh_offset;
    Elf64_Shdr symtab = section(&o, find_section(&o, SHT_SYMTAB, 0));
    Elf64_Rela r;
    memcpy(&r, o.bytes + rela, sizeof r);
    size_t sym = symtab.sh_offset + ELF64_R_SYM(r.r_info) * sizeof(Elf64_Sym);
    size_t info = rela + offsetof(Elf64_Rela, r_info);

    patched_is_refused(&o, rela, UINT64_MAX, 8, "outside section .text");
    patched_is_refused(&o, rela,
                       section(&o, find_section(&o, SHT_PROGBITS, SHF_EXECINSTR)).sh_size - 3, 8,
                       "outside section .text");
    patched_is_refused(&o, info, R_X86_64_GOTPCREL, 4, "type 9");
    patched_is_refused(&o, info + 4, 0xffffffff, 4, "symbol that does not exist");
    patched_is_refused(&o, rela + offsetof(Elf64_Rela, r_addend), (uint64_t)1 << 40, 8, "reach");
    patched_is_refused(&o, sym + offsetof(Elf64_Sym, st_name), 0xffffff, 4, "name");
    patched_is_refused(&o, sym + offsetof(Elf64_Sym, st_shndx), SHN_UNDEF, 2, "undefined");
    patched_is_refused(&o, sym + offsetof(Elf64_Sym, st_shndx), SHN_COMMON, 2, "constants");
    patched_is_refused(&o, sym + offsetof(Elf64_Sym, st_value), 1 << 20, 8, "constants");
    free(o.bytes);
}

/* The section headers come last, so every shorter file lacks some. */
static void test_truncated(void **state) {
    (void)state;
    object o = read_sample("pic");
    for (size_t size = 0; size < o.size; size++) {
        object cut = {malloc(size ? size : 1), size};
        assert_non_null(cut.bytes);
        memcpy(cut.bytes, o.bytes, size);
        tw_image *image;
        assert_int_equal(load(&cut, &image), TW_FORMAT);
        free(cut.bytes);
    }
    free(o.bytes);
}

/* Whatever one byte becomes, the loader reads and writes only what it may (a sanitizer watches) and
 * either loads or says why not.  The code is not run: that it is right is for a digest to say. */
static void test_flipped(void **state) {
    (void)state;
    static const uint8_t masks[] = {0x01, 0x80, 0xff};
    object o = read_sample("sections");
    int refusals = 0;
    for (size_t i = 0; i < o.size; i++)
        for (size_t k = 0; k < TW_COUNT(masks); k++) {
            uint8_t byte = (uint8_t)o.bytes[i] ^ masks[k];
            object copy = patched(&o, i, &byte, 1);
            tw_image *image;
            tw_status status = load(&copy, &image);
            if (status != TW_OK && status != TW_FORMAT)
                fail_msg("byte %zu: %s", i, tw_error_message());
            refusals += status != TW_OK;
            tw_image_unload(image);
            free(copy.bytes);
        }
    assert_true(refusals > 0);
    free(o.bytes);
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    folder = arguments[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),           cmocka_unit_test(test_protected),
        cmocka_unit_test(test_foreign),        cmocka_unit_test(test_header_fields),
        cmocka_unit_test(test_section_fields), cmocka_unit_test(test_relocations_and_symbols),
        cmocka_unit_test(test_truncated),      cmocka_unit_test(test_flipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
